package revocation_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is a time in whole seconds.
var start = time.Unix(1_800_000_000, 0)

// maxLifetime is the maximum lifetime of a token.
const maxLifetime = 24 * time.Hour

// mint creates verified claims, with a key of its own.
type mint struct {
	signer   *token.Signer
	verifier *token.Verifier
}

func newMint(t testing.TB) *mint {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must.Succeed(t, err)
	signer, err := token.NewSigner(jwks.ES256, key)
	must.Succeed(t, err)
	set := jwks.NewSet(signer.Public())
	return &mint{signer, &token.Verifier{Issuer: "https://issuer.test", Keys: set, Now: func() time.Time { return start }}}
}

func (m *mint) kid() string { return m.signer.Public().ID() }

// claims returns the claims of a token that expires an hour after start.
func (m *mint) claims(t testing.TB, client, id string, issued time.Time) *token.Claims {
	t.Helper()
	scopes, err := oauth.ParseScopes("a")
	must.Succeed(t, err)
	raw, err := m.signer.Sign(&token.Claims{
		Issuer: m.verifier.Issuer, Subject: client, ClientID: client, Audience: []string{"urn:a"}, Scope: scopes,
		IssuedAt: issued, ExpiresAt: start.Add(time.Hour), ID: id,
	})
	must.Succeed(t, err)
	claims, err := m.verifier.Verify(context.Background(), raw)
	must.Succeed(t, err)
	return claims
}

func tokenRevoked(id token.ID, end time.Time) revocation.Change {
	return revocation.Change{Kind: revocation.TokenRevoked, ID: id.String(), At: end}
}

func clientRevoked(id string, until time.Time) revocation.Change {
	return revocation.Change{Kind: revocation.ClientRevoked, ID: id, At: until}
}

func keyRevoked(id string, at time.Time) revocation.Change {
	return revocation.Change{Kind: revocation.KeyRevoked, ID: id, At: at}
}

// fakeLog is a log in memory. Like a store, it returns at most two entries at once and waits if there are none.
type fakeLog struct {
	mu      sync.Mutex
	entries []revocation.Entry
	err     error
	reads   int
	// time is that of the next entry. A loss sets it back, as if the clock of the new store were behind that of the lost
	// one.
	time uint64
	// allowed is the number of reads that may begin; negative means any number.
	allowed int
	// changed is closed and replaced after each change.
	changed chan struct{}
	// skimmed are the entries that Skim returns, two at once; skimErr is its error behind them.
	skimmed []revocation.Entry
	skimErr error
}

func newLog() *fakeLog { return &fakeLog{time: 1000, allowed: -1, changed: make(chan struct{})} }

// change calls f and wakes the waiting reads.
func (l *fakeLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *fakeLog) add(ids ...string) {
	l.change(func() {
		for _, id := range ids {
			cursor := revocation.Cursor{Time: l.time, Sequence: uint64(len(l.entries))}
			l.entries = append(l.entries, revocation.Entry{
				Cursor: cursor, Change: revocation.Change{Kind: revocation.ClientChanged, ID: id},
			})
		}
	})
}

func (l *fakeLog) fail(err error) { l.change(func() { l.err = err }) }

// lose removes all entries.
func (l *fakeLog) lose() {
	l.change(func() {
		l.time--
		l.entries = nil
	})
}

// allow allows n more reads.
func (l *fakeLog) allow(n int) { l.change(func() { l.allowed = n }) }

// begin waits until a read may begin.
func (l *fakeLog) begin(ctx context.Context) {
	for {
		l.mu.Lock()
		changed, allowed := l.changed, l.allowed
		if allowed > 0 {
			l.allowed--
		}
		l.mu.Unlock()
		if allowed != 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (l *fakeLog) Read(ctx context.Context, after revocation.Cursor, wait time.Duration) ([]revocation.Entry, bool, error) {
	l.begin(ctx)
	timeout := time.After(wait)
	for first := true; ; first = false {
		l.mu.Lock()
		if first {
			l.reads++
		}
		err, changed := l.err, l.changed
		i := slices.IndexFunc(l.entries, func(e revocation.Entry) bool { return e.Cursor.Compare(after) > 0 })
		var rest []revocation.Entry
		if i >= 0 {
			rest = slices.Clone(l.entries[i:])
		}
		if after != (revocation.Cursor{}) && !slices.ContainsFunc(l.entries, func(e revocation.Entry) bool { return e.Cursor == after }) {
			err = cmp.Or(err, revocation.ErrGap)
		}
		l.mu.Unlock()
		const maxEntries = 2
		switch {
		case err != nil:
			return nil, false, err
		case len(rest) > 0:
			return rest[:min(maxEntries, len(rest))], len(rest) >= maxEntries, nil
		case wait == 0:
			return nil, false, nil
		}
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-timeout:
			return nil, false, nil
		case <-changed:
		}
	}
}

func (l *fakeLog) End(context.Context) (revocation.Cursor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || len(l.entries) == 0 {
		return revocation.Cursor{}, l.err
	}
	return l.entries[len(l.entries)-1].Cursor, nil
}

func (l *fakeLog) Skim(_ context.Context, after revocation.Cursor) ([]revocation.Entry, revocation.Cursor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.skimmed
	for len(rest) > 0 && rest[0].Cursor.Compare(after) <= 0 {
		rest = rest[1:]
	}
	if rest = rest[:min(2, len(rest))]; len(rest) == 0 {
		return nil, after, l.skimErr
	}
	return rest, rest[len(rest)-1].Cursor, nil
}

func (l *fakeLog) Checkpoint(context.Context) error { return nil }
