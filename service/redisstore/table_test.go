package redisstore_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

func testResources(t *testing.T, k *kit) {
	ctx := t.Context()
	empty, err := k.Resources(ctx)
	must.Succeed(t, err)
	if len(empty.List()) != 0 || empty.Version() != 0 {
		t.Errorf("before the first save: got %v, version %d", empty.List(), empty.Version())
	}
	list := []registry.Resource{
		{
			ID: resourceID("https://b.internal"), Name: "B \"quoted\"", Scopes: scopes("b1 b2"),
			AccessTokenLifetime: 90 * time.Second, SigningAlg: jwks.RS256, RequireBoundTokens: registry.BindAny,
		},
		{ID: resourceID("urn:a")},
	}
	for i := range reflect.TypeFor[registry.Resource]().NumField() {
		if reflect.ValueOf(list[0]).Field(i).IsZero() {
			t.Errorf("the test leaves %s empty", reflect.TypeFor[registry.Resource]().Field(i).Name)
		}
	}
	must.Succeed(t, k.SaveResources(ctx, must.Get(registry.NewResources(0, list))))
	first, err := k.Resources(ctx)
	must.Succeed(t, err)
	if !reflect.DeepEqual(first.List(), list) || first.Version() == 0 {
		t.Errorf("got %+v in version %d, want %+v", first.List(), first.Version(), list)
	}
	if err := k.SaveResources(ctx, must.Get(registry.NewResources(0, nil))); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("created twice: got %v, want %v", err, registry.ErrConflict)
	}
	must.Succeed(t, k.SaveResources(ctx, must.Get(registry.NewResources(first.Version(), list[1:]))))
	if err := k.SaveResources(ctx, first); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("stale: got %v, want %v", err, registry.ErrConflict)
	}
	second, err := k.Resources(ctx)
	must.Succeed(t, err)
	if !reflect.DeepEqual(second.List(), list[1:]) || second.Version() == first.Version() {
		t.Errorf("got %+v in version %d after %d", second.List(), second.Version(), first.Version())
	}
	// Removing all resources leaves an empty table with a version.
	must.Succeed(t, k.SaveResources(ctx, must.Get(registry.NewResources(second.Version(), nil))))
	third, err := k.Resources(ctx)
	must.Succeed(t, err)
	if len(third.List()) != 0 || third.Version() == second.Version() {
		t.Errorf("got %+v in version %d after %d", third.List(), third.Version(), second.Version())
	}
}

func testUnreadableResources(t *testing.T, k *kit) {
	const whole = `{"format":1,"resources":[{"resource":"urn:a","scope":"a"},{"resource":"urn:b","scope":"b"}]}`
	for name, value := range map[string]string{
		"no JSON":             "x",
		"cut off":             whole[:50],
		"no format":           strings.Replace(whole, `"format":1,`, "", 1),
		"no URI":              strings.Replace(whole, "urn:a", "a", 1),
		"malformed scope":     strings.Replace(whole, `"scope":"a"`, `"scope":"é"`, 1),
		"one resource twice":  strings.Replace(whole, "urn:b", "urn:a", 1),
		"scope of two owners": strings.Replace(whole, `"scope":"b"`, `"scope":"a"`, 1),
		"unknown algorithm":   strings.Replace(whole, `"scope":"a"`, `"signing_alg":"none"`, 1),
		"unknown binding":     strings.Replace(whole, `"format":1,"resources":[{"resource":"urn:a","scope":"a"`, `"format":2,"resources":[{"resource":"urn:a","require_bound_tokens":"x"`, 1),
		"binding in format 1": strings.Replace(whole, `"scope":"a"`, `"require_bound_tokens":"any"`, 1),
		"lifetime too long":   strings.Replace(whole, `"scope":"a"`, `"access_token_lifetime":86401`, 1),
		"lifetime negative":   strings.Replace(whole, `"scope":"a"`, `"access_token_lifetime":-1`, 1),
		"lifetime overflows":  strings.Replace(whole, `"scope":"a"`, `"access_token_lifetime":18446744074`, 1),
	} {
		k.put(t, "resources", "1", whole)
		_, err := k.Resources(t.Context())
		must.Succeed(t, err)
		k.put(t, "resources", "1", value)
		if got, err := k.Resources(t.Context()); err == nil || errors.Is(err, registry.ErrAltered) {
			t.Errorf("%s: got %+v, want an error", name, got.List())
		}
	}
}

func testRing(t *testing.T, k *kit) {
	ctx := t.Context()
	if data, version, err := k.LoadRing(ctx); data != nil || version != 0 || err != nil {
		t.Errorf("before the first save: got %q, %d, %v", data, version, err)
	}
	// A document is any bytes.
	first := []byte("\x00\xff\r\n{}\"'\\")
	must.Succeed(t, k.SaveRing(ctx, first, 0))
	data, version, err := k.LoadRing(ctx)
	must.Succeed(t, err)
	if !bytes.Equal(data, first) || version == 0 {
		t.Errorf("got %q, %d, want %q", data, version, first)
	}
	must.Succeed(t, k.SaveRing(ctx, []byte("2"), version))
	for _, stale := range []uint64{0, version} {
		if err := k.SaveRing(ctx, []byte("3"), stale); !errors.Is(err, keys.ErrConflict) {
			t.Errorf("based on version %d: got %v, want %v", stale, err, keys.ErrConflict)
		}
	}
	data, next, err := k.LoadRing(ctx)
	must.Succeed(t, err)
	if string(data) != "2" || next == version {
		t.Errorf("got %q, %d after %d, want 2", data, next, version)
	}
	change := revocation.Change{Kind: revocation.RingChanged}
	k.expectFeed(t, change, change)
}

func testAnnouncements(t *testing.T, k *kit) {
	ctx := t.Context()
	k.expectFeed(t)
	a := k.save(t, newClient("a"))
	a.Disabled = true
	began := time.Now()
	a = k.save(t, a)
	must.Succeed(t, k.DeleteClient(ctx, a.ID, a.Version))
	must.Succeed(t, k.SaveResources(ctx, must.Get(registry.NewResources(0, nil))))
	must.Succeed(t, k.SaveRing(ctx, []byte("x"), 0, "kid"))
	got := k.feed(t)
	for i := range got {
		if !got[i].Kind.Revocation() {
			continue
		}
		// The time of a revocation is so far ahead of the second in which it was made.
		if at := got[i].At.Add(-revocation.Ahead); at.Before(began.Add(-time.Second)) || at.After(time.Now()) {
			t.Errorf("%v was made at %s, want %s or later", got[i], at, began)
		}
		got[i].At = time.Time{}
	}
	want := []revocation.Change{
		clientChange("a"), clientChange("a"), {Kind: revocation.ClientRevoked, ID: "a"},
		clientChange("a"), {Kind: revocation.ClientRevoked, ID: "a"},
		{Kind: revocation.ResourcesChanged}, {Kind: revocation.RingChanged}, {Kind: revocation.KeyRevoked, ID: "kid"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("the feed has %v, want %v", got, want)
	}
}

func testNoAnnouncement(t *testing.T, k *kit) {
	ctx := t.Context()
	stale := newClient("a")
	stale.Version = 7
	expectConflict(t, k.SaveClient(ctx, stale))
	expectConflict(t, k.DeleteClient(ctx, stale.ID, 7))
	expectConflict(t, k.SaveResources(ctx, must.Get(registry.NewResources(7, nil))))
	if err := k.SaveRing(ctx, []byte("x"), 7); !errors.Is(err, keys.ErrConflict) {
		t.Errorf("got %v, want %v", err, keys.ErrConflict)
	}
	k.expectFeed(t)
}

func testPrefixes(t *testing.T, k *kit) {
	other := newKit(k.client)
	mine := k.save(t, newClient("a"))
	must.Succeed(t, k.SaveRing(t.Context(), []byte("mine"), 0))
	other.expectNoClient(t, "a")
	other.expectFeed(t)
	theirs := newClient("a")
	theirs.Name = "theirs"
	theirs = other.save(t, theirs)
	must.Succeed(t, other.SaveRing(t.Context(), []byte("theirs"), 0))
	must.Succeed(t, other.DeleteClient(t.Context(), theirs.ID, theirs.Version))
	k.expectClient(t, mine)
	if data, _, err := k.LoadRing(t.Context()); string(data) != "mine" {
		t.Errorf("got %q, %v, want mine", data, err)
	}
}
