package attach_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/must"
)

// The forms of client_assertion_type.
const (
	jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	jwtSPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
)

// bothEndpoints calls test for a token endpoint over HTTP and one over gRPC. The function that it passes requests a token and
// returns the parameters of the client's authentication.
func bothEndpoints(t *testing.T, test func(t *testing.T, issue func(id string, options ...attach.Option) (url.Values, error))) {
	t.Helper()
	t.Run("HTTP", func(t *testing.T) {
		server := newTokenServer(t, nil)
		test(t, func(id string, options ...attach.Option) (url.Values, error) {
			_, err := attach.Issue(t.Context(), attach.ClientCredentials(server.URL, id, "", options...))
			if err != nil {
				return nil, err
			}
			forms := server.requestForms()
			form := must.Get(url.ParseQuery(forms[len(forms)-1]))
			form.Del("grant_type")
			return form, nil
		})
	})
	t.Run("gRPC", func(t *testing.T) {
		g := &grantor{}
		conn := tokenService(t, g)
		test(t, func(id string, options ...attach.Option) (url.Values, error) {
			_, err := attach.Issue(t.Context(), attach.ClientCredentials("https://auth.example.com", id, "", append(options, attach.OverGRPC(conn))...))
			if err != nil {
				return nil, err
			}
			form := url.Values{}
			for name, value := range map[string]string{
				"client_id": g.got.GetClientId(), "client_assertion": g.got.GetClientAssertion(), "client_assertion_type": g.got.GetClientAssertionType(),
			} {
				if value != "" {
					form.Set(name, value)
				}
			}
			return form, nil
		})
	})
}

func wantAssertion(t *testing.T, form url.Values, id, assertion, kind string) {
	t.Helper()
	want := url.Values{"client_assertion": {assertion}, "client_assertion_type": {kind}}
	if id != "" {
		want.Set("client_id", id)
	}
	if got := form.Encode(); got != want.Encode() {
		t.Errorf("got %s, want %s", got, want.Encode())
	}
}

// A token in a file is read for each request, however it is replaced.
func TestTokenFile(t *testing.T) {
	bothEndpoints(t, func(t *testing.T, issue func(string, ...attach.Option) (url.Values, error)) {
		dir := t.TempDir()
		path := filepath.Join(dir, "token")
		write := func(path, text string) { t.Helper(); must.Succeed(t, os.WriteFile(path, []byte(text), 0o600)) }
		option := attach.TokenFile(path)
		if _, err := issue("", option); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("without the file: got %v", err)
		}
		write(path, "\n a.b.1 \r\n")
		wantAssertion(t, must.Get(issue("", option)), "", "a.b.1", jwtBearer)
		write(path+".new", "a.b.2")
		must.Succeed(t, os.Rename(path+".new", path))
		wantAssertion(t, must.Get(issue("orders", option)), "orders", "a.b.2", jwtBearer)

		// As the kubelet does: the file is a link below a link to a directory, and that link is replaced.
		for _, name := range []string{"1", "2"} {
			must.Succeed(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			write(filepath.Join(dir, name, "token"), "k."+name+".s")
		}
		must.Succeed(t, os.Remove(path))
		must.Succeed(t, os.Symlink("1", filepath.Join(dir, "..data")))
		must.Succeed(t, os.Symlink(filepath.Join("..data", "token"), path))
		wantAssertion(t, must.Get(issue("", option)), "", "k.1.s", jwtBearer)
		must.Succeed(t, os.Symlink("2", filepath.Join(dir, "..data_tmp")))
		must.Succeed(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		wantAssertion(t, must.Get(issue("", option)), "", "k.2.s", jwtBearer)
	})
}

// A file with something else is never sent. A source that has read a token keeps it while the file is being replaced.
func TestTokenFileContent(t *testing.T) {
	server := newTokenServer(t, nil)
	path := filepath.Join(t.TempDir(), "token")
	for name, content := range map[string]string{
		"empty": " \n", "a secret": "c2VjcmV0", "two tokens": "a.b.c\na.b.c", "control": "a.b.\x00c2VjcmV0", "key": "-----BEGIN c2VjcmV0.a.b",
		"long": "c2VjcmV0." + strings.Repeat("a", 9000) + ".b", "four parts": "a.b.c2VjcmV0.d",
	} {
		must.Succeed(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := attach.Issue(t.Context(), attach.ClientCredentials(server.URL, "", "", attach.TokenFile(path)))
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error with the path", name, err)
		}
		wantNoSecret(t, "c2VjcmV0", err)
	}
	if forms := server.requestForms(); len(forms) > 0 {
		t.Errorf("got the requests %q", forms)
	}
	source := attach.ClientCredentials(server.URL, "", "", attach.TokenFile(path))
	must.Succeed(t, os.WriteFile(path, []byte("a.b.c"), 0o600))
	must.Get(attach.Issue(t.Context(), source))
	must.Succeed(t, os.WriteFile(path, nil, 0o600))
	must.Get(attach.Issue(t.Context(), source))
	if forms := server.requestForms(); len(forms) != 2 || forms[0] != forms[1] {
		t.Errorf("got the requests %q, want the same one twice", forms)
	}
}

// The default is the file of a projected token, not that of the API server.
func TestKubernetesToken(t *testing.T) {
	_, err := attach.ClientCredentials("https://auth.example.com", "", "", attach.KubernetesToken(), attach.TokenURL("https://127.0.0.1:1")).Token()
	if err == nil || !strings.Contains(err.Error(), "/var/run/secrets/grantor/token") {
		t.Errorf("got %v", err)
	}
}

func TestAssertionFunc(t *testing.T) {
	bothEndpoints(t, func(t *testing.T, issue func(string, ...attach.Option) (url.Values, error)) {
		var audience string
		option := attach.AssertionFunc(func(_ context.Context, a string) (string, error) { audience = a; return "made", nil })
		wantAssertion(t, must.Get(issue("", option)), "", "made", jwtBearer)
		wantAssertion(t, must.Get(issue("orders", option, attach.AssertionType(jwtSPIFFE))), "orders", "made", jwtSPIFFE)
		if !strings.HasPrefix(audience, "http") {
			t.Errorf("got the audience %q, want the issuer", audience)
		}
		for want, f := range map[string]func(context.Context, string) (string, error){
			"nil": nil, "no network": func(context.Context, string) (string, error) { return "", errors.New("no network") },
			"is empty":          func(context.Context, string) (string, error) { return "", nil },
			"not visible ASCII": func(context.Context, string) (string, error) { return "a b", nil },
			"more than 8192":    func(context.Context, string) (string, error) { return strings.Repeat("a", 8193), nil },
			"panicked":          func(context.Context, string) (string, error) { panic("hidden") },
		} {
			if _, err := issue("", attach.AssertionFunc(f)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("got %v, want %q in it", err, want)
			}
		}
	})
}

func TestProofMistakes(t *testing.T) {
	token, function := attach.TokenFile("/nonexistent"), attach.AssertionFunc(func(context.Context, string) (string, error) { return "a", nil })
	for name, test := range map[string]struct {
		secret  string
		options []attach.Option
		want    string
	}{
		"and a secret":    {"s", []attach.Option{token}, "a token in a file and a secret; set one"},
		"and a file":      {"", []attach.Option{token, attach.SecretFile("x")}, "a token in a file and a secret; set one"},
		"and a function":  {"", []attach.Option{token, function}, "a token in a file and an assertion of a function; set one"},
		"twice":           {"", []attach.Option{token, token}, "set one"},
		"with a method":   {"", []attach.Option{function, attach.AuthMethod(attach.ClientSecretBasic)}, "AuthMethod"},
		"secret, no ID":   {"s", nil, "client id is empty"},
		"nothing, no ID":  {"", nil, "client id is empty"},
		"key, without ID": {"", []attach.Option{attach.PrivateKeyFile("x")}, "client id is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := attach.ClientCredentials("https://auth.example.com", "", test.secret, test.options...).Token()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}
