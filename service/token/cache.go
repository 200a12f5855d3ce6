package token

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/jwks"
)

// Cache is a [Verifier] that caches the tokens it has verified, so that a token seen again costs a hash instead of a
// signature check. What can change after that check is checked on every call: the token's times, whether it was
// revoked, and whether its key is still trusted. Refusals are not cached. A Cache is safe for concurrent use by
// multiple goroutines.
type Cache struct {
	verifier *Verifier
	// verified is keyed by the SHA-256 of the token. Hashing keeps bearer tokens out of the heap.
	verified *otter.Cache[[sha256.Size]byte, entry]

	hits, misses atomic.Uint64
}

type entry struct {
	claims *Claims
	key    jwks.Key
}

// NewCache returns a cache of at most size tokens over verifier. The size must be positive.
func NewCache(verifier *Verifier, size int) (*Cache, error) {
	if size <= 0 {
		// otter would treat it as unlimited.
		return nil, fmt.Errorf("a cache of %d tokens: the size must be positive", size)
	}
	verified, err := otter.New(&otter.Options[[sha256.Size]byte, entry]{
		MaximumSize: size,
		// Maintenance runs in the goroutine of the call that makes it necessary. A goroutine for it, which is the
		// default, would add a twentieth to the verification of each new token.
		Executor: func(task func()) { task() },
	})
	if err != nil {
		return nil, err
	}
	return &Cache{verifier: verifier, verified: verified}, nil
}

// Verify returns what [Verifier.Verify] returns.
func (c *Cache) Verify(ctx context.Context, raw string) (*Claims, error) {
	if len(raw) > MaxSize {
		return nil, fail(ErrMalformed, "%d bytes", len(raw))
	}
	// A token of the usual size is copied to the stack, which a conversion would not do.
	hash := sha256.Sum256(append(make([]byte, 0, 1024), raw...))
	if seen, ok := c.verified.GetIfPresent(hash); ok {
		if c.verifier.Keys.Trusts(seen.key) {
			c.hits.Add(1)
			if err := c.verifier.CheckCurrent(seen.claims); err != nil {
				return nil, err
			}
			return seen.claims, nil
		}
		c.verified.Invalidate(hash)
	}
	c.misses.Add(1)
	claims, key, err := c.verifier.verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	c.verified.Set(hash, entry{claims, key})
	return claims, nil
}

// Lookups returns how often [Cache.Verify] found a token in the cache, and how often it had to check a signature.
func (c *Cache) Lookups() (hits, misses uint64) { return c.hits.Load(), c.misses.Load() }
