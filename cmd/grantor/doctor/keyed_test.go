package doctor_test

import (
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/doctor"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

// TestDoctorKeyedClient expects no finding about the secrets of clients that need none.
func TestDoctorKeyedClient(t *testing.T) {
	keys := must.Get(jwks.NewDocument(jwstest.NewSigner("ES256").Key()))
	p, args := registered(0, func(c *registry.Client) { c.Secrets, c.Keys = nil, keys })(t)
	p.client("elsewhere", 0, func(c *registry.Client) { c.Secrets, c.KeysURI = nil, "https://a.example/jwks" })
	p.client("both", 2*day, func(c *registry.Client) { c.Secrets[0].ExpiresAt, c.Keys = time.Now().Add(-day), keys })
	found := p.diagnose(args...)
	for _, id := range []string{"client.secretless", "client.locked-out", "client.expiring"} {
		if got := found.checks[id]; got.Severity != doctor.IsFine {
			t.Errorf("%s: got %+v, want it fine", id, got)
		}
	}
}
