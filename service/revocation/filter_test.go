package revocation_test

import (
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// TestFilter checks that every revoked token is found, while the list grows and after a sweep, and that the filter has
// few false positives.
func TestFilter(t *testing.T) {
	const many, each = 20_000, 500
	l := revocation.NewList()
	now := time.Unix(1_900_000_000, 0)
	revoked := make([]token.ID, many)
	expectFound := func(from int) {
		t.Helper()
		for _, id := range revoked[from:] {
			if id != (token.ID{}) && !l.Contains(id) {
				t.Fatalf("%s is not found on the list of %d", id, l.Len())
			}
		}
		falsePositives := 0
		for range 1000 {
			if l.MayContain(token.NewID()) {
				falsePositives++
			}
		}
		if falsePositives > 120 {
			t.Errorf("%d false positives of 1000 tokens that are not on the list of %d, want at most 120", falsePositives, l.Len())
		}
	}
	for i := range revoked {
		revoked[i] = token.NewID()
		// The first half expires after one hour, the second after two.
		l.Apply(revocation.Change{Kind: revocation.TokenRevoked, ID: revoked[i].String(), At: now.Add(time.Duration(1+i/(many/2)) * time.Hour)})
		if i%each == 0 {
			expectFound(0)
		}
	}
	l.Sweep(now.Add(90*time.Minute), time.Hour)
	if l.Len() != many/2 {
		t.Fatalf("%d tokens are left, want %d", l.Len(), many/2)
	}
	expectFound(many / 2)
}
