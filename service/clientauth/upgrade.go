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

// Store stores clients; see [registry.ClientStore] for the contract.
type Store interface {
	Clients
	// SaveClient replaces the client, or returns [registry.ErrConflict] if its version is no longer the stored one.
	SaveClient(ctx context.Context, c *registry.Client) error
}

// upgrade is a hash to be replaced, with the secret that it is the hash of. Only a caller that authenticates with a
// secret reveals it, and only from the secret can a new hash be computed.
type upgrade struct {
	client oauth.ClientID
	match
	secret string
}

const (
	// maxUpgrades is the maximum number of hashes that wait to be replaced. One that finds no place is requested again by
	// the next use of its secret.
	maxUpgrades = 64
	// upgradeBackoff is how long no hash is replaced after the store failed to save one.
	upgradeBackoff = 10 * time.Second
)

// requestUpgrade asks [Authenticator.Run] to replace a hash, without waiting for it.
func (a *Authenticator) requestUpgrade(u upgrade) {
	select {
	case a.upgrades <- u:
	default:
	}
}

// Run replaces outdated hashes, such as those imported from other servers, one at a time, after their secrets were
// used. It calls report with each error and returns nil when ctx ends.
func (a *Authenticator) Run(ctx context.Context, report func(error)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-a.upgrades:
			if err := a.upgrade(ctx, u); err != nil && ctx.Err() == nil {
				report(fmt.Errorf("replacing the imported hash of a secret of client %q: %w", u.client, err))
				select {
				case <-ctx.Done():
				case <-time.After(upgradeBackoff):
				}
			}
		}
	}
}

// upgrade replaces the hash if the client still has it. A concurrent change of the client takes precedence, be it by an
// administrator or by another replica that replaces the same hash. The next use then requests the upgrade again if it
// is still needed.
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
	if err := a.secrets.queue.processors.Acquire(ctx, 1); err != nil {
		return err
	}
	hash := a.config.Hasher.Hash(u.secret, stored.Secrets...)
	a.secrets.queue.processors.Release(1)
	changed := *stored
	changed.Secrets = slices.Clone(stored.Secrets)
	changed.Secrets[i].Hash = hash
	if err := a.config.Store.SaveClient(ctx, &changed); !errors.Is(err, registry.ErrConflict) {
		return err
	}
	return nil
}
