package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

const day = 24 * time.Hour

// secretsOf parses secrets from a text such as "a b:-1 c:2 d:3f": an id, the hours after which it expires, f for a secret from
// a manifest.
func secretsOf(t *testing.T, text string) []clientsecret.Secret {
	t.Helper()
	var secrets []clientsecret.Secret
	for _, field := range strings.Fields(text) {
		id, rest, _ := strings.Cut(field, ":")
		s := clientsecret.Secret{ID: id, Hash: clientsecret.Hash("hash of " + id), CreatedAt: start.Add(-day)}
		rest, s.FromFile = strings.CutSuffix(rest, "f")
		if rest != "" {
			var hours int
			if _, err := fmt.Sscan(rest, &hours); err != nil {
				t.Fatal(err)
			}
			s.ExpiresAt = start.Add(time.Duration(hours) * time.Hour)
		}
		secrets = append(secrets, s)
	}
	return secrets
}

// textOf is the inverse of secretsOf; it formats the secret with the id fresh as "new".
func textOf(secrets []clientsecret.Secret, fresh string) string {
	var fields []string
	for _, s := range secrets {
		field, end := s.ID, ""
		if s.ID == fresh {
			field = "new"
		}
		if !s.ExpiresAt.IsZero() {
			end = fmt.Sprint(s.ExpiresAt.Sub(start).Hours())
		}
		if s.FromFile {
			end += "f"
		}
		if end != "" {
			field += ":" + end
		}
		fields = append(fields, field)
	}
	return strings.Join(fields, " ")
}

// TestIssueSecret checks what becomes of the secrets of a client when one is added.
func TestIssueSecret(t *testing.T) {
	const rotate = true
	hours := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	for name, test := range map[string]struct {
		has     string
		rotate  bool
		grace   time.Duration
		expires time.Time
		want    string // or "!" and the field of the error
	}{
		"added to none":             {"", !rotate, 0, time.Time{}, "new"},
		"added to others":           {"a b:-1 c:1f", !rotate, 0, time.Time{}, "a b:-1 c:1f new"},
		"added with an expiry":      {"a", !rotate, 0, hours(2), "a new:2"},
		"added, expired":            {"a", !rotate, 0, hours(-1), "!expire_time"},
		"added, expiring now":       {"a", !rotate, 0, start, "!expire_time"},
		"added, within the second":  {"a", !rotate, 0, start.Add(999 * time.Millisecond), "!expire_time"},
		"added, in the next second": {"a", !rotate, 0, start.Add(1999 * time.Millisecond), fmt.Sprint("a new:", time.Second.Hours())},
		"added, expired in year 1":  {"a", !rotate, 0, time.Time{}.Add(time.Nanosecond), "!expire_time"},

		"the tenth":                      {"a b c d e f g h i", !rotate, 0, time.Time{}, "a b c d e f g h i new"},
		"the tenth, one expired":         {"a b:-1 c d e f g h i", !rotate, 0, time.Time{}, "a b:-1 c d e f g h i new"},
		"the eleventh":                   {"a b c d e f g h i j:1", !rotate, 0, time.Time{}, "!secrets"},
		"the eleventh, one expired":      {"a b c d e f:0 g h i j", !rotate, 0, time.Time{}, "a b c d e g h i j new"},
		"the eleventh, two expired":      {"a b c:-1 d e:-2 f g h i j", !rotate, 0, time.Time{}, "a b d e:-2 f g h i j new"},
		"the eleventh, a file's expired": {"a:-2f b c:-1 d e f g h i j", !rotate, 0, time.Time{}, "a:-2f b d e f g h i j new"},
		"the eleventh, only a file's":    {"a:-2f b c:1 d e f g h i j", !rotate, 0, time.Time{}, "b c:1 d e f g h i j new"},
		"the twelfth, a file's expired":  {"a:-2f b c:-1 d e f g h i j k", !rotate, 0, time.Time{}, "b d e f g h i j k new"},

		"rotated":                      {"a b:f", rotate, day, time.Time{}, "a:24 b:24f new"},
		"rotated, none stored":         {"", rotate, day, time.Time{}, "new"},
		"rotated, some expire earlier": {"a:-1 b:1 c:24 d:25", rotate, day, time.Time{}, "a:-1 b:1 c:24 d:24 new"},
		"rotated, with an expiry":      {"a", rotate, day, hours(1), "a:24 new:1"},
		"rotated, expired":             {"a", rotate, day, hours(-1), "!expire_time"},
		"rotated at once":              {"a b:1 c:-1", rotate, 0, time.Time{}, "a:0 b:0 c:-1 new"},
		"rotated, parts of a second":   {"a", rotate, time.Hour + 999*time.Millisecond, time.Time{}, "a:1 new"},
		"rotated, the longest grace":   {"a", rotate, 366 * day, time.Time{}, "a:8784 new"},
		"rotated, longer grace":        {"a", rotate, 366*day + 1, time.Time{}, "!grace_period"},
		"rotated, negative grace":      {"a", rotate, -1, time.Time{}, "!grace_period"},
		"the eleventh, rotated":        {"a b c d e f g h i j", rotate, time.Hour, time.Time{}, "!secrets"},
		"the eleventh, at once":        {"a b c d e f g h i j", rotate, 0, time.Time{}, "b:0 c:0 d:0 e:0 f:0 g:0 h:0 i:0 j:0 new"},
	} {
		t.Run(name, func(t *testing.T) {
			store, e := newRegistry()
			stored := store.put(t, registry.Client{ID: clientID("a"), Secrets: secretsOf(t, test.has), ChangedAt: start.Add(-day)})
			target := registry.Target{ID: stored.ID, Version: stored.Version}
			var issued *registry.Issued
			var err error
			if test.rotate {
				issued, err = e.RotateSecret(t.Context(), target, test.grace, test.expires)
			} else {
				issued, err = e.AddSecret(t.Context(), target, "", test.expires)
			}
			if field, refused := strings.CutPrefix(test.want, "!"); refused {
				expectField(t, err, field)
				store.expectStored(t, stored)
				return
			}
			must.Succeed(t, err)
			store.expectStored(t, issued.Client)
			if got := textOf(issued.Client.Secrets, issued.SecretID); got != test.want || issued.Client.ChangedAt != start {
				t.Errorf("got %q, changed %s, want %q", got, issued.Client.ChangedAt, test.want)
			}
			fresh := issued.Client.Secrets[len(issued.Client.Secrets)-1]
			if !clientsecret.Generated(issued.Secret) || !e.Config().Hasher.Matches(fresh.Hash, issued.Secret) || fresh.CreatedAt != start || fresh.FromFile {
				t.Errorf("got %+v with %+v", issued, fresh)
			}
			if got := textOf(stored.Secrets, ""); got != test.has {
				t.Errorf("the client that the store returned has changed to %q, want %q", got, test.has)
			}
		})
	}
}

func TestAddChosenSecret(t *testing.T) {
	store, e := newRegistry()
	stored := store.put(t, registry.Client{ID: clientID("a")})
	issued, err := e.AddSecret(t.Context(), registry.Target{ID: stored.ID}, "twelve bytes", start.Add(time.Hour))
	must.Succeed(t, err)
	if issued.Secret != "" || issued.SecretID == "" || matching(e, issued.Client, "twelve bytes", start) != 1 {
		t.Errorf("got %+v", issued)
	}
	if n := matching(e, issued.Client, "twelve bytes", start.Add(time.Hour)); n != 0 {
		t.Errorf("got %d matching secrets after an hour, want 0", n)
	}
}

func TestExpireAndRemoveSecret(t *testing.T) {
	hours := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	const remove = true
	for name, test := range map[string]struct {
		remove  bool
		id      string
		expires time.Time
		want    string // empty if there is no such secret
	}{
		"an expiry":           {!remove, "a", hours(3), "a:3 b:1 c:-1f"},
		"an earlier expiry":   {!remove, "b", start.Add(90 * time.Minute), "a b:1.5 c:-1f"},
		"parts of a second":   {!remove, "a", hours(3).Add(999 * time.Millisecond), "a:3 b:1 c:-1f"},
		"a later expiry":      {!remove, "b", hours(3), "a b:3 c:-1f"},
		"no expiry":           {!remove, "b", time.Time{}, "a b c:-1f"},
		"at once":             {!remove, "b", start, "a b:0 c:-1f"},
		"in the past":         {!remove, "a", hours(-5), "a:0 b:1 c:-1f"},
		"in 1970":             {!remove, "a", time.Unix(0, 0), "a:0 b:1 c:-1f"},
		"before 1970":         {!remove, "a", time.Unix(-1, 1), "a:0 b:1 c:-1f"},
		"in year 1":           {!remove, "a", time.Time{}.Add(1), "a:0 b:1 c:-1f"},
		"an expired one":      {!remove, "c", hours(1), "a b:1 c:1f"},
		"none such":           {!remove, "d", hours(1), ""},
		"no id":               {!remove, "", hours(1), ""},
		"removed":             {remove, "a", time.Time{}, "b:1 c:-1f"},
		"removed in between":  {remove, "b", time.Time{}, "a c:-1f"},
		"removed, none such":  {remove, "d", time.Time{}, ""},
		"removed, other case": {remove, "A", time.Time{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			const has = "a b:1 c:-1f"
			store, e := newRegistry()
			stored := store.put(t, registry.Client{ID: clientID("x"), Secrets: secretsOf(t, has), ChangedAt: start.Add(-day)})
			target := registry.Target{ID: stored.ID, Version: stored.Version}
			var got *registry.Client
			var err error
			if test.remove {
				got, err = e.RemoveSecret(t.Context(), target, test.id)
			} else {
				got, err = e.ExpireSecret(t.Context(), target, test.id, test.expires)
			}
			if textOf(stored.Secrets, "") != has {
				t.Errorf("the client that the store returned has changed to %q", textOf(stored.Secrets, ""))
			}
			if test.want == "" {
				expectError(t, err, registry.ErrNotFound)
				store.expectStored(t, stored)
				return
			}
			must.Succeed(t, err)
			if store.expectStored(t, got); textOf(got.Secrets, "") != test.want || got.ChangedAt != start {
				t.Errorf("got %q, changed %s, want %q", textOf(got.Secrets, ""), got.ChangedAt, test.want)
			}
		})
	}
}

// TestAddSecretsAtOnce checks that each of ten concurrent calls adds a valid secret.
func TestAddSecretsAtOnce(t *testing.T) {
	store, e := newRegistry()
	store.put(t, registry.Client{ID: clientID("a")})
	all := make([]*registry.Issued, registry.MaxSecrets)
	var group sync.WaitGroup
	for i := range all {
		group.Go(func() {
			var err error
			if all[i], err = e.AddSecret(t.Context(), registry.Target{ID: clientID("a")}, "", time.Time{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	var ids []string
	for _, issued := range all {
		ids = append(ids, issued.SecretID)
		if matching(e, store.clients[clientID("a")], issued.Secret, start) != 1 {
			t.Errorf("the secret %s is lost", issued.SecretID)
		}
	}
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != len(all) {
		t.Errorf("%d secrets have %d ids", len(all), n)
	}
}
