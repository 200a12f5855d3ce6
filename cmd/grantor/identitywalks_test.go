package main

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/spiffetest"
	"github.com/grantorhq/grantor/service/trusttest"
)

// sectionWalk is the walk of a section of docs/identity.md: a block of code in sh that sets up and serves, the indented commands,
// and blocks of text with what one sees.
type sectionWalk struct {
	t   *testing.T
	dir string

	setUp, commands string
	flags           []string
	shown           []string // the blocks of text
	replaced        []string // pairs of a text of the page and what the test has in its place
}

// newWalk puts the program into a new directory, from which the walk runs.
func newWalk(t *testing.T, heading string) *sectionWalk {
	t.Helper()
	w := &sectionWalk{t: t, dir: t.TempDir()}
	w.setUp, w.flags, w.commands = walk(t, identityPage, heading)
	for _, block := range regexp.MustCompile("(?s)```text\n(.*?)```").FindAllStringSubmatch(section(t, identityPage, heading), -1) {
		w.shown = append(w.shown, block[1])
	}
	linkGrantor(t, w.dir)
	return w
}

// replace names addresses and paths of the page, each followed by that of the test.
func (w *sectionWalk) replace(pairs ...string) { w.replaced = append(w.replaced, pairs...) }

// serve sets up and serves as the page says, and returns the URL of the issuer.
func (w *sectionWalk) serve() string {
	w.t.Helper()
	replaced := strings.NewReplacer(w.replaced...)
	shell(w.t, w.dir, replaced.Replace(w.setUp))
	w.t.Chdir(w.dir) // the flags have relative paths
	r := servetest.Start(w.t, strings.Fields(replaced.Replace(strings.Join(w.flags, " ")))...)
	issuer := must.Get(r.Issuer()).String()
	scheme, host, _ := strings.Cut(issuer, "://")
	w.replace(scheme+"://localhost:8080", scheme+"://"+host)
	return issuer
}

// run runs the commands and returns their output, which has the lines of each block of text, in their order. On the page, … in
// such a line stands for anything.
func (w *sectionWalk) run() string {
	w.t.Helper()
	replaced := strings.NewReplacer(w.replaced...)
	out := shell(w.t, w.dir, replaced.Replace(w.commands))
	for _, block := range w.shown {
		rest := out
		for line := range strings.Lines(replaced.Replace(block)) {
			pattern := regexp.MustCompile(`(\\ )+`).ReplaceAllString(regexp.QuoteMeta(strings.TrimSpace(line)), ` +`)
			pattern = "(?m)^ *" + strings.ReplaceAll(pattern, "…", ".*") + " *$"
			found := regexp.MustCompile(pattern).FindStringIndex(rest)
			if found == nil {
				w.t.Fatalf("the transcript has no %q after the lines before it:\n%s", line, out)
			}
			rest = rest[found[1]:]
		}
	}
	return out
}

// TestIdentityKubernetes runs the walk about Kubernetes, against a double of an API server. The addresses and the paths of the
// mounted files differ.
func TestIdentityKubernetes(t *testing.T) {
	w, cluster := newWalk(t, "Kubernetes"), trusttest.NewKubernetes(t)
	mounted := filepath.Join(t.TempDir(), "token")
	w.replace("https://kubernetes.default.svc/openid/v1/jwks", cluster.KeysURL(), "10.0.0.0/8", "127.0.0.0/8",
		"/var/run/secrets/kubernetes.io/serviceaccount", cluster.Directory, "/var/run/secrets/grantor/token", mounted)
	issuer := w.serve()
	token := cluster.SignKubernetes(cluster.ServiceAccount("shop", "orders", issuer, time.Now()))
	must.Succeed(t, os.WriteFile(mounted, []byte(token), 0o600))
	out := w.run()
	if !strings.Contains(out, "audience   wrong") {
		t.Errorf("the token for the API server is not refused for its audience:\n%s", out)
	}
}

// TestIdentitySPIFFE runs the walk about SPIFFE, against a double of the Workload API. The addresses and the path of the socket
// differ. The test writes the files that SPIRE's own commands write.
func TestIdentitySPIFFE(t *testing.T) {
	w, domain := newWalk(t, "SPIFFE"), spiffetest.NewDomain("prod.example.com")
	agent := spiffetest.NewWorkloadAPI(t, domain, "spiffe://prod.example.com/shop/orders")
	svid := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: agent.Rotate().Certificates[0].Raw})
	must.Succeed(t, os.WriteFile(filepath.Join(w.dir, "svid.0.pem"), svid, 0o600))
	must.Succeed(t, os.WriteFile(filepath.Join(w.dir, "bundle.json"), domain.Document(), 0o600))
	socket := strings.TrimPrefix(agent.Address, "unix://")
	w.replace("/run/spire/agent.sock", socket, "--trust-directories /run/spire", "--trust-directories "+filepath.Dir(socket))
	w.serve()
	w.run()
}

// TestIdentityOIDC runs the walk about issuers of OpenID Connect, against a double of GitHub Actions: its issuer, and the server
// at which a job gets its token. The addresses differ, and the environment lets the issuer fetch keys from loopback, where the
// double is.
func TestIdentityOIDC(t *testing.T) {
	w, actions := newWalk(t, "Any OIDC issuer"), trusttest.New(t)
	tokens := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "bearer job-token" || r.FormValue("api-version") == "" {
			answer.WriteHeader(http.StatusUnauthorized)
			return
		}
		token := actions.Sign(actions.GitHub("acme/orders", "refs/heads/main", r.FormValue("audience"), time.Now()))
		_, _ = answer.Write(must.Get(json.Marshal(map[string]any{"count": len(token), "value": token})))
	}))
	t.Cleanup(tokens.Close)
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", tokens.URL+"/token?api-version=2.0")
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "job-token")
	t.Setenv("GRANTOR_FETCH_NETWORKS", "127.0.0.0/8")
	w.replace("https://token.actions.githubusercontent.com", actions.URL)
	w.serve()
	out := w.run()
	if strings.Contains(out, "eyJ") {
		t.Error("the transcript has a token")
	}
}
