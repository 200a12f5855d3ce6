package token_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// countingKeys counts how often a signature is checked.
type countingKeys struct {
	mu    sync.Mutex
	set   *jwks.Set
	finds int
}

func (k *countingKeys) Find(ctx context.Context, id string) (jwks.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.finds++
	return k.set.Find(ctx, id)
}

func (k *countingKeys) Trusts(key jwks.Key) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Trusts(key)
}

type cacheTest struct {
	*token.Cache

	keys *countingKeys
	now  time.Time
}

func newCacheTest(t *testing.T) *cacheTest {
	c := &cacheTest{keys: &countingKeys{set: jwks.NewSet(signerFor(jwks.ES256).Public())}, now: issued.Add(time.Minute)}
	verifier := newVerifier()
	verifier.Keys, verifier.Now = c.keys, func() time.Time { return c.now }
	var err error
	if c.Cache, err = token.NewCache(verifier, 100); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cacheTest) expect(t *testing.T, raw string, want error, finds int) {
	t.Helper()
	got, err := verify(c, raw)
	if !errors.Is(err, want) || (err == nil) != (got != nil) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if c.keys.finds != finds {
		t.Errorf("%d signature checks, want %d", c.keys.finds, finds)
	}
}

func TestCacheHits(t *testing.T) {
	c := newCacheTest(t)
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	for range 3 {
		c.expect(t, good, nil, 1)
	}
	expectClaims(t, must.Get(verify(c, good)), claims())
	other := claims()
	other.ID = "id-2"
	c.expect(t, must.Get(signerFor(jwks.ES256).Sign(other)), nil, 2)
	if hits, misses := c.Lookups(); hits != 3 || misses != 2 {
		t.Errorf("%d hits and %d misses, want 3 and 2", hits, misses)
	}
}

func TestCacheExpires(t *testing.T) {
	c := newCacheTest(t)
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	c.expect(t, good, nil, 1)
	c.now = issued.Add(time.Hour - 1)
	c.expect(t, good, nil, 1)
	c.now = issued.Add(time.Hour)
	c.expect(t, good, token.ErrExpired, 1)
	// The clock was set back: the token, which was valid before, is not valid yet.
	c.now = issued.Add(-31 * time.Second)
	c.expect(t, good, token.ErrNotYet, 1)
}

func TestCacheKeyWithdrawn(t *testing.T) {
	c := newCacheTest(t)
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	c.expect(t, good, nil, 1)
	c.keys.set = jwks.NewSet(signerFor(jwks.EdDSA).Public())
	c.expect(t, good, token.ErrKey, 2)
	c.expect(t, good, token.ErrKey, 3)
	c.keys.set = jwks.NewSet(signerFor(jwks.ES256).Public())
	c.expect(t, good, nil, 4)
	c.expect(t, good, nil, 4)
}

func TestCacheKeepsNoRefusals(t *testing.T) {
	c := newCacheTest(t)
	ahead := claims()
	ahead.IssuedAt = c.now.Add(time.Minute)
	raw := must.Get(signerFor(jwks.ES256).Sign(ahead))
	c.expect(t, raw, token.ErrNotYet, 1)
	c.expect(t, raw, token.ErrNotYet, 2)
	c.now = c.now.Add(time.Minute)
	c.expect(t, raw, nil, 3)
	c.expect(t, raw, nil, 3)
}

// Another spelling of a cached token is another token.
func TestCacheSpelling(t *testing.T) {
	c := newCacheTest(t)
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	c.expect(t, good, nil, 1)
	for _, raw := range []string{good + "=", good + "\n", " " + good, good[:len(good)-1], strings.ToUpper(good)} {
		c.expect(t, raw, token.ErrMalformed, 1)
	}
}

func TestCacheOversize(t *testing.T) {
	c := newCacheTest(t)
	c.expect(t, strings.Repeat("a", token.MaxSize+1), token.ErrMalformed, 0)
}

func TestCacheSize(t *testing.T) {
	for _, size := range []int{0, -1} {
		if _, err := token.NewCache(newVerifier(), size); err == nil {
			t.Errorf("a cache of %d tokens: got no error", size)
		}
	}
}

func TestCacheConcurrently(t *testing.T) {
	c := newCacheTest(t)
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				if got, err := verify(c, good); err != nil || got.ClientID != "billing" {
					t.Errorf("got %v, %v", got, err)
				}
			}
		})
	}
	group.Wait()
}
