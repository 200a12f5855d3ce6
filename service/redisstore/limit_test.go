package redisstore_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
)

func keyNumber(n int) (key limit.Key) {
	binary.BigEndian.PutUint64(key[:], uint64(n))
	return key
}

func (k *kit) expectSums(t *testing.T, w limit.Window, counts []limit.Count, want ...int64) {
	t.Helper()
	sums, err := k.AddCounts(t.Context(), w, counts)
	if err != nil || !slices.Equal(sums, want) {
		t.Errorf("%v of %v: got %v, %v, want %v", counts, w, sums, err, want)
	}
}

func testCounts(t *testing.T, k *kit) {
	w := limit.Window{Kind: "failures", Period: time.Minute, Number: 7}
	a, b := keyNumber(1), keyNumber(2)
	k.expectSums(t, w, []limit.Count{{Key: a, N: 2}, {Key: b, N: 1}}, 2, 1)
	k.expectSums(t, w, []limit.Count{{Key: b, N: 4}, {Key: a, N: 1}}, 5, 3)
	for _, other := range []limit.Window{
		{Kind: "failures", Period: time.Minute, Number: 8}, {Kind: "failures", Period: time.Hour, Number: 7},
		{Kind: "tokens", Period: time.Minute, Number: 7},
	} {
		k.expectSums(t, other, []limit.Count{{Key: a, N: 1}}, 1)
	}
	left, err := k.client.PTTL(t.Context(), k.base+"limit:failures:60:7").Result()
	if err != nil || left <= time.Minute || left > 2*time.Minute {
		t.Errorf("a window of a minute is kept for %s, %v, want two minutes", left, err)
	}
}

// testCountsBounded checks that a full window stores no further key, and still counts those that it has.
func testCountsBounded(t *testing.T, k *kit) {
	w := limit.Window{Kind: "failures", Period: time.Minute, Number: 7}
	const batch = 1000
	for first := 0; first < redisstore.MaxCountedKeys; first += batch {
		counts := make([]limit.Count, batch)
		for i := range counts {
			counts[i] = limit.Count{Key: keyNumber(first + i), N: 1}
		}
		_, err := k.AddCounts(t.Context(), w, counts)
		must.Succeed(t, err)
	}
	beyond := keyNumber(redisstore.MaxCountedKeys)
	for range 2 {
		k.expectSums(t, w, []limit.Count{{Key: beyond, N: 3}}, 3)
	}
	k.expectSums(t, w, []limit.Count{{Key: keyNumber(0), N: 1}}, 2)
	if n, err := k.client.HLen(t.Context(), k.base+"limit:failures:60:7").Result(); err != nil || n != redisstore.MaxCountedKeys {
		t.Errorf("the window has %d keys, %v", n, err)
	}
}
