package clientauth

import (
	"context"
	"net/http"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

const (
	// maxKeySets is the maximum number of remote key sets in memory.
	maxKeySets = 4000
)

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
	set, _ := s.remote.ComputeIfAbsent(client.KeysURI, func() (*jwks.Remote, bool) {
		fetch := jwks.At(oauth.Discovery{Client: s.client}, client.KeysURI, jwks.MaxRegistered)
		return jwks.NewRemote(fetch, jwks.RemoteConfig{Now: s.now}), false
	})
	return set.Find(ctx, id)
}
