package telemetry

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
)

// Sources are what the state of an issuer is read from at each collection of the metrics. Every field is required, and
// every function must be safe for concurrent use by multiple goroutines.
type Sources struct {
	// Ready returns nil if tokens can be issued.
	Ready func() error
	// FeedAge returns the age of what this replica knows of the feed, Revocations the number of revocations in effect.
	FeedAge     func() time.Duration
	Revocations func() int
	// Clients and Tokens return the number of lookups in the caches of those names.
	Clients, Tokens func() (hits, misses uint64)
	Authentication  func() clientauth.Stats
	Ring            *keys.Ring
	// Now is the clock of the ring.
	Now func() time.Time
	// Subscribers returns the number of subscribers that follow the revocations now, and the number of those that were
	// dropped because they were too slow.
	Subscribers func() (following int64, dropped uint64)
}

// observer records one value of a metric.
type observer func(value float64, attributes ...attribute.KeyValue)

// Observe publishes the state of an issuer. It reads the state from sources.
func Observe(meter metric.Meter, sources Sources) error {
	return errors.Join(
		gauge(meter, "grantor.ready", "", "1 if this replica can issue tokens, else 0.", func(observe observer) {
			observe(boolValue(sources.Ready() == nil))
		}),
		gauge(meter, "grantor.feed.age", "s", "Every change made longer ago than this is in effect on this replica.", func(observe observer) {
			observe(sources.FeedAge().Seconds())
		}),
		gauge(meter, "grantor.revocations.live", "{revocation}", "Revocations that concern tokens which may not have expired.", func(observe observer) {
			observe(float64(sources.Revocations()))
		}),
		counter(meter, "grantor.cache.lookups", "{lookup}", "Lookups of clients, and of tokens to introspect, in the memory of this replica.", func(observe observer) {
			lookups(observe, "clients", sources.Clients)
			lookups(observe, "tokens", sources.Tokens)
		}),
		observeAuthentication(meter, sources.Authentication),
		observeKeys(meter, sources.Ring, sources.Now),
		gauge(meter, "grantor.subscribers", "{subscriber}", "Verifiers and others that follow the revocations of this replica.", func(observe observer) {
			following, _ := sources.Subscribers()
			observe(float64(following))
		}),
		counter(meter, "grantor.subscribers.dropped", "{subscriber}", "Subscribers that were dropped because they did not read a message in time; each may reconnect.", func(observe observer) {
			_, dropped := sources.Subscribers()
			observe(float64(dropped))
		}),
	)
}

func observeAuthentication(meter metric.Meter, stats func() clientauth.Stats) error {
	return errors.Join(
		counter(meter, "grantor.client.secrets", "{secret}",
			"Client secrets that were checked: generated ones, chosen ones by a slow hash, and chosen ones by a remembered result.",
			func(observe observer) {
				s := stats()
				for kind, checks := range map[string]clientauth.Checks{
					"generated": s.Generated, "chosen": s.Chosen, "remembered": {Right: s.Remembered},
				} {
					observe(float64(checks.Right), attribute.String("kind", kind), attribute.String("result", "right"))
					observe(float64(checks.Wrong), attribute.String("kind", kind), attribute.String("result", "wrong"))
				}
			}),
		gauge(meter, "grantor.argon2id.queue.length", "{request}", "Requests that wait for a slow hash or compute one.", func(observe observer) {
			observe(float64(stats().Queued))
		}),
		gauge(meter, "grantor.argon2id.queue.limit", "{request}", "Requests that may wait for a slow hash or compute one.", func(observe observer) {
			observe(float64(stats().Places))
		}),
		gauge(meter, "grantor.argon2id.running", "{request}", "Slow hashes that are being computed.", func(observe observer) {
			observe(float64(stats().Running))
		}),
		counter(meter, "grantor.argon2id.rejected", "{request}", "Requests that found no place in the queue for slow hashes.", func(observe observer) {
			observe(float64(stats().Rejected))
		}),
	)
}

func observeKeys(meter metric.Meter, ring *keys.Ring, now func() time.Time) error {
	type group struct {
		algorithm jwks.Algorithm
		state     keys.State
	}
	return errors.Join(
		gauge(meter, "grantor.key.age", "s", "Time since the signing key was created; the oldest counts if several are in one state.", func(observe observer) {
			oldest := make(map[group]time.Duration)
			for _, key := range ring.List() {
				g := group{key.Public.Algorithm(), key.State}
				oldest[g] = max(oldest[g], now().Sub(key.Created))
			}
			for g, age := range oldest {
				observe(age.Seconds(), attribute.String("alg", string(g.algorithm)), attribute.String("state", string(g.state)))
			}
		}),
		gauge(meter, "grantor.key.rotation.remaining", "s", "Time until the next key signs; it is negative if the rotation is overdue.", func(observe observer) {
			for _, algorithm := range ring.Algorithms() {
				observe(ring.NextRotation(algorithm).Sub(now()).Seconds(), attribute.String("alg", string(algorithm)))
			}
		}),
	)
}

func lookups(observe observer, cache string, count func() (hits, misses uint64)) {
	hits, misses := count()
	observe(float64(hits), attribute.String("cache", cache), attribute.String("result", "hit"))
	observe(float64(misses), attribute.String("cache", cache), attribute.String("result", "miss"))
}

// boolValue returns 1 for true and 0 for false.
func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func gauge(meter metric.Meter, name, unit, description string, collect func(observer)) error {
	_, err := meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description), callback(collect))
	return err
}

func counter(meter metric.Meter, name, unit, description string, collect func(observer)) error {
	_, err := meter.Float64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description), callback(collect))
	return err
}

func callback(collect func(observer)) metric.Float64ObservableOption {
	return metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
		collect(func(value float64, attributes ...attribute.KeyValue) {
			o.Observe(value, metric.WithAttributes(attributes...))
		})
		return nil
	})
}
