package registry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

// UsageStore keeps when each secret last proved its client. It may be used by several goroutines.
type UsageStore interface {
	// RecordUses keeps the uses, each unless a later one is kept already. One of a secret that its client does not have, or
	// no longer, is passed over. What is kept of a client ends with the client, and of a secret with the first use of the
	// client after its end.
	RecordUses(ctx context.Context, uses []Use) error
	// LastUses gives, by client and the secret's id, what is kept of the clients. See [clientsecret.Secret.LastUse].
	LastUses(ctx context.Context, clients []oauth.ClientID) (map[oauth.ClientID]map[string]time.Time, error)
}

// Use is one use of a secret.
type Use struct {
	Client   oauth.ClientID
	SecretID string
	At       time.Time // in whole seconds
}

const (
	// maxUses bounds how many secrets' uses wait to be written. A use beyond that is not noted; one of the next minute is.
	maxUses = 100_000
	// usesEvery is how often they are written: so that a use is known within a minute, with the time that writing takes.
	usesEvery = 50 * time.Second
	// usesBatch is how many are written at once.
	usesBatch = 100
	// lastUses bounds the time of writing when the process ends.
	lastUses = 2 * time.Second
)

// Usage notes when secrets are used, in memory, and writes that in batches. While the store is away it keeps what it has
// noted. It may be used by several goroutines.
type Usage struct {
	store UsageStore
	mu    sync.Mutex
	// noted has secret → the second of its last use that is not written yet.
	noted map[secretKey]int64
}

// secretKey names a secret among all clients.
type secretKey struct {
	client oauth.ClientID
	id     string
}

// NewUsage makes one that writes to the store while [Usage.Run] is under way.
func NewUsage(store UsageStore) *Usage {
	return &Usage{store: store, noted: make(map[secretKey]int64)}
}

// Note notes that the secret proved the client. It costs no more than a look into a map, since each token does it.
func (u *Usage) Note(client oauth.ClientID, secretID string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.note(secretKey{client, secretID}, at.Unix())
}

func (u *Usage) note(key secretKey, second int64) {
	last, ok := u.noted[key]
	if last < second && (ok || len(u.noted) < maxUses) {
		u.noted[key] = second
	}
}

// Run writes what is noted about once a minute until ctx ends, and then once more. It tells failed what goes wrong.
func (u *Usage) Run(ctx context.Context, failed func(error)) error {
	again := time.NewTicker(usesEvery)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			if err := u.write(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastUses)
			defer cancel()
			if err := u.write(last); err != nil {
				failed(err)
			}
			return nil
		}
	}
}

// write writes what is noted, and keeps what it cannot write.
func (u *Usage) write(ctx context.Context) error {
	uses := u.take()
	for len(uses) > 0 {
		batch := uses[:min(len(uses), usesBatch)]
		if err := u.store.RecordUses(ctx, batch); err != nil {
			u.keep(uses)
			return fmt.Errorf("writing when secrets were last used: %w", err)
		}
		uses = uses[len(batch):]
	}
	return nil
}

// take gives what is noted, and forgets it.
func (u *Usage) take() []Use {
	u.mu.Lock()
	noted := u.noted
	u.noted = make(map[secretKey]int64, len(noted))
	u.mu.Unlock()
	uses := make([]Use, 0, len(noted))
	for key, second := range noted {
		uses = append(uses, Use{key.client, key.id, time.Unix(second, 0)})
	}
	return uses
}

// keep puts back what take gave.
func (u *Usage) keep(uses []Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, use := range uses {
		u.note(secretKey{use.Client, use.SecretID}, use.At.Unix())
	}
}
