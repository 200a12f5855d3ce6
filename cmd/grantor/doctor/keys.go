package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
)

// checkRing checks the signing keys.
func (d *doctor) checkRing(ctx context.Context) error {
	sealed, _, err := d.store.LoadRing(ctx)
	d.checkf("key.unreadable", errors.Is(err, redisstore.ErrRing), "%v", err)
	if errors.Is(err, redisstore.ErrRing) {
		return nil
	}
	if err != nil {
		return err
	}
	d.checkf("key.ring", sealed == nil, "there is none under %s", d.store.Name())
	d.checkf("key.unchecked", d.sealer == nil, "no key-encryption key is given")
	if sealed == nil || d.sealer == nil {
		return nil
	}
	d.ring, err = keys.Inspect(ctx, d.store, d.sealer, registry.MaxLifetime, d.now())
	d.checkf("key.seal", errors.Is(err, keys.ErrSealed), "%v", err)
	if err != nil {
		d.checkf("record.unreadable", !errors.Is(err, keys.ErrSealed), "%v", err)
		return nil
	}
	if d.ring == nil {
		return nil // it was deleted concurrently
	}
	d.checkf("key.previous", d.ring.Previous, "only the previous key opens the ring")
	d.checkRotation()
	d.named("replica.keys", d.findings(func(r *heartbeat.Status) string { return d.difference(r.Published) }))
	return nil
}

// checkRotation checks that each algorithm has a key, and that the keys rotate.
func (d *doctor) checkRotation() {
	var rotation time.Duration
	var algorithms []string
	for _, r := range d.live {
		if reported, err := time.ParseDuration(r.Settings["key-rotation"]); err == nil {
			rotation = max(rotation, reported)
		}
		for algorithm := range strings.SplitSeq(r.Settings["signing-algorithms"], ",") {
			if !slices.Contains(algorithms, algorithm) && algorithm != "" {
				algorithms = append(algorithms, algorithm)
			}
		}
	}
	if rotation == 0 {
		rotation = d.keyRotation // without a replica, only the settings here are known
	}
	var overdue, missing []string
	signing := make(map[jwks.Algorithm]bool)
	for _, key := range d.ring.Keys {
		if key.State != keys.Active {
			continue
		}
		signing[key.Public.Algorithm()] = true
		if key.Retires.IsZero() && d.now().After(key.Activates.Add(rotation)) {
			overdue = append(overdue, fmt.Sprintf("%s of %s signs since %s", key.Public.ID(), key.Public.Algorithm(), formatTime(key.Activates)))
		}
	}
	for _, algorithm := range algorithms {
		if !signing[jwks.Algorithm(algorithm)] {
			missing = append(missing, fmt.Sprintf("%.20q", algorithm))
		}
	}
	d.named("key.overdue", overdue)
	d.named("key.missing", missing)
}

// difference describes how published keys differ from those of the ring, or returns an empty string. A key that was
// just created may not be known everywhere yet.
func (d *doctor) difference(published []string) string {
	const propagation = 30 * time.Second
	var lacks, has []string
	known := make(map[string]bool)
	for _, key := range d.ring.Keys {
		known[key.Public.ID()] = true
		if !slices.Contains(published, key.Public.ID()) && d.now().Sub(key.Created) > propagation {
			lacks = append(lacks, key.Public.ID())
		}
	}
	for _, id := range published {
		if !known[id] {
			has = append(has, fmt.Sprintf("%.50q", id))
		}
	}
	var words []string
	if len(lacks) > 0 {
		words = append(words, "it lacks "+strings.Join(lacks, ", "))
	}
	if len(has) > 0 {
		words = append(words, "it has "+strings.Join(has[:min(len(has), maxNamed)], ", ")+", which the ring does not have")
	}
	return strings.Join(words, "; ")
}
