package revocation_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// TestList applies changes and looks up one token: of client "a", issued at start, signed by the key of the mint.
func TestList(t *testing.T) {
	m := newMint(t)
	id, other := token.NewID(), token.NewID()
	for _, c := range []struct {
		name    string
		changes []revocation.Change
		revoked bool
		len     int
	}{
		{"nothing", nil, false, 0},
		{"the token", []revocation.Change{tokenRevoked(id, start)}, true, 1},
		{"the token twice", []revocation.Change{tokenRevoked(id, start), tokenRevoked(id, start.Add(1))}, true, 1},
		{"another token", []revocation.Change{tokenRevoked(other, start)}, false, 1},
		{"a malformed id", []revocation.Change{{Kind: revocation.TokenRevoked, ID: "x", At: start}}, false, 0},
		{"the client, that second", []revocation.Change{clientRevoked("a", start)}, true, 1},
		{"the client, a second before", []revocation.Change{clientRevoked("a", start.Add(-time.Second))}, false, 1},
		{"the client, later", []revocation.Change{clientRevoked("a", start.Add(time.Hour))}, true, 1},
		{"the client, before and after", []revocation.Change{clientRevoked("a", start.Add(-time.Second)), clientRevoked("a", start)}, true, 1},
		{"the client, after and before", []revocation.Change{clientRevoked("a", start), clientRevoked("a", start.Add(-time.Second))}, true, 1},
		{"another client", []revocation.Change{clientRevoked("A", start)}, false, 1},
		{"the key", []revocation.Change{keyRevoked(m.kid(), start.Add(-time.Hour))}, true, 1},
		{"another key", []revocation.Change{keyRevoked("x", start)}, false, 1},
		{"a client named like the key", []revocation.Change{clientRevoked(m.kid(), start)}, false, 1},
		{"a key named like the client", []revocation.Change{keyRevoked("a", start)}, false, 1},
		{"other kinds", []revocation.Change{{Kind: revocation.ClientChanged, ID: "a", At: start}, {Kind: revocation.RingChanged}, {Kind: "later", ID: "a"}}, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := revocation.NewList()
			claims := m.claims(t, "a", id.String(), start)
			for _, change := range c.changes {
				l.Apply(change)
			}
			for _, change := range c.changes {
				if l.Apply(change) {
					t.Errorf("%v, applied again, changed the list", change)
				}
			}
			if got := l.Revoked(claims); got != c.revoked {
				t.Errorf("revoked: got %t, want %t", got, c.revoked)
			}
			if got := l.Len(); got != c.len {
				t.Errorf("got %d live revocations, want %d", got, c.len)
			}
		})
	}
}

// TestListApply checks what Apply reports.
func TestListApply(t *testing.T) {
	l := revocation.NewList()
	id := token.NewID()
	for i, c := range []struct {
		change  revocation.Change
		changed bool
	}{
		{tokenRevoked(id, start), true}, {tokenRevoked(id, start), false},
		{clientRevoked("a", start), true}, {clientRevoked("a", start.Add(-time.Second)), false}, {clientRevoked("a", start.Add(time.Second)), true},
		{keyRevoked("k", start), true}, {keyRevoked("k", start), false},
		{revocation.Change{Kind: revocation.TokenRevoked, ID: "short"}, false}, {revocation.Change{Kind: revocation.ResourcesChanged}, false},
	} {
		if got := l.Apply(c.change); got != c.changed {
			t.Errorf("%d: %v: got %t, want %t", i, c.change, got, c.changed)
		}
	}
	if got := l.RevokedUntil("a"); !got.Equal(start.Add(time.Second)) {
		t.Errorf("got %v, want the later time", got)
	}
	if got := l.RevokedUntil("k"); !got.IsZero() {
		t.Errorf("a client that is not revoked: got %v, want the zero time", got)
	}
}

// TestListSweep checks that an entry of each kind is removed when it concerns no live token, and not a second earlier.
func TestListSweep(t *testing.T) {
	m := newMint(t)
	id := token.NewID()
	for name, c := range map[string]struct {
		change revocation.Change
		last   time.Time // at which the revocation is still in effect
	}{
		"token":  {tokenRevoked(id, start), start},
		"client": {clientRevoked("a", start), start.Add(maxLifetime)},
		"key":    {keyRevoked(m.kid(), start), start.Add(maxLifetime)},
	} {
		t.Run(name, func(t *testing.T) {
			l := revocation.NewList()
			claims := m.claims(t, "a", id.String(), start)
			l.Apply(c.change)
			l.Sweep(c.last, maxLifetime)
			if !l.Revoked(claims) || l.Len() != 1 {
				t.Error("removed too early")
			}
			l.Sweep(c.last.Add(time.Second), maxLifetime)
			if l.Revoked(claims) || l.Len() != 0 {
				t.Error("not removed")
			}
			if !l.Apply(c.change) {
				t.Error("a removed entry is not added again")
			}
		})
	}
}

// naive is a straightforward implementation of the list. Its maps are keyed by ID.
type naive struct{ tokens, clients, keys map[string]time.Time }

func (n *naive) apply(c revocation.Change) bool {
	times := map[revocation.Kind]map[string]time.Time{
		revocation.TokenRevoked: n.tokens, revocation.ClientRevoked: n.clients, revocation.KeyRevoked: n.keys,
	}[c.Kind]
	at, known := times[c.ID]
	if known && (c.Kind == revocation.TokenRevoked || !c.At.After(at)) {
		return false
	}
	times[c.ID] = c.At
	return true
}

func (n *naive) sweep(now time.Time) {
	for _, times := range []map[string]time.Time{n.tokens, n.clients, n.keys} {
		for id, at := range times {
			end := at.Add(maxLifetime)
			if _, ok := n.tokens[id]; ok {
				end = at
			}
			if end.Before(now) {
				delete(times, id)
			}
		}
	}
}

// TestListModel applies random changes and sweeps to a list and to the naive one.
func TestListModel(t *testing.T) {
	m := newMint(t)
	random := rand.New(rand.NewPCG(1, 2))
	ids := make([]token.ID, 200)
	claims := make([]*token.Claims, len(ids))
	for i := range ids {
		ids[i] = token.NewID()
		claims[i] = m.claims(t, fmt.Sprint("client", i%7), ids[i].String(), start.Add(-time.Duration(i%50)*time.Minute))
	}
	l := revocation.NewList()
	n := &naive{make(map[string]time.Time), make(map[string]time.Time), make(map[string]time.Time)}
	now := start.Add(-maxLifetime)
	for step := range 20_000 {
		i := random.IntN(len(ids))
		at := now.Add(time.Duration(random.IntN(7200)-3600) * time.Second)
		var change revocation.Change
		switch random.IntN(20) {
		case 0:
			change = clientRevoked(claims[i].ClientID, at)
		case 1:
			change = keyRevoked(fmt.Sprint("key", i), at)
		case 2:
			now = now.Add(time.Duration(random.IntN(120)) * time.Second)
			l.Sweep(now, maxLifetime)
			n.sweep(now)
			continue
		default:
			change = tokenRevoked(ids[i], at)
		}
		if got, want := l.Apply(change), n.apply(change); got != want {
			t.Fatalf("step %d: %v: got changed %t, want %t", step, change, got, want)
		}
		if got, want := l.Len(), len(n.tokens)+len(n.clients)+len(n.keys); got != want {
			t.Fatalf("step %d: got %d live, want %d", step, got, want)
		}
		c := claims[random.IntN(len(claims))]
		_, want := n.tokens[c.ID]
		if until, ok := n.clients[c.ClientID]; ok && !c.IssuedAt.After(until) {
			want = true
		}
		if got := l.Revoked(c); got != want {
			t.Fatalf("step %d: revoked: got %t, want %t", step, got, want)
		}
	}
}

// TestListConcurrently looks tokens up during concurrent changes and sweeps. From the time that a live revocation is
// applied, every goroutine finds it.
func TestListConcurrently(t *testing.T) {
	m := newMint(t)
	l := revocation.NewList()
	const tokens = 500
	claims := make([]*token.Claims, tokens)
	for i := range claims {
		claims[i] = m.claims(t, fmt.Sprint("client", i), token.NewID().String(), start)
	}
	applied := make([]chan struct{}, tokens)
	for i := range applied {
		applied[i] = make(chan struct{})
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range claims {
				<-applied[i]
				if !l.Revoked(claims[i]) {
					t.Errorf("token %d is not found", i)
				}
			}
		})
	}
	done := make(chan struct{})
	group.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				l.Sweep(start, maxLifetime)
				l.Apply(clientRevoked("gone", start.Add(-maxLifetime-time.Second)))
			}
		}
	})
	for i, c := range claims {
		if i%2 == 0 {
			l.Apply(revocation.Change{Kind: revocation.TokenRevoked, ID: c.ID, At: c.ExpiresAt})
		} else {
			l.Apply(clientRevoked(c.ClientID, start))
		}
		close(applied[i])
	}
	close(done)
	group.Wait()
	l.Sweep(start, maxLifetime)
	if got := l.Len(); got != tokens {
		t.Errorf("got %d live, want %d", got, tokens)
	}
}
