package attach_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// gate is a transport to an issuer that can be held up by its lock.
type gate struct {
	sync.RWMutex

	refused atomic.Int32 // responses that report a wrong secret
}

func (g *gate) RoundTrip(request *http.Request) (*http.Response, error) {
	g.RLock()
	defer g.RUnlock()
	answer, err := http.DefaultTransport.RoundTrip(request)
	if err == nil && answer.StatusCode == http.StatusUnauthorized {
		g.refused.Add(1)
	}
	return answer, err
}

// rename replaces the file by a new one.
func rename(path, secret string) error {
	return errors.Join(os.WriteFile(path+".new", []byte(secret), 0o600), os.Rename(path+".new", path))
}

// relink replaces the file as Kubernetes replaces a mounted secret: the file is a symbolic link through ..data to a
// directory of its version, and ..data is replaced as a whole.
func relink(path, secret string) error {
	dir, name := filepath.Split(path)
	data := filepath.Join(dir, "..data")
	old, _ := os.Readlink(data)
	version, err := os.MkdirTemp(dir, "..2026_")
	if err != nil {
		return err
	}
	err = errors.Join(os.WriteFile(filepath.Join(version, name), []byte(secret), 0o600),
		os.Symlink(filepath.Base(version), data+"_tmp"), os.Rename(data+"_tmp", data))
	if old == "" {
		return errors.Join(err, os.Symlink(filepath.Join("..data", name), path))
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(dir, old)))
}

// register sets the secret of the client billing.
func register(t *testing.T, issuer *tokentest.Issuer, secret string) {
	t.Helper()
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Secret: secret, Client: registry.Client{
		ID: must.Get(oauth.ParseClientID("billing")), Scopes: must.Get(oauth.ParseScopes("orders.read")), GrantTypes: []string{oauth.GrantClientCredentials},
	}}}})
}

// Several sources request tokens continuously while the secret is replaced in the file and then at the issuer, which no
// longer accepts the old one. Requests in flight then carry the old secret, and none of them fails.
func TestRotationUnderLoad(t *testing.T) {
	const workers, rotations = 4, 5
	for name, replace := range map[string]func(path, secret string) error{"rename": rename, "Kubernetes": relink} {
		t.Run(name, func(t *testing.T) {
			issuer := tokentest.New(t)
			issuer.AddClient(t, "billing", resource, "orders.read")
			path := filepath.Join(t.TempDir(), "billing")
			rotate := func() {
				secret := clientsecret.New()
				if err := replace(path, secret+"\n"); err != nil {
					t.Error(err)
				}
				register(t, issuer, secret)
			}
			rotate()

			transport := &gate{}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var tokens [workers]atomic.Int32
			var load sync.WaitGroup
			for n := range workers {
				source := attach.ClientCredentials(issuer.URL, "billing", "", attach.SecretFile(path),
					attach.HTTPClient(&http.Client{Transport: transport}))
				load.Go(func() {
					for ctx.Err() == nil {
						if _, err := attach.Issue(t.Context(), source); err != nil {
							t.Error(err)
							return
						}
						tokens[n].Add(1)
					}
				})
			}
			for range rotations {
				// A rotation is over for a worker once it has a token again.
				for n := range workers {
					for before := tokens[n].Load(); tokens[n].Load() == before && !t.Failed(); {
						<-time.After(time.Millisecond)
					}
				}
				transport.Lock()
				<-time.After(20 * time.Millisecond) // lets requests with the old secret pile up here
				rotate()
				transport.Unlock()
			}
			stop()
			load.Wait()
			if transport.refused.Load() == 0 {
				t.Error("no request coincided with a rotation; the test proves nothing")
			}
			http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		})
	}
}

// A service continues to make calls while its secret is replaced, and requests its next token with the new one.
func TestCallsDuringRotation(t *testing.T) {
	g := newGuardedServer(t, false)
	path := secretFile(t, tokentest.Secret)
	source := attach.ClientCredentials("", "billing", "", attach.SecretFile(path),
		attach.OverGRPC(g.issuer.Conn(t)), attach.Scopes("orders.read"))
	client := g.client(t, source)
	call := func(when string) {
		t.Helper()
		if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	call("at first")
	first := accessToken(t, source)

	secret := clientsecret.New()
	register(t, g.issuer, secret)
	call("with the issuer ahead of the file")
	write(t, path, secret)
	call("with the new secret in the file")
	source.Drop(first)
	call("with the next token")
	if accessToken(t, source) == first {
		t.Error("there is no next token")
	}
}
