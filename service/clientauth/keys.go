package clientauth

import (
	"context"
	"crypto"
	"net/http"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// maxKeySets is the maximum number of remote key sets in memory.
const maxKeySets = 4000

// keySets finds the keys of clients.
type keySets struct {
	client *http.Client
	now    func() time.Time
	// remote maps a URL to the key set there.
	remote *otter.Cache[string, *jwks.Remote]
}

func newKeySets(client *http.Client, now func() time.Time) *keySets {
	return &keySets{client, now, otter.Must(&otter.Options[string, *jwks.Remote]{MaximumSize: maxKeySets})}
}

// find returns the client's key with the id: of the set that is registered, or of the one at its URL. That one is fetched when
// it is first needed and when its max-age has passed, and again for an unknown id, at most every 5 seconds. While it cannot be
// fetched, the last one is used, for at most a day.
func (s *keySets) find(ctx context.Context, client *registry.Client, id string) (jwks.Key, error) {
	if client.KeysURI == "" || s.client == nil {
		return client.Keys.Find(ctx, id)
	}
	return s.fetched(client.KeysURI).Find(ctx, id)
}

// findPublic returns the client's key that is the given one, as find does. Its error is [jwks.ErrUnknownKey] if the client has no
// such key.
func (s *keySets) findPublic(ctx context.Context, client *registry.Client, public crypto.PublicKey) (jwks.Key, error) {
	thumbprint, err := jwks.Thumbprint(public)
	if err != nil {
		return jwks.Key{}, jwks.ErrUnknownKey // no client has a key of this type
	}
	if client.KeysURI == "" || s.client == nil {
		return client.Keys.FindThumbprint(thumbprint)
	}
	return s.fetched(client.KeysURI).FindThumbprint(ctx, thumbprint)
}

// fetched returns the key set at a URL.
func (s *keySets) fetched(uri string) *jwks.Remote {
	set, _ := s.remote.ComputeIfAbsent(uri, func() (*jwks.Remote, bool) {
		fetch := jwks.At(oauth.Discovery{Client: s.client}, uri, jwks.MaxRegistered)
		return jwks.NewRemote(fetch, jwks.RemoteConfig{Now: s.now}), false
	})
	return set
}
