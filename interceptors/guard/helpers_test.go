package guard_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"iter"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

const (
	orders     = "https://orders.internal"
	testIssuer = "https://auth.internal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var signer = must.Get(token.NewSigner(jwks.ES256, must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))))

// newToken returns a valid token of the client "billing", altered by change.
func newToken(scopes string, change ...func(*token.Claims)) string {
	now := time.Now().Truncate(time.Second)
	c := &token.Claims{
		Issuer: testIssuer, Subject: "billing", ClientID: "billing", Audience: []string{orders}, Scope: must.Get(oauth.ParseScopes(scopes)),
		IssuedAt: now, ExpiresAt: now.Add(time.Hour), ID: token.NewID().String(),
	}
	for _, f := range change {
		f(c)
	}
	return must.Get(signer.Sign(c))
}

// newVerifier returns a verifier with a fixed key. It follows no feed and need not be closed.
func newVerifier(options ...verify.Option) *verify.Verifier {
	options = append([]verify.Option{verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public()))}, options...)
	return must.Get(verify.New(context.Background(), testIssuer, options...))
}

// testRoutes are the routes of most tests.
var testRoutes = []string{
	"GET /orders/{id} → orders.read",
	"POST /orders → orders.write",
	"GET /public → public",
	"GET /me → authenticated",
	"GET /parts → authenticated @https://parts.internal",
	"POST /orders.v1.Orders/Get → orders.read",
}

func newGuard(t testing.TB, config guard.Config, options ...verify.Option) *guard.Guard {
	t.Helper()
	return must.Get(guard.New(newVerifier(options...), must.Get(guard.NewTable(routes(testRoutes...))), config))
}

// get returns a GET request with the headers, which are names and values in turn.
func get(path string, headers ...string) *guard.Request {
	return &guard.Request{Wire: guard.ExtAuthz, Method: http.MethodGet, Scheme: "https", Host: "orders.example.com", Path: path, Header: pairs(headers...)}
}

func pairs(headers ...string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := 0; i < len(headers); i += 2 {
			if !yield(headers[i], headers[i+1]) {
				return
			}
		}
	}
}

// outcome returns "OK", or the reason of a refusal.
func outcome(d guard.Decision) string {
	if d.Refusal == nil {
		return "OK"
	}
	return string(d.Refusal.Reason)
}
