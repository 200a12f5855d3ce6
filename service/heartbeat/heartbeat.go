// Package heartbeat defines what each running replica of an issuer reports about itself, so that `grantor doctor` can see
// whether all of them are there, up to date and alike. Nothing else depends on it: a replica that cannot report keeps
// serving.
package heartbeat

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

const (
	// Interval is the time between two reports of a replica.
	Interval = 10 * time.Second
	// Retention is how long the store keeps the last report of a replica that has stopped reporting: long enough for a
	// person to notice.
	Retention = 10 * time.Minute
	// MaxReplicas is the maximum number of replicas that the store keeps reports of. A further one is not kept until
	// another has expired.
	MaxReplicas = 1000
)

// Status is a replica as it describes itself. It contains no secret.
type Status struct {
	// ID is unique for the process.
	ID string
	// Version is the release that runs, Host the machine that it runs on.
	Version, Host string
	// HTTP and GRPC are the addresses of the ports, as host:port.
	HTTP, GRPC string
	StartedAt  time.Time
	// Settings maps the names of the settings that must be the same for all replicas of an issuer to their values.
	Settings map[string]string
	// Insecure lists the names of the insecure options in effect.
	Insecure []string
	// CertificateEnds is when the certificate of the ports expires; zero without TLS.
	CertificateEnds time.Time
	// FeedAge is the age of the replica's knowledge; negative until it has read the feed to its end.
	FeedAge time.Duration
	// Published are the IDs of the keys that the replica publishes, and Active those of the keys that it signs with.
	Published, Active []string

	// Ahead is how far, at least, the replica's clock was ahead of the store's at its last report; negative is behind. A
	// difference that the round trip to the store could explain does not count.
	Ahead time.Duration
	// StoredAt is when the report arrived, by the store's clock. The store sets it.
	StoredAt time.Time
}

// Store keeps the reports of the replicas. It is safe for concurrent use by multiple goroutines.
type Store interface {
	// Announce replaces the replica's report by status, with the store's own time, and returns that time. It removes the
	// reports that are older than [Retention].
	Announce(ctx context.Context, status Status) (time.Time, error)
	// Withdraw removes the report of a replica.
	Withdraw(ctx context.Context, id string) error
	// Replicas returns the reports ordered by ID, and the store's time. A report that cannot be decoded is left out.
	Replicas(ctx context.Context) ([]Status, time.Time, error)
}

const (
	// announceTimeout bounds one report.
	announceTimeout = 3 * time.Second
	// withdrawTimeout bounds the removal of the report when the replica stops.
	withdrawTimeout = time.Second
	// secondReport is the time between the first report and the second, which is the first that can compare the clocks.
	secondReport = time.Second
)

// Run reports about a replica until ctx ends, and then removes its report. describe returns the status without ID,
// StartedAt and Ahead. Run calls failed with the reason why it cannot report, once for each outage of the store.
func Run(ctx context.Context, store Store, describe func() Status, failed func(error)) {
	id, started := rand.Text(), time.Now()
	var ahead time.Duration
	failing := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for wait := secondReport; ; wait = Interval {
		select {
		case <-ctx.Done():
			withdraw(context.WithoutCancel(ctx), store, id)
			return
		case <-timer.C:
		}
		timer.Reset(wait)
		status := describe()
		status.ID, status.StartedAt, status.Ahead = id, started, ahead
		measured, err := announce(ctx, store, status)
		if err != nil && !failing && ctx.Err() == nil {
			failed(fmt.Errorf("reporting this replica's status: %w", err))
		}
		if failing = err != nil; !failing {
			ahead = measured
		}
	}
}

// announce reports the status, and measures how far the clock here is ahead of the store's, which is read between two
// readings of the one here.
func announce(ctx context.Context, store Store, status Status) (ahead time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
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

// withdraw ignores the error of a store that is out of reach: the report expires by itself.
func withdraw(ctx context.Context, store Store, id string) {
	ctx, cancel := context.WithTimeout(ctx, withdrawTimeout)
	defer cancel()
	_ = store.Withdraw(ctx, id)
}
