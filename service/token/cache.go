package token

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/jwks"
)

// Cache is a [Verifier] that remembers the tokens it has verified, so that a token seen again costs a hash rather than
// a signature check. What can change after a signature was checked is checked on every call: the token's times,
// whether it was revoked, and that its key is still trusted. Refusals are not remembered. It may be used by several goroutines.
type Cache struct {
	verifier *Verifier
	// verified has SHA-256 of the token → what it says. Hashing keeps bearer tokens out of the heap.
	verified *otter.Cache[[sha256.Size]byte, entry]

	hits, misses atomic.Uint64
}

type entry struct {
	claims *Claims
	key    jwks.Key
}

// NewCache makes a cache of at most size tokens over verifier.
func NewCache(verifier *Verifier, size int) (*Cache, error) {
	if size <= 0 {
		// The cache below would take it as no bound at all.
		return nil, fmt.Errorf("a cache of %d tokens", size)
	}
	verified, err := otter.New(&otter.Options[[sha256.Size]byte, entry]{
		MaximumSize: size,
		// The cache tidies up on whose call makes that necessary. A goroutine for it, as by default, costs each new token
		// a twentieth of its verification.
		Executor: func(task func()) { task() },
	})
	if err != nil {
		return nil, err
	}
	return &Cache{verifier: verifier, verified: verified}, nil
}

// Verify does what [Verifier.Verify] does.
func (c *Cache) Verify(ctx context.Context, raw string) (*Claims, error) {
	if len(raw) > MaxSize {
		return nil, fail(ErrMalformed, "%d bytes", len(raw))
	}
	// The usual token is copied to the stack, as a conversion would not.
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

// Lookups counts the tokens that had been verified before, and those whose signature had to be checked.
func (c *Cache) Lookups() (hits, misses uint64) { return c.hits.Load(), c.misses.Load() }
