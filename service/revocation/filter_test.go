package revocation_test

import (
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// TestFilter finds every revoked token while the list grows and after it was swept, and looks in vain for few others.
func TestFilter(t *testing.T) {
	const many, each = 20_000, 500
	l := revocation.NewList()
	now := time.Unix(1_900_000_000, 0)
	revoked := make([]token.ID, many)
	wanted := func(from int) {
		t.Helper()
		for _, id := range revoked[from:] {
			if id != (token.ID{}) && !l.Has(id) {
				t.Fatalf("%s is not found among %d", id, l.Len())
			}
		}
		inVain := 0
		for range 1000 {
			if l.MayHave(token.NewID()) {
				inVain++
			}
		}
		if inVain > 120 {
			t.Errorf("of 1000 tokens that are not on the list of %d, %d are looked for in it", l.Len(), inVain)
		}
	}
	for i := range revoked {
		revoked[i] = token.NewID()
		// Half of them end soon.
		l.Apply(revocation.Change{Kind: revocation.TokenRevoked, ID: revoked[i].String(), At: now.Add(time.Duration(1+i/(many/2)) * time.Hour)})
		if i%each == 0 {
			wanted(0)
		}
	}
	l.Sweep(now.Add(90*time.Minute), time.Hour)
	if l.Len() != many/2 {
		t.Fatalf("%d are left, want %d", l.Len(), many/2)
	}
	wanted(many / 2)
}
