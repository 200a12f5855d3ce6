// Package heartbeat has what each running replica of an issuer tells about itself, so that `grantor doctor` can see whether
// all of them are there, up to date and alike. Nothing else is decided by it: a replica that cannot tell serves on.
package heartbeat

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

const (
	// Interval is how often a replica tells.
	Interval = 10 * time.Second
	// Kept is how long a replica is remembered that has fallen silent: long enough for somebody to see that it did.
	Kept = 10 * time.Minute
	// Most bounds how many replicas are remembered. A further one waits until another is forgotten.
	Most = 1000
)

// Status is a replica as it describes itself. It has nothing that is secret.
type Status struct {
	// ID tells this process from others.
	ID string
	// Version is the release that runs, Host the machine that it runs on.
	Version, Host string
	// HTTP and GRPC are the addresses of the ports, as host:port.
	HTTP, GRPC string
	StartedAt  time.Time
	// Settings has what must be the same for all replicas of an issuer: the setting's name → its value.
	Settings map[string]string
	// Insecure lists the insecure options in force, by their words.
	Insecure []string
	// CertificateEnds is when the certificate of the ports ends; zero without TLS.
	CertificateEnds time.Time
	// FeedAge is how old the replica's knowledge is; negative before it has read the feed to its end.
	FeedAge time.Duration
	// Published has the ids of the keys that the replica publishes, Active of those that it signs with.
	Published, Active []string

	// Ahead is how far the replica's clock is ahead of the store's, at least, as it was found the last time; negative is
	// behind. What the way to the store and back may explain does not count.
	Ahead time.Duration
	// StoredAt is the store's clock when the replica told. The store sets it.
	StoredAt time.Time
}

// Store keeps what the replicas tell. It may be used by several goroutines.
type Store interface {
	// Announce keeps the status, with the store's own time, in place of what the replica told before, and gives that time.
	// It forgets the replicas that have been silent for [Kept].
	Announce(ctx context.Context, status Status) (time.Time, error)
	// Withdraw forgets a replica.
	Withdraw(ctx context.Context, id string) error
	// Replicas gives what is known, in the order of the ids, and the store's time. What cannot be read is left out.
	Replicas(ctx context.Context) ([]Status, time.Time, error)
}

const (
	// patience bounds one announcement.
	patience = 3 * time.Second
	// soon is when the second announcement follows the first, since it is the first that knows of the clocks.
	soon = time.Second
)

// Run tells the store about a replica until ctx ends, and then that it has gone. look gives the status without ID,
// StartedAt and Ahead. failed is told why the store cannot be told, once for each outage.
func Run(ctx context.Context, store Store, look func() Status, failed func(error)) {
	id, started := rand.Text(), time.Now()
	var ahead time.Duration
	broken := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for wait := soon; ; wait = Interval {
		select {
		case <-ctx.Done():
			withdraw(context.WithoutCancel(ctx), store, id)
			return
		case <-timer.C:
		}
		timer.Reset(wait)
		status := look()
		status.ID, status.StartedAt, status.Ahead = id, started, ahead
		found, err := announce(ctx, store, status)
		if err != nil && !broken && ctx.Err() == nil {
			failed(fmt.Errorf("the other replicas cannot be told about this one: %w", err))
		}
		if broken = err != nil; !broken {
			ahead = found
		}
	}
}

// announce tells the store, and finds how far the clock here is ahead of the store's, which was read between two looks at
// the one here.
func announce(ctx context.Context, store Store, status Status) (ahead time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before := time.Now()
	theirs, err := store.Announce(ctx, status)
	after := time.Now()
	switch {
	case err != nil:
		return 0, err
	case before.After(theirs):
		return before.Sub(theirs), nil
	case after.Before(theirs):
		return after.Sub(theirs), nil
	}
	return 0, nil
}

// withdraw leaves it at that if the store is away: it forgets by itself.
func withdraw(ctx context.Context, store Store, id string) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	_ = store.Withdraw(ctx, id)
}
