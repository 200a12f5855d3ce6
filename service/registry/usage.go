package registry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

// UsageStore stores when each secret last authenticated its client. A UsageStore is safe for concurrent use by multiple
// goroutines.
type UsageStore interface {
	// RecordUses stores the uses, except those that precede the stored one. It ignores a use of a secret that its client
	// does not have, or no longer has. The uses of a client are deleted with the client, and those of a removed secret with
	// the next recorded use of the client.
	RecordUses(ctx context.Context, uses []Use) error
	// LastUses returns the stored uses of the clients, keyed by client and the ID of the secret. See
	// [clientsecret.Secret.LastUse].
	LastUses(ctx context.Context, clients []oauth.ClientID) (map[oauth.ClientID]map[string]time.Time, error)
}

// Use is one use of a secret.
type Use struct {
	Client   oauth.ClientID
	SecretID string
	At       time.Time // in whole seconds
}

const (
	// maxUses is the maximum number of secrets whose uses wait to be written. Note drops further ones; a use of the same
	// secret in the next minute is recorded.
	maxUses = 100_000
	// usesInterval is the interval of writes. A use is known within a minute, including the time that writing takes.
	usesInterval = 50 * time.Second
	// usesBatch is the maximum number of uses in one call of the store.
	usesBatch = 100
	// finalWriteTimeout bounds the last write, when the process ends.
	finalWriteTimeout = 2 * time.Second
)

// Usage records in memory when secrets are used, and writes the uses in batches. While the store is unreachable it keeps
// them. A Usage is safe for concurrent use by multiple goroutines.
type Usage struct {
	store UsageStore
	mu    sync.Mutex
	// pending maps each secret to the second of its last use that is not written yet.
	pending map[secretKey]int64
}

// secretKey identifies a secret among those of all clients.
type secretKey struct {
	client oauth.ClientID
	id     string
}

// NewUsage returns a Usage that writes to the store while [Usage.Run] runs.
func NewUsage(store UsageStore) *Usage {
	return &Usage{store: store, pending: make(map[secretKey]int64)}
}

// Note records that the secret authenticated the client. It costs no more than a map access, because every issued token
// calls it.
func (u *Usage) Note(client oauth.ClientID, secretID string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.note(secretKey{client, secretID}, at.Unix())
}

func (u *Usage) note(key secretKey, second int64) {
	last, ok := u.pending[key]
	if last < second && (ok || len(u.pending) < maxUses) {
		u.pending[key] = second
	}
}

// Run writes the recorded uses about once a minute until ctx ends, and then once more. It calls failed with the error of
// each write that fails.
func (u *Usage) Run(ctx context.Context, failed func(error)) error {
	ticker := time.NewTicker(usesInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := u.write(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalWriteTimeout)
			defer cancel()
			if err := u.write(ctx); err != nil {
				failed(err)
			}
			return nil
		}
	}
}

// write writes the pending uses, and keeps those that it cannot write.
func (u *Usage) write(ctx context.Context) error {
	uses := u.take()
	for len(uses) > 0 {
		batch := uses[:min(len(uses), usesBatch)]
		if err := u.store.RecordUses(ctx, batch); err != nil {
			u.putBack(uses)
			return fmt.Errorf("writing when secrets were last used: %w", err)
		}
		uses = uses[len(batch):]
	}
	return nil
}

// take returns and clears the pending uses.
func (u *Usage) take() []Use {
	u.mu.Lock()
	pending := u.pending
	u.pending = make(map[secretKey]int64, len(pending))
	u.mu.Unlock()
	uses := make([]Use, 0, len(pending))
	for key, second := range pending {
		uses = append(uses, Use{key.client, key.id, time.Unix(second, 0)})
	}
	return uses
}

// putBack makes uses that take returned pending again.
func (u *Usage) putBack(uses []Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, use := range uses {
		u.note(secretKey{use.Client, use.SecretID}, use.At.Unix())
	}
}
