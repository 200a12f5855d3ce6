package service

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// follower puts in force here what the feed says.
type follower struct {
	*Service
	// strange is done when the log has been told of a change of an unknown kind: there may be many.
	strange sync.Once
}

// Apply implements [revocation.Follower].
func (f *follower) Apply(e revocation.Entry) {
	switch e.Kind {
	case revocation.ClientChanged:
		if id, err := oauth.ParseClientID(e.ID); err == nil {
			f.issuer.directory.ForgetClient(id)
		}
	case revocation.ResourcesChanged:
		f.issuer.directory.ForgetResources()
		f.lookAtResources()
	case revocation.RingChanged:
		f.issuer.ring.Reload()
	default:
		if !e.Kind.Known() {
			f.strange.Do(func() {
				f.config.Log.Warn("passing over changes of a kind that a newer release tells of", "kind", string(e.Kind))
			})
		}
		f.issuer.ledger.Append(e)
	}
}

// Lost implements [revocation.Follower].
func (f *follower) Lost(gap bool) {
	f.issuer.directory.ForgetAll()
	f.lookAtResources()
	f.issuer.ring.Reload()
	if !gap {
		f.config.Log.Warn("the store was out of reach; forgot what was cached")
		return
	}
	f.issuer.ledger.Reset()
	f.events.StoreLost()
	f.config.Log.Error("the store has lost data: entries of the feed are gone; publishing again the revocations that are " +
		"known here. Apply clients and resources again if they are gone too")
	select {
	case f.mend <- struct{}{}:
	default: // it is asked already
	}
}

// lookAtResources asks Run to read the resources: whether they can be read is part of being ready.
func (f *follower) lookAtResources() {
	select {
	case f.look <- struct{}{}:
	default: // it is asked already
	}
}

// Failed implements [revocation.Follower].
func (f *follower) Failed(err error) {
	f.config.Log.Error("the feed cannot be read; trying on", "error", err)
}

// maintain mends the feed and reads the resources when it is asked to, and forgets old revocations once a minute, until
// ctx ends.
func (s *Service) maintain(ctx context.Context) error {
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			// A minute more, since clocks differ, and since the client's last token may be dated after the entry.
			s.issuer.ledger.Sweep(s.config.Now(), registry.MaxLifetime+time.Minute)
		case <-s.look:
			_, _ = s.issuer.resources(ctx) // who needs them is told why there are none
		case <-s.mend:
			s.republish(ctx)
		}
	}
}

// republish publishes the live revocations that the feed has lost, until the feed has told all of them back: nobody else
// may know of them.
func (s *Service) republish(ctx context.Context) {
	published := 0
	for {
		missing, err := s.missing(ctx)
		if err == nil && len(missing) == 0 {
			break
		}
		for batch := range slices.Chunk(missing, 1000) {
			if err = s.config.Store.Publish(ctx, batch...); err != nil {
				break
			}
			published += len(batch)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.config.Log.Error("revocations that the store lost cannot be published again; trying on", "error", err)
			}
			if !pause(ctx, time.Second) {
				return
			}
		}
	}
	s.config.Log.Info("published again what the store had lost", "revocations", published)
}

// missing gives what the feed, as it is now, has not told back since it was lost.
func (s *Service) missing(ctx context.Context) ([]revocation.Change, error) {
	if err := s.CatchUp(ctx); err != nil {
		return nil, err
	}
	return s.issuer.ledger.Missing(s.config.Now()), nil
}

// pause reports whether ctx is still alive after d.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
