package attach_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/oauth"
)

// secretFile creates a file with the content.
func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "background-service")
	write(t, path, content)
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func function(secret string) attach.Option {
	return attach.SecretFunc(func(context.Context) (string, error) { return secret, nil })
}

// scriptedIssuer is a connection to an issuer that accepts one secret only. It needs no network.
type scriptedIssuer struct {
	accepts     string
	description string // of the refusal
	code        oauth.Code
	sent        []string
}

func (s *scriptedIssuer) Invoke(_ context.Context, _ string, request, reply any, _ ...grpc.CallOption) error {
	secret := request.(*grantorv1.IssueTokenRequest).GetClientSecret()
	s.sent = append(s.sent, secret)
	if secret == s.accepts {
		answer := reply.(*grantorv1.IssueTokenResponse)
		answer.AccessToken, answer.TokenType, answer.ExpiresIn = fmt.Sprintf("token-%d", len(s.sent)), "Bearer", 3600
		return nil
	}
	refusal, err := status.New(codes.Unauthenticated, s.description).WithDetails(
		&errdetails.ErrorInfo{Reason: string(s.code), Domain: "grantor"})
	if err != nil {
		return err
	}
	return refusal.Err()
}

func (s *scriptedIssuer) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("not here")
}

func TestWaysToGiveTheSecret(t *testing.T) {
	t.Setenv("ATTACH_TEST_SECRET", "s3cret ")
	long := strings.Repeat("x", oauth.MaxSecret)
	for name, test := range map[string]struct {
		option attach.Option
		want   string
	}{
		"file":                   {attach.SecretFile(secretFile(t, "s3cret")), "s3cret"},
		"file with a line end":   {attach.SecretFile(secretFile(t, "s3cret\n")), "s3cret"},
		"file of Windows":        {attach.SecretFile(secretFile(t, "s3cret\r\n")), "s3cret"},
		"file of several lines":  {attach.SecretFile(secretFile(t, " s3\ncret\n\n")), " s3\ncret"},
		"file of the most bytes": {attach.SecretFile(secretFile(t, long+"\r\n")), long},
		"environment":            {attach.SecretEnv("ATTACH_TEST_SECRET"), "s3cret "},
		"function":               {function("s3cret\n"), "s3cret\n"},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := &scriptedIssuer{accepts: test.want}
			source := attach.ClientCredentials("", "background-service", "", test.option, attach.OverGRPC(issuer))
			token := accessToken(t, source)
			if !slices.Equal(issuer.sent, []string{test.want}) {
				t.Errorf("sent %q, want %q once", issuer.sent, test.want)
			}
			wantNoSecret(t, test.want, source, struct{ Source *attach.Source }{source}, test.option)
			wantNoSecret(t, token, source)
		})
	}
}

func TestSecretThatCannotBeHad(t *testing.T) {
	t.Setenv("ATTACH_TEST_EMPTY", "")
	t.Setenv("ATTACH_TEST_LONG", strings.Repeat("s3cret", 100))
	missing, dir := filepath.Join(t.TempDir(), "missing"), t.TempDir()
	empty, lineEnds := secretFile(t, ""), secretFile(t, "\r\n\n")
	long, longer := secretFile(t, strings.Repeat("s3cret", 100)), secretFile(t, "s3cret"+strings.Repeat("\n", 600))
	broken := errors.New("the vault is sealed")
	for name, test := range map[string]struct {
		option attach.Option
		text   string
		grpc   codes.Code
	}{
		"no file":               {attach.SecretFile(missing), "open " + missing, codes.Unavailable},
		"a directory":           {attach.SecretFile(dir), "read " + dir, codes.Unavailable},
		"empty file":            {attach.SecretFile(empty), empty + " is empty", codes.Unavailable},
		"file of line ends":     {attach.SecretFile(lineEnds), lineEnds + " is empty", codes.Unavailable},
		"long file":             {attach.SecretFile(long), long + " has more than 512 bytes", codes.Unavailable},
		"file of too many ends": {attach.SecretFile(longer), longer + " has more than 512 bytes", codes.Unavailable},
		"no variable":           {attach.SecretEnv("ATTACH_TEST_NONE"), "variable ATTACH_TEST_NONE is empty", codes.Internal},
		"empty variable":        {attach.SecretEnv("ATTACH_TEST_EMPTY"), "variable ATTACH_TEST_EMPTY is empty", codes.Internal},
		"long variable":         {attach.SecretEnv("ATTACH_TEST_LONG"), "ATTACH_TEST_LONG has more than 512 bytes", codes.Internal},
		"empty answer":          {function(""), "the value returned by the function is empty", codes.Unavailable},
		"long answer":           {function(strings.Repeat("s3cret", 100)), "function has more than 512 bytes", codes.Unavailable},
		"failed function": {attach.SecretFunc(func(context.Context) (string, error) { return "s3cret", broken }),
			"the client secret: the vault is sealed", codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := &scriptedIssuer{}
			_, err := attach.ClientCredentials("", "a", "", test.option, attach.OverGRPC(issuer)).Token()
			var failure *attach.Error
			if !errors.As(err, &failure) || failure.Code != "" || !strings.Contains(err.Error(), test.text) {
				t.Fatalf("got %v, want %q in an *attach.Error", err, test.text)
			}
			if name == "failed function" && !errors.Is(err, broken) {
				t.Errorf("got %v, want the function's error in it", err)
			}
			wantNoSecret(t, "s3cret", err)
			if status.Code(err) != test.grpc || len(issuer.sent) > 0 {
				t.Errorf("got %v after %q was sent, want %v and nothing sent", status.Code(err), issuer.sent, test.grpc)
			}
		})
	}
}

func TestSecretGivenTwice(t *testing.T) {
	for name, source := range map[string]*attach.Source{
		"argument and file": attach.ClientCredentials("https://auth.example.com", "a", "s3cret", attach.SecretFile("b")),
		"two options":       attach.ClientCredentials("https://auth.example.com", "a", "", attach.SecretEnv("b"), function("c")),
	} {
		_, err := source.Token()
		if err == nil || !strings.Contains(err.Error(), "set in 2 ways") || status.Code(err) != codes.Internal {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
		wantNoSecret(t, "s3cret", source, err)
	}
}

// The states of a file that is being replaced.
func TestSecretFileKeepsLast(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"empty":       func(path string) error { return os.Truncate(path, 0) },
		"away":        os.Remove,
		"too long":    func(path string) error { return os.WriteFile(path, make([]byte, 1000), 0o600) },
		"a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := secretFile(t, "s3cret\n")
			issuer := &scriptedIssuer{accepts: "s3cret", code: oauth.InvalidClient, description: "wrong"}
			file := attach.SecretFile(path)
			source := attach.ClientCredentials("", "a", "", file, attach.OverGRPC(issuer))
			accessToken(t, source)
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			if _, err := attach.Issue(t.Context(), source); err != nil {
				t.Errorf("got %v, want the last secret to serve", err)
			}
			issuer.accepts = "next"
			_, err := attach.Issue(t.Context(), source)
			var refused *attach.Error
			if !errors.As(err, &refused) || refused.Code != oauth.InvalidClient || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want invalid_client and what is wrong with the file", err)
			}
			wantNoSecret(t, "s3cret", err)
			if want := []string{"s3cret", "s3cret", "s3cret"}; !slices.Equal(issuer.sent, want) {
				t.Errorf("sent %q, want %q", issuer.sent, want)
			}
			// Sources do not share the secret that was read last.
			if _, err := attach.ClientCredentials("", "a", "", file, attach.OverGRPC(issuer)).Token(); status.Code(err) != codes.Unavailable {
				t.Errorf("a second source with the option: got %v, want no secret", err)
			}
		})
	}
}

func TestRefusedSecretThatWasReplaced(t *testing.T) {
	broken := errors.New("the vault is sealed")
	for _, test := range []struct {
		name    string
		secrets []any // results of successive calls; the last one repeats
		accepts string
		code    oauth.Code
		sent    []string
		text    string // in the error; empty if a token is issued
	}{
		{"replaced", []any{"old", "new"}, "new", oauth.InvalidClient, []string{"old", "new"}, ""},
		{"still the same", []any{"old"}, "new", oauth.InvalidClient, []string{"old"}, "invalid_client: not good"},
		{"replaced by another wrong one", []any{"old", "new", "newer"}, "newer", oauth.InvalidClient,
			[]string{"old", "new"}, "invalid_client: not good"},
		{"another refusal", []any{"old", "new"}, "new", oauth.InvalidScope, []string{"old"}, "invalid_scope"},
		{"source that fails then", []any{"old", broken}, "new", oauth.InvalidClient, []string{"old"},
			"invalid_client: not good: the client secret: the vault is sealed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			issuer := &scriptedIssuer{accepts: test.accepts, code: test.code, description: "not good"}
			calls := 0
			source := attach.ClientCredentials("", "a", "", attach.OverGRPC(issuer), attach.SecretFunc(
				func(context.Context) (string, error) {
					given := test.secrets[min(calls, len(test.secrets)-1)]
					calls++
					err, _ := given.(error)
					secret, _ := given.(string)
					return secret, err
				}))
			_, err := source.Token()
			if (err == nil) != (test.text == "") || (err != nil && !strings.Contains(err.Error(), test.text)) {
				t.Errorf("got %v, want %q in it", err, test.text)
			}
			if !slices.Equal(issuer.sent, test.sent) {
				t.Errorf("sent %q, want %q", issuer.sent, test.sent)
			}
		})
	}
}

// The text that must not be echoed is the secret that was sent, even if the source has changed in the meantime.
func TestRedactionOfAChangingSecret(t *testing.T) {
	secrets := []string{"first-secret", "second-secret", "third-secret"}
	server := newTokenServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, secret, _ := r.BasicAuth()
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not %s"}`, secret)
	})
	calls := 0
	source := attach.ClientCredentials(server.URL, "a", "", attach.SecretFunc(func(context.Context) (string, error) {
		calls++
		return secrets[calls-1], nil
	}))
	_, err := source.Token()
	for _, secret := range secrets {
		wantNoSecret(t, secret, err)
		wantNoSecret(t, base64.StdEncoding.EncodeToString([]byte(secret)), err)
	}
	if err == nil || !strings.Contains(err.Error(), "it contains the secret") || calls != 2 {
		t.Errorf("got %v after %d calls of the function, want a redacted refusal after 2", err, calls)
	}
}

func TestSlowFunction(t *testing.T) {
	for name, slow := range map[string]func(context.Context) error{
		"that heeds its context": func(ctx context.Context) error {
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		"that does not": func(context.Context) error {
			<-time.After(time.Minute)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := &scriptedIssuer{accepts: "s3cret"}
				var running, calls atomic.Int32
				var healthy atomic.Bool
				source := attach.ClientCredentials("", "a", "", attach.OverGRPC(issuer),
					attach.SecretFunc(func(ctx context.Context) (string, error) {
						defer running.Add(-1)
						if calls.Add(1); running.Add(1) > 1 {
							t.Error("two calls of the function overlap")
						}
						if healthy.Load() {
							return "s3cret", nil
						}
						return "s3cret", slow(ctx)
					}))
				wantDeadline(t, source, time.Second)
				wantDeadline(t, source, 20*time.Second) // joins the first request, which has 9 s left
				for range 3 {
					advance(time.Second)
					wantDeadline(t, source, 20*time.Second)
				}
				healthy.Store(true)
				advance(time.Minute)
				if got := accessToken(t, source); got != "token-1" {
					t.Errorf("got %q after %q was sent, want a token once the function works again", got, issuer.sent)
				}
				if got := calls.Load(); got > 5 {
					t.Errorf("the function was called %d times, want one call at most for each request", got)
				}
				advance(time.Hour) // for calls that are still running
			})
		})
	}
}

// wantDeadline checks that no token is returned within the caller's timeout, and that the wait does not exceed the 10 s
// of a request.
func wantDeadline(t *testing.T, source *attach.Source, timeout time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	began := time.Now()
	_, err := source.TokenContext(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline to end it", err)
	}
	if waited := time.Since(began); waited > min(timeout, 10*time.Second) {
		t.Errorf("waited %v", waited)
	}
}
