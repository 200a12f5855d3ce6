package redisstore_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/must"
)

// testAssertions checks that an assertion is used once, and that its record ends with it.
func testAssertions(t *testing.T, k *kit) {
	ctx := t.Context()
	until := time.Now().Add(time.Minute)
	one, two := sha256.Sum256([]byte("1")), sha256.Sum256([]byte("2"))
	for _, step := range []struct {
		id   [sha256.Size]byte
		want bool
	}{{one, true}, {one, false}, {two, true}, {one, false}, {two, false}} {
		if first, err := k.Use(ctx, step.id, until); err != nil || first != step.want {
			t.Errorf("%x: got %v, %v, want %v", step.id[:2], first, err, step.want)
		}
	}
	keys := must.Get(k.client.Keys(ctx, k.base+"assertion:*").Result())
	if len(keys) != 2 {
		t.Errorf("got the keys %q, want 2", keys)
	}
	for _, key := range keys {
		if left := must.Get(k.client.TTL(ctx, key).Result()); left <= 50*time.Second || left > time.Minute {
			t.Errorf("%s is kept for %s, want a minute", key, left)
		}
	}
}
