package clientauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// Store is where a client is kept; see [registry.ClientStore] for the rules.
type Store interface {
	Clients
	SaveClient(ctx context.Context, c *registry.Client) error
}

// upgrade is a hash to be replaced, and the secret that it is the hash of. Who proved a client by an imported hash has
// shown the one thing from which a hash of our own can be made.
type upgrade struct {
	client oauth.ClientID
	match
	secret string
}

const (
	// mostUpgrades bounds how many hashes wait to be replaced; the next use asks again for one that found no place.
	mostUpgrades = 64
	// upgradePause is how long nothing is replaced after the store failed to take one.
	upgradePause = 10 * time.Second
)

// wantUpgrade asks for a hash to be replaced, and does not wait for it.
func (a *Authenticator) wantUpgrade(u upgrade) {
	select {
	case a.upgrades <- u:
	default:
	}
}

// Run replaces the hashes that other servers made by ours, one after another, when their secrets have been used. It ends
// with ctx, and tells failed what goes wrong.
func (a *Authenticator) Run(ctx context.Context, failed func(error)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-a.upgrades:
			if err := a.upgrade(ctx, u); err != nil && ctx.Err() == nil {
				failed(fmt.Errorf("replacing the imported hash of a secret of client %q: %w", u.client, err))
				pause(ctx, upgradePause)
			}
		}
	}
}

// upgrade replaces the hash, if it is still there. Whoever changes the client meanwhile has precedence: another replica
// that replaces the same hash, or an administrator. The next use then asks again, if that is still needed.
func (a *Authenticator) upgrade(ctx context.Context, u upgrade) error {
	stored, err := a.config.Store.Client(ctx, u.client)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	i := slices.IndexFunc(stored.Secrets, func(s clientsecret.Secret) bool { return s.ID == u.id && s.Hash == u.hash })
	// Saving a disabled client would revoke its tokens again.
	if i < 0 || stored.Disabled || !clientsecret.Outdated(stored.Secrets, i) {
		return nil
	}
	if err := a.secrets.slow.Acquire(ctx, 1); err != nil {
		return err
	}
	hash := a.config.Hasher.Hash(u.secret, stored.Secrets...)
	a.secrets.slow.Release(1)
	changed := *stored
	changed.Secrets = slices.Clone(stored.Secrets)
	changed.Secrets[i].Hash = hash
	if err := a.config.Store.SaveClient(ctx, &changed); !errors.Is(err, registry.ErrConflict) {
		return err
	}
	return nil
}

// pause waits until d has passed or ctx has ended.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
