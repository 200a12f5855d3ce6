package revocation_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is a time in whole seconds.
var start = time.Unix(1_800_000_000, 0)

// maxLifetime is the maximum lifetime of a token.
const maxLifetime = 24 * time.Hour

// mint creates verified claims, with a key of its own.
type mint struct {
	signer   *token.Signer
	verifier *token.Verifier
}

func newMint(t testing.TB) *mint {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must.Succeed(t, err)
	signer, err := token.NewSigner(jwks.ES256, key)
	must.Succeed(t, err)
	set := jwks.NewSet(signer.Public())
	return &mint{signer, &token.Verifier{Issuer: "https://issuer.test", Keys: set, Now: func() time.Time { return start }}}
}

func (m *mint) kid() string { return m.signer.Public().ID() }

// claims returns the claims of a token that expires an hour after start.
func (m *mint) claims(t testing.TB, client, id string, issued time.Time) *token.Claims {
	t.Helper()
	scopes, err := oauth.ParseScopes("a")
	must.Succeed(t, err)
	raw, err := m.signer.Sign(&token.Claims{
		Issuer: m.verifier.Issuer, Subject: client, ClientID: client, Audience: []string{"urn:a"}, Scope: scopes,
		IssuedAt: issued, ExpiresAt: start.Add(time.Hour), ID: id,
	})
	must.Succeed(t, err)
	claims, err := m.verifier.Verify(context.Background(), raw)
	must.Succeed(t, err)
	return claims
}

func tokenRevoked(id token.ID, end time.Time) revocation.Change {
	return revocation.Change{Kind: revocation.TokenRevoked, ID: id.String(), At: end}
}

func clientRevoked(id string, until time.Time) revocation.Change {
	return revocation.Change{Kind: revocation.ClientRevoked, ID: id, At: until}
}

func keyRevoked(id string, at time.Time) revocation.Change {
	return revocation.Change{Kind: revocation.KeyRevoked, ID: id, At: at}
}
