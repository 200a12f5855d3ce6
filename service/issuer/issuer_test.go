package issuer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/issuer"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// now is a time in whole seconds.
var now = time.Unix(1_800_000_000, 0)

// publisher records what is published, and fails with err.
type publisher struct {
	published []revocation.Change
	err       error
}

func (p *publisher) Publish(_ context.Context, changes ...revocation.Change) error {
	p.published = append(p.published, changes...)
	return p.err
}

func (p *publisher) Confirm(context.Context, ...revocation.Change) error { return p.err }

func newIssuer(t *testing.T, p *publisher) (*issuer.Issuer, *revocation.Ledger) {
	t.Helper()
	ledger := revocation.NewLedger()
	i, err := issuer.New(issuer.Config{
		Name: must.Get(oauth.ParseIssuer("https://issuer.test")), Feed: revocation.NewTail(nil, nil), Ledger: ledger, Publisher: p,
		MaxStaleness: time.Minute, CachedTokens: 1, Now: func() time.Time { return now.Add(300 * time.Millisecond) },
	})
	must.Succeed(t, err)
	return i, ledger
}

// TestRevokeAll revokes within one second: each moment lies a second after the one before, up to the maximum.
func TestRevokeAll(t *testing.T) {
	const maxAhead = 3
	p := &publisher{}
	i, ledger := newIssuer(t, p)
	client := &registry.Client{ID: must.Get(oauth.ParseClientID("svc"))}
	for n := range maxAhead {
		must.Succeed(t, i.RevokeAll(t.Context(), client, maxAhead*time.Second))
		want := revocation.Change{Kind: revocation.ClientRevoked, ID: "svc", At: now.Add(time.Duration(n+1) * time.Second)}
		if got := p.published[n]; got != want {
			t.Errorf("published %v, want %v", got, want)
		}
		if got := ledger.List.RevokedUntil("svc"); !got.Equal(want.At) {
			t.Errorf("in effect until %s, want %s", got, want.At)
		}
	}
	var refusal *oauth.Error
	err := i.RevokeAll(t.Context(), client, maxAhead*time.Second)
	if !errors.As(err, &refusal) || !refusal.Limited || refusal.RetryAfter != time.Second || len(p.published) != maxAhead {
		t.Errorf("beyond the maximum: got %#v and %d changes", err, len(p.published))
	}
}

// TestRevokeAllFails cannot publish: the caller must not take the revocation for recorded, and it is not in effect.
func TestRevokeAllFails(t *testing.T) {
	p := &publisher{err: revocation.ErrNotReplicated}
	i, ledger := newIssuer(t, p)
	client := &registry.Client{ID: must.Get(oauth.ParseClientID("svc"))}
	var refusal *oauth.Error
	err := i.RevokeAll(t.Context(), client, time.Minute)
	if !errors.As(err, &refusal) || refusal.Code != oauth.TemporarilyUnavailable || !errors.Is(err, p.err) {
		t.Errorf("got %v, want it to be unavailable because of %v", err, p.err)
	}
	if got := ledger.List.RevokedUntil("svc"); !got.IsZero() && !got.Before(now) {
		t.Errorf("in effect until %s", got)
	}
}

// TestInvalidToken checks that neither introspecting nor revoking an invalid token is an error.
func TestInvalidToken(t *testing.T) {
	p := &publisher{}
	i, _ := newIssuer(t, p)
	client := &registry.Client{ID: must.Get(oauth.ParseClientID("svc"))}
	if claims, err := i.Introspect(t.Context(), client, "no token"); claims != nil || err != nil {
		t.Errorf("introspecting: got %v, %v", claims, err)
	}
	if claims, err := i.Revoke(t.Context(), client, "no token"); claims != nil || err != nil || len(p.published) > 0 {
		t.Errorf("revoking: got %v, %v and published %v", claims, err, p.published)
	}
}

// TestFresh has an issuer that has not read the feed yet.
func TestFresh(t *testing.T) {
	i, _ := newIssuer(t, &publisher{})
	var refusal *oauth.Error
	if err := i.Fresh(); !errors.As(err, &refusal) || refusal.Code != oauth.TemporarilyUnavailable || refusal.Reason != oauth.StaleKnowledge {
		t.Errorf("got %v, want stale knowledge", err)
	}
	if i.Ready() == nil {
		t.Error("the issuer reports that it is ready")
	}
}
