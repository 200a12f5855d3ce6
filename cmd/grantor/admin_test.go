package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// TestAdminToken checks the tokens that commands request, and that each call carries the token.
func TestAdminToken(t *testing.T) {
	p := newFakeIssuer(t, func(request any) (proto.Message, error) {
		switch request.(type) {
		case *grantorv1.ListClientsRequest:
			return &grantorv1.ListClientsResponse{}, nil
		case *grantorv1.ListResourcesRequest:
			return &grantorv1.ListResourcesResponse{}, nil
		case *grantorv1.RevokeTokensRequest:
			return &grantorv1.RevokeTokensResponse{}, nil
		}
		return &grantorv1.RotateKeysResponse{}, nil
	})
	for _, c := range []struct{ command, scope string }{
		{"client list", "grantor:clients.read"},
		{"client revoke background-service --yes", ""},
		{"resource list", "grantor:resources.read"},
		{"key rotate --alg ES256", "grantor:keys.write"},
	} {
		t.Run(c.command, func(t *testing.T) {
			p.asked, p.calls = nil, nil
			run(t, strings.Fields(c.command)...).Works(t)
			if want := []string{c.scope + " for urn:grantor:admin"}; !slices.Equal(p.asked, want) {
				t.Errorf("the command asked for tokens with the scopes %q, want %q", p.asked, want)
			}
			if len(p.calls) != 1 || !strings.HasSuffix(p.calls[0], " with Bearer a-token") {
				t.Errorf("got the calls %q, want one with the token", p.calls)
			}
		})
	}
}

// TestAdminRefused checks how commands end for each response of an issuer.
func TestAdminRefused(t *testing.T) {
	p := newFakeIssuer(t, nil)
	for _, c := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"control characters", status.Error(codes.Unknown, "\x1b[2J\u009b"), cli.ExitOther, "?[2J?"},
		{"an echo of the secret", status.Error(codes.Internal, clitest.Secret), cli.ExitOther, "***"},
		{"no such service", status.Error(codes.Unimplemented, "unknown service"), cli.ExitOther, "unknown service"},
		{"a busy issuer", status.Error(codes.ResourceExhausted, "later"), cli.ExitUnavailable, "later"},
		{"an issuer in trouble", status.Error(codes.Unavailable, "later"), cli.ExitUnavailable, "later"},
		{"a state", status.Error(codes.FailedPrecondition, "is retiring"), cli.ExitConflict, "is retiring"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.answer = func(any) (proto.Message, error) { return nil, c.err }
			run(t, "client", "get", "x").Exits(t, c.code, c.want)
		})
	}
	for _, c := range []struct {
		name   string
		status int
		body   string
		code   int
		want   string
	}{
		{"the wrong secret", 401, `{"error":"invalid_client"}`, cli.ExitDenied, "invalid_client"},
		{"a scope that it lacks", 400, `{"error":"invalid_scope"}`, cli.ExitDenied, "administrator may not do this, which needs the scope grantor:clients.read; invalid_scope"},
		{"an issuer in trouble", 503, `{"error":"temporarily_unavailable"}`, cli.ExitUnavailable, "temporarily_unavailable"},
		{"a proxy", 502, `<html>`, cli.ExitUnavailable, "502"},
		{"a page", 200, `<html>`, cli.ExitOther, "RFC 6749"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.grant = func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}
			run(t, "client", "list").Exits(t, c.code, c.want)
		})
	}
	t.Setenv("GRANTOR_ISSUER", "http://localhost:1")
	run(t, "client", "list").Exits(t, cli.ExitUnavailable, "no metadata of the issuer")
}

// TestAdminUsage checks the errors that are found before any request.
func TestAdminUsage(t *testing.T) {
	p := newFakeIssuer(t, nil)
	secret := servetest.WriteFile(t, "secret", "a-chosen-secret")
	for _, c := range []struct{ command, want string }{
		{"client", ""},
		{"clients", `no command "clients"`},
		{"client lst", `client: there is no command "lst"; did you mean list?`},
		{"client nothing", "client: the commands are list, get, create,"},
		{"client get", "accepts 1 arg"},
		{"client get a b", "accepts 1 arg"},
		{"client list --outptu json", "there is no flag --outptu"},
		{"key retire -abc", "there is no flag -a; an id that begins with - must follow --"},
		{"client list -o xml", "output: "},
		{"client list --client-secret hush-hush", "there is no flag --client-secret"},
		{"client list --client-id=", "client-id: is required"},
		{"client list --issuer http://auth.example.com", "issuer: "},
		{"client list --client-secret-file " + secret, "GRANTOR_CLIENT_SECRET, client-secret-file: both are set, by flag or environment; give one"},
		{"client list --profile none", "profile: "},
		{"client update a", "nothing to change"},
		{"client update a --scope x --add-scope y", "--scope, --add-scope: give one of them"},
		{"client update a --access-token-lifetime soon", "--access-token-lifetime"},
		{"client create a --without-secret --secret-file " + secret, "--without-secret, --secret-file: give one of them"},
		{"client create a --secret-file /nonexistent", "secret-file: "},
		{"client create a --secret-file " + servetest.WriteFile(t, "empty", "\n"), "secret-file: is empty"},
		{"client create a --secret-file " + servetest.WriteFile(t, "long", strings.Repeat("x", 513)), "secret-file: has more than 512 bytes"},
		{"client create a --secret-file -", "secret-file: is empty"},
		{"client secret create a --expires-in=-1s", "expires-in: "},
		{"client secret expire a b --in 1h --never", "--in, --never: give one of them"},
		{"client delete a", "give --yes"},
		{"client revoke a", "give --yes"},
		{"client secret delete a b", "give --yes"},
		{"resource delete https://a.example", "give --yes"},
		{"resource update https://a.example", "nothing to change"},
		{"key compromise a", "give --yes"},
		{"apply", "file: is required"},
		{"apply -f x --redis redis://localhost:1 --issuer https://auth.example.com", "redis, issuer, profile: "},
	} {
		t.Run(c.command, func(t *testing.T) {
			got := run(t, strings.Fields(c.command)...)
			if c.want == "" {
				got.Works(t)
				return
			}
			got.Exits(t, cli.ExitUsage, c.want, "hush-hush", "a-chosen-secret")
		})
	}
	t.Setenv("GRANTOR_ISSEUR", "x")
	run(t, "client", "list").Exits(t, cli.ExitUsage, "GRANTOR_ISSEUR: there is no such setting")
	if len(p.calls)+len(p.asked) > 0 {
		t.Errorf("the issuer was asked: %v %v", p.asked, p.calls)
	}
}

// TestExitCodesTopic expects the help to have all exit codes, and the table of docs/errors.md to equal the help.
func TestExitCodesTopic(t *testing.T) {
	help := run(t, "help", "exit-codes").Works(t)
	for code := range cli.ExitInvalid + 1 {
		line := regexp.MustCompile(fmt.Sprintf(`(?m)^  %d  (.*)$`, code)).FindStringSubmatch(help)
		if line == nil {
			t.Fatalf("the help lacks the code %d:\n%s", code, help)
		}
		if row := fmt.Sprintf("| %d | %s |\n", code, line[1]); !strings.Contains(page(t, "docs/errors.md"), row) {
			t.Errorf("docs/errors.md lacks this exit code: %s", row)
		}
	}
	_, doctor, _ := strings.Cut(help, "\ngrantor doctor ")
	unwrapped := strings.Join(strings.Fields(page(t, "docs/errors.md")), " ")
	if doctor, _, _ = strings.Cut(doctor, "\n"); doctor == "" || !strings.Contains(unwrapped, "`grantor doctor` "+doctor) {
		t.Errorf("docs/errors.md and the help differ on grantor doctor: %s", doctor)
	}
	if !strings.Contains(run(t, "--help").Works(t), "exit-codes") {
		t.Error("grantor --help does not name the topic exit-codes")
	}
}

// nasty must not reach a terminal as it is; each form escapes it differently.
const nasty = "a\x1b[2J\u009b31m\u0085\u202e\U000e0001é no"

// TestAdminOutput prints a client that would act on a terminal, in each form.
func TestAdminOutput(t *testing.T) {
	client := &grantorv1.Client{ClientId: "on", ClientName: nasty, Scopes: []string{"no", "1"}}
	newFakeIssuer(t, func(request any) (proto.Message, error) {
		if _, ok := request.(*grantorv1.ListClientsRequest); ok {
			return &grantorv1.ListClientsResponse{Clients: []*grantorv1.Client{client, client}}, nil
		}
		return &grantorv1.GetClientResponse{Client: client}, nil
	})
	check := func(t *testing.T, got map[string]any) {
		t.Helper()
		if got["client_id"] != "on" || got["client_name"] != nasty || fmt.Sprint(got["scopes"]) != "[no 1]" {
			t.Errorf("got %q, want the client as it is", got)
		}
		if scopes, ok := got["scopes"].([]any); !ok || scopes[1] != "1" {
			t.Errorf("got the scopes %#v, want strings", got["scopes"])
		}
	}
	parse := map[string]func([]byte, any) error{
		"json": json.Unmarshal, "yaml": func(data []byte, to any) error { return yaml.Unmarshal(data, to) },
	}
	for form, read := range parse {
		t.Run(form, func(t *testing.T) {
			one := run(t, "client", "get", "on", "-o", form).Works(t)
			var got map[string]any
			if err := read([]byte(one), &got); err != nil {
				t.Fatalf("%v in %s", err, one)
			}
			check(t, got)
			all := run(t, "client", "list", "-o", form).Works(t)
			var list struct{ Clients []map[string]any }
			if err := read([]byte(all), &list); err != nil || len(list.Clients) != 2 {
				t.Fatalf("%v in %s", err, all)
			}
			check(t, list.Clients[1])
			safe(t, one+all)
		})
	}
	text := run(t, "client", "get", "on").Works(t) + run(t, "client", "list").Works(t)
	safe(t, text)
	if !strings.Contains(text, "a?[2J?31m???é no") {
		t.Errorf("got this, without the name:\n%s", text)
	}
}

// safe expects a text not to act on a terminal.
func safe(t *testing.T, text string) {
	t.Helper()
	if cli.Printable(strings.ReplaceAll(text, "\n", "")) != strings.ReplaceAll(text, "\n", "") {
		t.Errorf("this would act on a terminal: %q", text)
	}
}

// TestAdminEmptyList prints an empty list.
func TestAdminEmptyList(t *testing.T) {
	newFakeIssuer(t, func(any) (proto.Message, error) { return &grantorv1.ListClientsResponse{}, nil })
	for form, want := range map[string]string{
		"text": "CLIENT  NAME  STATE  SECRETS  CHANGED  SCOPES\n", "json": "{\n  \"clients\": []\n}\n", "yaml": "clients: []\n",
	} {
		if got := run(t, "client", "list", "-o", form).Works(t); got != want {
			t.Errorf("%s: got %q, want %q", form, got, want)
		}
	}
}

// TestAdminLongList lists more clients than a page has, in less memory than they all take.
func TestAdminLongList(t *testing.T) {
	name := strings.Repeat("x", 1000)
	for form, total := range map[string]int{"text": 20_000, "json": 20_000, "yaml": 5_000} {
		t.Run(form, func(t *testing.T) {
			newFakeIssuer(t, func(request any) (proto.Message, error) {
				list, _ := request.(*grantorv1.ListClientsRequest)
				from, _ := strconv.Atoi(list.GetPageToken())
				answer := &grantorv1.ListClientsResponse{}
				for i := from; i < min(from+int(list.GetPageSize()), total); i++ {
					answer.Clients = append(answer.Clients, &grantorv1.Client{ClientId: fmt.Sprintf("client-%06d", i), ClientName: name})
				}
				if next := from + len(answer.GetClients()); next < total {
					answer.NextPageToken = strconv.Itoa(next)
				}
				return answer, nil
			})
			var out counter
			before := heap()
			cmd := newCommand()
			cmd.SetArgs([]string{"client", "list", "-o", form})
			cmd.SetOut(&out)
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if out.clients != total {
				t.Errorf("got %d clients, want %d", out.clients, total)
			}
			// All clients together would take at least the size of their names.
			if all := uint64(total * len(name)); out.most > before+all {
				t.Errorf("the list took %d bytes of memory, want less than %d", out.most-before, all)
			}
		})
	}
}

// heap returns the memory in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// counter counts the clients that are written to it, and records the peak memory in use.
type counter struct {
	clients int
	most    uint64
}

func (c *counter) Write(p []byte) (int, error) {
	c.clients += strings.Count(string(p), "client-")
	c.most = max(c.most, heap())
	return len(p), nil
}

// TestAdminListBreaks lists clients whose second page fails: the output is incomplete, and the exit code shows it.
func TestAdminListBreaks(t *testing.T) {
	newFakeIssuer(t, func(request any) (proto.Message, error) {
		if list, _ := request.(*grantorv1.ListClientsRequest); list.GetPageToken() != "" {
			return nil, status.Error(codes.Unavailable, "later")
		}
		return &grantorv1.ListClientsResponse{Clients: []*grantorv1.Client{{ClientId: "a"}}, NextPageToken: "x"}, nil
	})
	got := run(t, "client", "list", "-o", "json")
	if cli.ExitCode(got.Err) != cli.ExitUnavailable || json.Valid([]byte(got.Out)) {
		t.Errorf("got %v and %s, want a failure and no whole document", got.Err, got.Out)
	}
}

// TestCompletion completes the values of flags.
func TestCompletion(t *testing.T) {
	for command, want := range map[string]string{
		"client list --output ": "text json yaml",
		"key rotate --alg ":     "ES256 RS256 PS256 EdDSA",
		"client create x --auth-method ": "client_secret_basic client_secret_post private_key_jwt tls_client_auth self_signed_tls_client_auth " +
			"federated_jwt spiffe_jwt spiffe_x509",
		"resource update https://x --signing-alg ": "ES256 RS256 PS256 EdDSA",
	} {
		args := append(strings.Fields(command), "")
		got := run(t, append([]string{"__complete"}, args...)...).Works(t)
		if values := strings.Fields(regexp.MustCompile(`(?m)^:.*`).ReplaceAllString(got, "")); strings.Join(values, " ") != want {
			t.Errorf("%s: got %q, want %s", command, values, want)
		}
	}
	if script := run(t, "completion", "bash").Works(t); !strings.Contains(script, "grantor") {
		t.Errorf("got %q, want a script", script)
	}
}
