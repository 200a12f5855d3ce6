package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// profiles writes the file of profiles and returns its path.
func profiles(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	path := filepath.Join(dir, "grantor", "profiles.yaml")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProfile(t *testing.T) {
	p := newFakeIssuer(t, func(any) (proto.Message, error) { return &grantorv1.ListKeysResponse{}, nil })
	var user string
	p.grant = func(w http.ResponseWriter, r *http.Request) {
		user = r.Header.Get("Authorization")
		_, _ = io.WriteString(w, `{"access_token":"a-token","token_type":"Bearer","expires_in":3600}`)
	}
	issuer := os.Getenv("GRANTOR_ISSUER")
	for _, name := range []string{"GRANTOR_ISSUER", "GRANTOR_CLIENT_ID", "GRANTOR_CLIENT_SECRET"} {
		t.Setenv(name, "")
		_ = os.Unsetenv(name)
	}
	path := profiles(t, fmt.Sprintf(`
prod: {issuer: %q, client_id: a, client_secret: hush-hush-hush}
file: {issuer: %[1]q, client_id: b, client_secret_file: b.secret}
bare: {issuer: %[1]q}
elsewhere: {issuer: "https://auth.example.com", client_id: a, client_secret: hush-hush-hush}
`, issuer))
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "b.secret"), []byte("secret-of-b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	basic := func(id, secret string) string {
		request, _ := http.NewRequest(http.MethodGet, "/", nil)
		request.SetBasicAuth(id, secret)
		return request.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name, args, want string
		env              map[string]string
	}{
		{"secret", "--profile prod", basic("a", "hush-hush-hush"), nil},
		{"secret file beside it", "--profile file", basic("b", "secret-of-b"), nil},
		{"by the environment", "", basic("a", "hush-hush-hush"), map[string]string{"GRANTOR_PROFILE": "prod"}},
		{"flag over profile", "--profile prod --client-id c", basic("c", "mine"), map[string]string{"GRANTOR_CLIENT_SECRET": "mine"}},
		{"a profile that a flag names over the environment", "--profile prod", basic("a", "hush-hush-hush"), map[string]string{
			"GRANTOR_ISSUER": "https://auth.example.com", "GRANTOR_CLIENT_ID": "c", "GRANTOR_CLIENT_SECRET": "mine", "GRANTOR_CLIENT_SECRET_FILE": "none",
		}},
		{"the environment over a profile of its own", "", basic("c", "mine"), map[string]string{
			"GRANTOR_PROFILE": "prod", "GRANTOR_CLIENT_ID": "c", "GRANTOR_CLIENT_SECRET": "mine",
		}},
		{"the rest from the environment", "--profile bare", basic("c", "mine"), map[string]string{"GRANTOR_CLIENT_ID": "c", "GRANTOR_CLIENT_SECRET": "mine"}},
		{"flag over all", "--profile elsewhere --issuer " + issuer, basic("a", "mine"), map[string]string{"GRANTOR_CLIENT_SECRET": "mine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			run(t, append([]string{"key", "list"}, strings.Fields(c.args)...)...).Works(t)
			if user != c.want {
				t.Errorf("got the credentials %q, want %q", user, c.want)
			}
		})
	}
	// A profile's secret is not for another issuer, nor for another client.
	user = ""
	list := []string{"key", "list", "--profile=prod"}
	run(t, append(list, "--client-id=c")...).Exits(t, cli.ExitUsage, "the secret of the profile prod is not for c at http", "hush")
	run(t, "key", "list", "--profile=elsewhere", "--issuer="+issuer).Exits(t, cli.ExitUsage, "the secret of the profile elsewhere is not for a at http", "hush")
	if user != "" {
		t.Errorf("the issuer was asked with %q", user)
	}
	run(t, "key", "list", "--profile=other").Exits(t, cli.ExitUsage, `there is no profile "other"`)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		run(t, list...).Exits(t, cli.ExitUsage, "run: chmod 600 '"+path+"'", "hush")
	}
}

// TestProfileErrors has files that are wrong; no error quotes a secret.
func TestProfileErrors(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"no YAML", "a: [\nclient_secret: *hush", "profiles.yaml:2: "},
		{"a list", "- hush", "profiles.yaml:1: expected names and values"},
		{"an unknown field", "prod:\n  issuer: https://a.example\n  secret: hush", `profiles.yaml:3: a profile has no field "secret"`},
		{"no issuer", "prod: {client_id: a}", "profiles.yaml:1: a profile needs its issuer"},
		{"a secret without a client", "prod: {issuer: https://a.example, client_secret: hush}", "needs the client_id"},
		{"two secrets", "prod: {issuer: https://a.example, client_id: a, client_secret: hush, client_secret_file: b}", "give one of client_secret and client_secret_file"},
		{"another is wrong", "prod: {issuer: https://a.example}\nb: {}", "profiles.yaml:2: "},
		{"too long", strings.Repeat("#", 1<<20+1), "more than 1048576 bytes"},
		{"empty", "", "the file is empty"},
		{"an unused anchor", "prod:\n  issuer: https://a.example\n  client_id: a\n  client_secret: &hush x\n", "profiles.yaml:4: an anchor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			profiles(t, c.content)
			run(t, "key", "list", "--profile=prod").Exits(t, cli.ExitUsage, c.want, "hush")
		})
	}
	clitest.Isolate(t)
	run(t, "key", "list", "--profile=prod").Exits(t, cli.ExitUsage, "no such file")
	t.Setenv("XDG_CONFIG_HOME", "relative") // is ignored
	t.Setenv("HOME", t.TempDir())
	run(t, "token", "issue", "--profile=prod").Exits(t, cli.ExitUsage, filepath.Join(".config", "grantor", "profiles.yaml"))
}
