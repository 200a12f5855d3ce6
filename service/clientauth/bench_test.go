package clientauth_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// stored is a store of clients that never change.
type stored struct {
	registry.ClientStore
	clients registered
}

func (s stored) Client(ctx context.Context, id oauth.ClientID) (*registry.Client, error) {
	return s.clients.Client(ctx, id)
}

// BenchmarkAuthenticate authenticates a client that the directory has in memory, by a generated secret. The floor is
// one HMAC of the secret and its comparison with the stored one.
func BenchmarkAuthenticate(b *testing.B) {
	a := clientauth.New(clientauth.Config{
		Clients: registry.NewDirectory(stored{clients: registered{"svc": client("svc", generated)}}, nil, nil, 100),
		Hasher:  hasher, Uses: registry.NewUsage(nil), Failures: limiter(100, 100), Now: time.Now,
	})
	for _, method := range []struct {
		name     string
		evidence clientauth.Evidence
	}{{"generated", post("svc", generated)}, {"basic", basic("svc", generated)}} {
		b.Run(method.name+"/grantor", func(b *testing.B) {
			evidence := method.evidence
			evidence.Source = here
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Authenticate(b.Context(), evidence); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(method.name+"/floor", func(b *testing.B) {
			secret := []byte(generated)
			mac := hmac.New(sha256.New, make([]byte, 32))
			mac.Write(secret)
			hash, sum := mac.Sum(nil), make([]byte, 0, sha256.Size)
			b.ReportAllocs()
			for b.Loop() {
				mac.Reset()
				mac.Write(secret)
				if subtle.ConstantTimeCompare(mac.Sum(sum), hash) != 1 {
					b.Fatal("wrong")
				}
			}
		})
	}
}
