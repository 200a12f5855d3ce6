// Package trusttest has doubles of the authorities that give workloads their tokens, for tests: an issuer of OpenID Connect, and
// a Kubernetes API server. Their tokens and documents have the form that the documentation of Kubernetes, GitHub Actions and
// GitLab publishes, with keys of their own.
package trusttest

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

// Issuer is a running issuer on loopback. It is safe for concurrent use by multiple goroutines.
type Issuer struct {
	// URL is where its documents are. Name is the "iss" of its tokens and the "issuer" of its metadata: the URL, unless a test
	// changes it before the first request.
	URL, Name string
	// Requests counts the requests for documents.
	Requests atomic.Int64

	server *httptest.Server
	signer atomic.Pointer[jwstest.Signer]
	// answer, if not nil, answers in place of the issuer.
	answer atomic.Pointer[http.HandlerFunc]
	// keysPath is the path of the key set.
	keysPath string
	// bearer is the token that requests need; nil for none.
	bearer atomic.Pointer[string]
}

// New starts an issuer without TLS. It stops when the test ends.
func New(tb testing.TB) *Issuer {
	tb.Helper()
	i := newIssuer("/jwks")
	i.server = httptest.NewServer(i)
	i.start(tb)
	return i
}

func newIssuer(keysPath string) *Issuer {
	i := &Issuer{keysPath: keysPath}
	i.Rotate()
	return i
}

func (i *Issuer) start(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(i.server.Close)
	i.URL = i.server.URL
	i.Name = i.URL
}

// KeysURL returns the URL of the key set.
func (i *Issuer) KeysURL() string { return i.URL + i.keysPath }

// Rotate replaces the key of the issuer.
func (i *Issuer) Rotate() {
	i.SetSigner(jwstest.NewSigner(jwks.RS256))
}

// SetSigner replaces the key of the issuer by that of the signer.
func (i *Issuer) SetSigner(s jwstest.Signer) { i.signer.Store(&s) }

// Signer returns the present key.
func (i *Issuer) Signer() jwstest.Signer { return *i.signer.Load() }

// Answer makes the handler answer in place of the issuer; nil ends that.
func (i *Issuer) Answer(handler http.HandlerFunc) {
	if handler == nil {
		i.answer.Store(nil)
		return
	}
	i.answer.Store(&handler)
}

// ServeHTTP serves the metadata (OpenID Connect Discovery §4) and the key set.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.Requests.Add(1)
	if answer := i.answer.Load(); answer != nil {
		(*answer)(w, r)
		return
	}
	if bearer := i.bearer.Load(); bearer != nil && r.Header.Get("Authorization") != "Bearer "+*bearer {
		write(w, http.StatusUnauthorized, "application/json", jwstest.Object{
			"kind": "Status", "apiVersion": "v1", "metadata": jwstest.Object{}, "status": "Failure", "message": "Unauthorized",
			"reason": "Unauthorized", "code": http.StatusUnauthorized,
		})
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		write(w, http.StatusOK, "application/json", jwstest.Object{
			"issuer": i.Name, "jwks_uri": i.KeysURL(), "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	case i.keysPath:
		write(w, http.StatusOK, "application/jwk-set+json", jwstest.Object{"keys": []jwks.JWK{i.Signer().JWK()}})
	default:
		http.NotFound(w, r)
	}
}

func write(w http.ResponseWriter, status int, mediaType string, document jwstest.Object) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_, _ = w.Write(must.Get(json.Marshal(document)))
}

// Sign returns a token with the claims, signed with the present key. The header is that of GitHub Actions and GitLab.
func (i *Issuer) Sign(claims jwstest.Object) string {
	s := i.Signer()
	return s.Sign(jwstest.Object{"typ": "JWT", "alg": string(s.Algorithm), "kid": s.Key().ID()}, claims)
}

// lifetime is how long the tokens of CI jobs live.
const lifetime = 5 * time.Minute

// GitHub returns the claims of a token that GitHub Actions gives a job of a repository such as "acme/orders" on a ref such as
// "refs/heads/main".
func (i *Issuer) GitHub(repository, ref, audience string, now time.Time) jwstest.Object {
	return jwstest.Object{
		"iss": i.Name, "aud": audience, "sub": "repo:" + repository + ":ref:" + ref, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Minute).Unix(), "exp": now.Add(lifetime).Unix(),
		"repository": repository, "repository_id": "74", "repository_owner": "acme", "repository_owner_id": "65",
		"repository_visibility": "private", "ref": ref, "ref_type": "branch", "ref_protected": "true", "sha": "4f1c2a",
		"head_ref": "", "base_ref": "", "event_name": "push", "actor": "octocat", "actor_id": "12", "environment": "prod",
		"workflow": "deploy", "workflow_ref": repository + "/.github/workflows/deploy.yml@" + ref, "workflow_sha": "4f1c2a",
		"job_workflow_ref": "acme/automation/.github/workflows/oidc.yml@refs/heads/main", "job_workflow_sha": "9b2e7d",
		"run_id": "1122", "run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted",
	}
}

// GitLab returns the claims of an ID token that GitLab gives a job of a project such as "shop/orders" on a branch such as
// "main".
func (i *Issuer) GitLab(project, branch, audience string, now time.Time) jwstest.Object {
	return jwstest.Object{
		"iss": i.Name, "aud": audience, "sub": "project_path:" + project + ":ref_type:branch:ref:" + branch, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Second).Unix(), "exp": now.Add(lifetime).Unix(),
		"namespace_id": "72", "namespace_path": "shop", "project_id": "20", "project_path": project, "project_visibility": "private",
		"user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com", "user_access_level": "developer",
		"pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": branch, "ref_type": "branch",
		"ref_path": "refs/heads/" + branch, "ref_protected": "true", "runner_id": 1, "runner_environment": "self-hosted", "sha": "4f1c2a",
		"ci_config_ref_uri": "gitlab.example.com/" + project + "//.gitlab-ci.yml@refs/heads/" + branch, "ci_config_sha": "4f1c2a",
	}
}
