package token

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
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
	hash := sum(raw)
	if claims, ok, err := c.lookUp(hash); ok {
		return claims, err
	}
	return c.verify(ctx, raw, hash)
}

// sum returns the key of a token in a cache.
func sum(raw string) [sha256.Size]byte {
	// A token of the usual size is copied to the stack, which a conversion would not do.
	return sha256.Sum256(append(make([]byte, 0, 1024), raw...))
}

// lookUp returns the result of a token that was verified before; ok is false if it was not.
func (c *Cache) lookUp(hash [sha256.Size]byte) (_ *Claims, ok bool, err error) {
	seen, ok := c.verified.GetIfPresent(hash)
	if !ok {
		return nil, false, nil
	}
	if !c.verifier.Keys.Trusts(seen.key) {
		c.verified.Invalidate(hash)
		return nil, false, nil
	}
	c.hits.Add(1)
	if err := c.verifier.CheckCurrent(seen.claims); err != nil {
		return nil, true, err
	}
	return seen.claims, true, nil
}

// verify verifies a token that is not in the cache.
func (c *Cache) verify(ctx context.Context, raw string, hash [sha256.Size]byte) (*Claims, error) {
	c.misses.Add(1)
	claims, key, err := c.verifier.verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	c.verified.Set(hash, entry{claims, key})
	return claims, nil
}

// Issuer returns the issuer whose tokens the cache contains.
func (c *Cache) Issuer() string { return c.verifier.Issuer }

// Caches verifies the tokens of several issuers, each with its own [Cache].
type Caches []*Cache

// Verify returns what [Verifier.Verify] of the token's issuer returns. The "iss" of a token selects the verifier before
// the signature is checked, and the verifier then checks it like everything else.
func (all Caches) Verify(ctx context.Context, raw string) (*Claims, error) {
	if len(raw) > MaxSize {
		return nil, fail(ErrMalformed, "%d bytes", len(raw))
	}
	hash := sum(raw)
	for _, c := range all {
		if claims, ok, err := c.lookUp(hash); ok {
			return claims, err
		}
	}
	issuer, err := unverifiedIssuer(raw)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.verifier.Issuer == issuer {
			return c.verify(ctx, raw, hash)
		}
	}
	return nil, fail(ErrIssuer, "%.100q", issuer)
}

// unverifiedIssuer returns the "iss" of a token whose signature has not been checked.
func unverifiedIssuer(raw string) (issuer string, err error) {
	signed, _, ok := jws.CutLast(raw)
	_, payload64, ok2 := strings.Cut(signed, ".")
	if !ok || !ok2 {
		return "", fail(ErrMalformed, "not three parts")
	}
	payload, err := decode(payload64)
	if err != nil {
		return "", err
	}
	claims, err := jws.ParseClaims(payload)
	if err != nil || !jws.String(claims["iss"], &issuer) {
		return "", fail(ErrMalformed, "the claim iss is missing or not a string")
	}
	return issuer, nil
}

// Lookups returns how often [Cache.Verify] found a token in the cache, and how often it had to check a signature.
func (c *Cache) Lookups() (hits, misses uint64) { return c.hits.Load(), c.misses.Load() }
