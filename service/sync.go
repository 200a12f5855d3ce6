package service

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// syncer applies the changes in the feed to what this replica holds in memory, and restores what the feed loses. It
// implements [revocation.Follower]: what those methods may not wait for, run does.
type syncer struct {
	directory *registry.Directory
	ring      *keys.Ring
	ledger    *revocation.Ledger
	publisher revocation.Publisher
	feedLog   revocation.Log
	now       func() time.Time
	log       *slog.Logger
	// storeLost counts that the store has lost data.
	storeLost func()

	// republish and reload wake run, to publish again what the feed has lost and to read the resources. grown wakes
	// checkpoint.
	republish, reload, grown chan struct{}
	// applied counts the changes since grown was last woken.
	applied int
	// unknownKind limits the warning about changes of an unknown kind to one: there may be many.
	unknownKind sync.Once
}

// newSyncer returns a syncer for the parts of d. Its first task is to read the resources: changes that were made before
// the feed begins count too.
func newSyncer(d *domain) *syncer {
	s := &syncer{
		directory: d.directory, ring: d.ring, ledger: d.ledger, publisher: d.config.Store, feedLog: d.config.Store,
		now: d.config.Now, log: d.config.Log, storeLost: d.events.StoreLost,
		republish: make(chan struct{}, 1), reload: make(chan struct{}, 1), grown: make(chan struct{}, 1),
	}
	wake(s.reload)
	return s
}

// wake sends to a channel of capacity one, unless it is already pending.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // already pending
	}
}

// Apply implements [revocation.Follower].
func (s *syncer) Apply(e revocation.Entry) {
	if s.applied++; s.applied == checkpointEntries {
		s.applied = 0
		wake(s.grown)
	}
	switch e.Kind {
	case revocation.ClientChanged:
		if id, err := oauth.ParseClientID(e.ID); err == nil {
			s.directory.ForgetClient(id)
		}
	case revocation.ResourcesChanged:
		s.directory.ForgetResources()
		wake(s.reload)
	case revocation.TrustChanged:
		s.directory.ForgetTrust()
	case revocation.RingChanged:
		s.ring.Reload()
	default:
		if !e.Kind.Known() {
			s.unknownKind.Do(func() {
				s.log.Warn("ignoring changes of a kind that only newer releases know", "kind", string(e.Kind))
			})
		}
		s.ledger.Append(e)
	}
}

// Skimmed implements [revocation.Follower].
func (s *syncer) Skimmed() {
	s.directory.ForgetAll()
	wake(s.reload)
	s.ring.Reload()
}

// Lost implements [revocation.Follower].
func (s *syncer) Lost(gap bool) {
	s.Skimmed()
	if !gap {
		s.log.Warn("the store was out of reach; forgot what was cached")
		return
	}
	s.ledger.Reset()
	s.storeLost()
	s.log.Error("the store has lost data: entries of the feed are gone; publishing again the revocations that are " +
		"known here. Apply clients and resources again if they are gone too")
	wake(s.republish)
}

// Failed implements [revocation.Follower].
func (s *syncer) Failed(err error) {
	s.log.Error("the feed cannot be read; retrying", "error", err)
}

// run does what the feed demands until ctx ends: it restores the feed, calls checkResources when the resources may have
// changed, because whether they can be read is part of being ready, and forgets old revocations once a minute.
func (s *syncer) run(ctx context.Context, feed *revocation.Tail, checkResources func(context.Context)) error {
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			// A minute longer than a token can live, because clocks differ and the client's last token may be dated after
			// the entry.
			s.ledger.Sweep(s.now(), registry.MaxLifetime+time.Minute)
		case <-s.reload:
			checkResources(ctx)
		case <-s.republish:
			s.restore(ctx, feed)
		}
	}
}

const (
	// publishBatch is the maximum number of revocations that are published at once.
	publishBatch = 1000
	// publishRetry is the time between two attempts to publish what the feed has lost.
	publishRetry = time.Second
)

// restore publishes the live revocations that the feed has lost, until they have all been read from it again: this may be
// the only replica that knows them.
func (s *syncer) restore(ctx context.Context, feed *revocation.Tail) {
	published := 0
	for {
		missing, err := s.missing(ctx, feed)
		if err == nil && len(missing) == 0 {
			break
		}
		for batch := range slices.Chunk(missing, publishBatch) {
			if err = s.publisher.Publish(ctx, batch...); err != nil {
				break
			}
			published += len(batch)
		}
		if err == nil {
			continue
		}
		if ctx.Err() == nil {
			s.log.Error("revocations that the store lost cannot be published again; retrying", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(publishRetry):
		}
	}
	s.log.Info("published again what the store had lost", "revocations", published)
}

// missing returns the live revocations that have not been read from the feed, as it is now, since it lost entries.
func (s *syncer) missing(ctx context.Context, feed *revocation.Tail) ([]revocation.Change, error) {
	if err := feed.CatchUp(ctx); err != nil {
		return nil, err
	}
	return s.ledger.Missing(s.now()), nil
}

const (
	// checkpointEntries is the number of changes after which a replica stores checkpoints. A replica that starts reads about
	// so many changes, or a day's if there are fewer, in some 20 ms.
	checkpointEntries = 10_000
	// checkpointSpread is the maximum time that a replica waits then. The wait is random, so that as a rule only the first
	// replica finds something to store.
	checkpointSpread = 5 * time.Second
)

// checkpoint stores checkpoints of the feed as it grows, until ctx ends.
func (s *syncer) checkpoint(ctx context.Context, feed *revocation.Tail) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.grown:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rand.N(checkpointSpread)): //nolint:gosec // not a secret
		}
		err := feed.CatchUp(ctx) // not while a start without checkpoints reads the feed
		if err == nil {
			err = s.feedLog.Checkpoint(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("no checkpoint of the feed can be stored, so starts take longer", "error", err)
		}
	}
}
