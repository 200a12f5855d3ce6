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

// Sources are what the state of an issuer is read from, each time that somebody asks for the metrics. Every field is
// required; a function may be called at any time and by several goroutines.
type Sources struct {
	// Ready is nil where tokens can be issued.
	Ready func() error
	// FeedAge is how old this replica's knowledge is, Revocations how many are in force.
	FeedAge     func() time.Duration
	Revocations func() int
	// Clients and Tokens count the lookups in the caches of those names.
	Clients, Tokens func() (hits, misses uint64)
	Authentication  func() clientauth.Stats
	Ring            *keys.Ring
	// Now is the clock of the ring.
	Now func() time.Time
	// Subscribers are who follow the revocations now, Dropped those that were given up because they were too slow.
	Subscribers func() (following int64, dropped uint64)
}

// report tells one value of a metric.
type report func(value float64, attributes ...attribute.KeyValue)

// Observe publishes the state of an issuer.
func Observe(meter metric.Meter, of Sources) error {
	return errors.Join(
		gauge(meter, "grantor.ready", "", "1 where this replica can issue tokens, else 0.", func(tell report) {
			tell(truth(of.Ready() == nil))
		}),
		gauge(meter, "grantor.feed.age", "s", "Every change made longer ago than this is in force on this replica.", func(tell report) {
			tell(of.FeedAge().Seconds())
		}),
		gauge(meter, "grantor.revocations.live", "{revocation}", "Revocations that concern tokens which may not have expired.", func(tell report) {
			tell(float64(of.Revocations()))
		}),
		counter(meter, "grantor.cache.lookups", "{lookup}", "Lookups of clients, and of tokens to introspect, in the memory of this replica.", func(tell report) {
			lookups(tell, "clients", of.Clients)
			lookups(tell, "tokens", of.Tokens)
		}),
		observeAuthentication(meter, of.Authentication),
		observeKeys(meter, of.Ring, of.Now),
		gauge(meter, "grantor.subscribers", "{subscriber}", "Verifiers and others that follow the revocations of this replica.", func(tell report) {
			following, _ := of.Subscribers()
			tell(float64(following))
		}),
		counter(meter, "grantor.subscribers.dropped", "{subscriber}", "Subscribers that did not take an answer in time; each may come back.", func(tell report) {
			_, dropped := of.Subscribers()
			tell(float64(dropped))
		}),
	)
}

func observeAuthentication(meter metric.Meter, stats func() clientauth.Stats) error {
	return errors.Join(
		counter(meter, "grantor.client.secrets", "{secret}",
			"Client secrets that were checked: generated ones, chosen ones by a slow hash, and chosen ones that were remembered to be right.",
			func(tell report) {
				s := stats()
				for kind, checks := range map[string]clientauth.Checks{
					"generated": s.Generated, "chosen": s.Chosen, "remembered": {Right: s.Remembered},
				} {
					tell(float64(checks.Right), attribute.String("kind", kind), attribute.String("result", "right"))
					tell(float64(checks.Wrong), attribute.String("kind", kind), attribute.String("result", "wrong"))
				}
			}),
		gauge(meter, "grantor.argon2id.queue.length", "{request}", "Requests that wait for a slow hash or compute one.", func(tell report) {
			tell(float64(stats().Queued))
		}),
		gauge(meter, "grantor.argon2id.queue.limit", "{request}", "Requests that may wait for a slow hash or compute one.", func(tell report) {
			tell(float64(stats().Places))
		}),
		gauge(meter, "grantor.argon2id.running", "{request}", "Slow hashes under way.", func(tell report) {
			tell(float64(stats().Running))
		}),
		counter(meter, "grantor.argon2id.rejected", "{request}", "Requests that found no place in the queue for slow hashes.", func(tell report) {
			tell(float64(stats().Rejected))
		}),
	)
}

func observeKeys(meter metric.Meter, ring *keys.Ring, now func() time.Time) error {
	type group struct {
		algorithm jwks.Algorithm
		state     keys.State
	}
	return errors.Join(
		gauge(meter, "grantor.key.age", "s", "Time since the signing key was made; of several in one state the oldest counts.", func(tell report) {
			oldest := make(map[group]time.Duration)
			for _, key := range ring.List() {
				g := group{key.Public.Algorithm(), key.State}
				oldest[g] = max(oldest[g], now().Sub(key.Created))
			}
			for g, age := range oldest {
				tell(age.Seconds(), attribute.String("alg", string(g.algorithm)), attribute.String("state", string(g.state)))
			}
		}),
		gauge(meter, "grantor.key.rotation.remaining", "s", "Time until another key signs; below zero the rotation is overdue.", func(tell report) {
			for _, algorithm := range ring.Algorithms() {
				tell(ring.NextRotation(algorithm).Sub(now()).Seconds(), attribute.String("alg", string(algorithm)))
			}
		}),
	)
}

// CertificateRemaining publishes how long the certificate of the REST and gRPC ports is still valid.
func CertificateRemaining(meter metric.Meter, end func() time.Time) error {
	return gauge(meter, "grantor.tls.certificate.remaining", "s", "Time until the certificate of the REST and gRPC ports ends.", func(tell report) {
		tell(time.Until(end()).Seconds())
	})
}

// BuildInfo publishes what program this is.
func BuildInfo(meter metric.Meter, version, revision, goVersion string) error {
	return gauge(meter, "grantor.build.info", "", "Always 1; its attributes say which build this is.", func(tell report) {
		tell(1, attribute.String("version", version), attribute.String("revision", revision), attribute.String("go_version", goVersion))
	})
}

func lookups(tell report, cache string, count func() (hits, misses uint64)) {
	hits, misses := count()
	tell(float64(hits), attribute.String("cache", cache), attribute.String("result", "hit"))
	tell(float64(misses), attribute.String("cache", cache), attribute.String("result", "miss"))
}

func truth(so bool) float64 {
	if so {
		return 1
	}
	return 0
}

func gauge(meter metric.Meter, name, unit, description string, observe func(report)) error {
	_, err := meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description), callback(observe))
	return err
}

func counter(meter metric.Meter, name, unit, description string, observe func(report)) error {
	_, err := meter.Float64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description), callback(observe))
	return err
}

func callback(observe func(report)) metric.Float64ObservableOption {
	return metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
		observe(func(value float64, attributes ...attribute.KeyValue) {
			o.Observe(value, metric.WithAttributes(attributes...))
		})
		return nil
	})
}
