//go:build conformance

package conformance_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

const apacheModules = "/usr/lib/apache2/modules" // of Debian

// TestConformanceApache guards a server by Apache with mod_auth_openidc and the settings of docs/clients.md, which check a token by
// the key set and by introspection.
func TestConformanceApache(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(filepath.Join(apacheModules, "mod_auth_openidc.so")); err != nil {
		t.Skipf("mod_auth_openidc is not installed: tools/install-for-tests conformance installs it on Debian (%v)", err)
	}
	authority := certtest.NewAuthority() // the module gets keys by TLS alone
	issuer := newIssuer(t, tokentest.TLS(authority.Sign()))
	server := client("orders-api", tokentest.Secret, "")
	server.GrantTypes, server.Resources = nil, []oauth.Resource{must.Get(oauth.ParseResource(res1))}
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{server, client("both", tokentest.Secret, "api1 api2 other.read")}})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Header.Get("X-Remote-User"))
	}))
	t.Cleanup(backend.Close)
	changes := map[string]string{"https://auth.example.com": issuer.URL, "https://orders.internal": res1, "orders.read": "api1"}
	trust := "OIDCCABundlePath " + publicFile(t, certtest.PEM(authority.Certificate.Raw)) + "\n"
	local := startApache(t, backend.URL, trust+documented(t, "Apache", 0, changes))
	changes["secret-from-registration"] = tokentest.Secret
	introspecting := startApache(t, backend.URL, trust+documented(t, "Apache", 1, changes))

	token := issuer.Token(t, "svc", res1, "api1")
	parts := strings.Split(token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`))
	for name, a := range map[string]apache{"local": local, "introspection": introspecting} {
		for _, test := range []struct {
			name, authorization string
			status              int
			body                string
		}{
			{"a token", "Bearer " + token, http.StatusOK, "svc"},
			{"no token", "", http.StatusUnauthorized, ""},
			{"another scheme", "Basic c3ZjOnN2Yw==", http.StatusUnauthorized, ""},
			{"a forged token", "Bearer " + issuer.Forge(t, map[string]any{"aud": res1, "scope": "api1"}), http.StatusUnauthorized, ""},
			{"no signature", "Bearer " + none + "." + parts[1] + ".", http.StatusUnauthorized, ""},
			{"expired", "Bearer " + issuer.Sign(t, map[string]any{"aud": res1, "scope": "api1", "exp": issuer.Now().Unix() - 60}), http.StatusUnauthorized, ""},
			{"another resource", "Bearer " + issuer.Token(t, "both", res2, "other.read"), http.StatusUnauthorized, ""},
			{"another scope", "Bearer " + issuer.Token(t, "both", res1, "api2"), http.StatusUnauthorized, ""},
		} {
			status, body := a.get(t, test.authorization)
			if status != test.status || (test.status == http.StatusOK && body != test.body) {
				t.Errorf("%s, %s: got %d %q, want %d %q", name, test.name, status, body, test.status, test.body)
			}
		}
	}
	revoke(t, issuer, "svc", token)
	if status, _ := introspecting.get(t, "Bearer "+token); status != http.StatusUnauthorized {
		t.Errorf("introspection: got %d after the revocation, want 401", status)
	}
	if status, _ := local.get(t, "Bearer "+token); status != http.StatusOK {
		t.Errorf("local: got %d after the revocation, want 200, as docs/clients.md says", status)
	}
}

// apache is a running Apache.
type apache struct {
	url string
	log *must.Buffer
}

// startApache starts Apache in front of a server, with settings for /orders, and waits until it serves.
func startApache(t *testing.T, backend, settings string) apache {
	t.Helper()
	dir := t.TempDir()
	address := freeport.Address(t)
	var config strings.Builder
	fmt.Fprintf(&config, "ServerName localhost\nServerRoot %s\nListen %s\nPidFile pid\nErrorLog /dev/stderr\n", dir, address)
	for _, module := range []string{"mpm_event", "authn_core", "authz_core", "authz_user", "headers", "proxy", "proxy_http", "auth_openidc"} {
		fmt.Fprintf(&config, "LoadModule %s_module %s/mod_%s.so\n", module, apacheModules, module)
	}
	if os.Getuid() == 0 {
		config.WriteString("User www-data\nGroup www-data\n")
	}
	fmt.Fprintf(&config, "%s\nProxyPass /orders %s\nRequestHeader set X-Remote-User expr=%%{REMOTE_USER}\n", settings, backend)
	must.Succeed(t, os.WriteFile(filepath.Join(dir, "apache.conf"), []byte(config.String()), 0o600))
	a := apache{url: "http://" + address + "/orders"}
	a.log = startServer(t, exec.Command("apache2", "-DFOREGROUND", "-f", filepath.Join(dir, "apache.conf")))
	until(t, a.log, "Apache serves", func() bool { status, _ := a.get(t, ""); return status != 0 })
	return a
}

// get requests /orders, and returns the status of the answer, or 0, and its body.
func (a apache) get(t *testing.T, authorization string) (status int, body string) {
	t.Helper()
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, a.url, http.NoBody))
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = answer.Body.Close() }()
	return answer.StatusCode, string(must.Get(io.ReadAll(answer.Body)))
}

// publicFile writes a file that the user of Apache can read, which the directories of tests do not allow.
func publicFile(t *testing.T, text string) string {
	t.Helper()
	file := must.Get(os.CreateTemp("", "conformance")) //nolint:usetesting // the directories of t.TempDir are of its user alone
	t.Cleanup(func() { _ = os.Remove(file.Name()) })
	must.Get(file.WriteString(text))
	must.Succeed(t, file.Chmod(0o644))
	must.Succeed(t, file.Close())
	return file.Name()
}

// revoke revokes a token of the client.
func revoke(t *testing.T, issuer *tokentest.Issuer, id, token string) {
	t.Helper()
	must.Get(grantorv1.NewTokenServiceClient(issuer.Conn(t)).RevokeToken(t.Context(), &grantorv1.RevokeTokenRequest{
		ClientId: id, ClientSecret: tokentest.Secret, Token: token,
	}))
}
