package clientauth_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// fakeStore stores one client. It is also what the authenticator looks the client up in.
type fakeStore struct {
	mu     sync.Mutex
	client *registry.Client
	saves  int
	// saveErr, if not nil, is the error of SaveClient. onSave, if not nil, changes the client before it is saved.
	saveErr error
	onSave  func(*registry.Client)
}

func (s *fakeStore) Client(context.Context, oauth.ClientID) (*registry.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil, registry.ErrNotFound
	}
	return s.client, nil
}

func (s *fakeStore) SaveClient(_ context.Context, c *registry.Client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saves++
	if s.onSave != nil {
		s.change(s.onSave)
	}
	switch {
	case s.saveErr != nil:
		return s.saveErr
	case s.client.Version != c.Version:
		return registry.ErrConflict
	}
	s.change(func(stored *registry.Client) { stored.Secrets = c.Secrets })
	return nil
}

// setSaveErr sets the error of SaveClient.
func (s *fakeStore) setSaveErr(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saveErr = err
}

// change stores a new version of the client, changed by f.
func (s *fakeStore) change(f func(*registry.Client)) {
	next := *s.client
	next.Secrets = slices.Clone(s.client.Secrets)
	next.Version++
	f(&next)
	s.client = &next
}

// stored returns the hash of the i-th secret and the number of saves.
func (s *fakeStore) stored(i int) (hash clientsecret.Hash, saves int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.Secrets[i].Hash, s.saves
}

var importedHash = clientsecret.Hash(must.Get(bcrypt.GenerateFromPassword([]byte("imported"), bcrypt.MinCost)))

// testUpgrade runs test with a client that has a chosen, an imported and a generated secret, in this order, and with an
// authenticator that replaces hashes. accepts reports whether the authenticator accepts a secret; failed are the errors
// that Run reports.
func testUpgrade(t *testing.T, test func(t *testing.T, s *fakeStore, accepts func(secret string) bool, failed *[]error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{client: client("a", "chosen", "imported", generated)}
		imported := &s.client.Secrets[1]
		imported.Hash, imported.CreatedAt, imported.ExpiresAt, imported.FromFile = importedHash, start.Add(-time.Hour), start.Add(time.Hour), true
		a := clientauth.New(clientauth.Config{
			Clients: s, Store: s, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0), Now: func() time.Time { return start },
		})
		failed := &[]error{}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = a.Run(ctx, func(err error) { *failed = append(*failed, err) }) })
		accepts := func(secret string) bool {
			_, err := a.Authenticate(t.Context(), post("a", secret))
			synctest.Wait()
			return err == nil
		}
		test(t, s, accepts, failed)
		cancel()
		running.Wait()
	})
}

func TestUpgrade(t *testing.T) {
	testUpgrade(t, func(t *testing.T, s *fakeStore, accepts func(string) bool, failed *[]error) {
		before := s.client
		// Only the use of the imported secret replaces its hash.
		if !accepts("chosen") || !accepts(generated) || accepts("wrong") || accepts("") {
			t.Error("before: the wrong secrets are accepted")
		}
		if hash, saves := s.stored(1); hash != importedHash || saves != 0 {
			t.Errorf("before its use: the hash is %s after %d saves, want the imported one after 0", hash, saves)
		}
		if !accepts("imported") {
			t.Error("the imported secret is not accepted")
		}
		want := *before
		want.Version++
		want.Secrets = slices.Clone(before.Secrets)
		want.Secrets[1].Hash = s.client.Secrets[1].Hash
		if !reflect.DeepEqual(s.client, &want) {
			t.Errorf("got %+v, want %+v", s.client, want)
		}
		if hash := s.client.Secrets[1].Hash; hash.Kind() != clientsecret.KindChosen || clientsecret.Outdated(s.client.Secrets, 1) {
			t.Errorf("got the hash %s, want that of a chosen secret", hash)
		}
		if !accepts("imported") || !accepts("chosen") || !accepts(generated) || accepts("wrong") {
			t.Error("after: the wrong secrets are accepted")
		}
		if _, saves := s.stored(1); saves != 1 || len(*failed) > 0 {
			t.Errorf("%d saves, failures %v, want 1 and none", saves, *failed)
		}
	})
}

// Two chosen secrets that were hashed independently share one salt after they have been used.
func TestUpgradeSalt(t *testing.T) {
	testUpgrade(t, func(t *testing.T, s *fakeStore, accepts func(string) bool, _ *[]error) {
		s.change(func(c *registry.Client) { c.Secrets[1].Hash = hasher.Hash("imported") })
		if !accepts("imported") || clientsecret.Outdated(s.client.Secrets, 1) {
			t.Errorf("got %v", s.client.Secrets)
		}
	})
}

// A change of the client during the replacement of a hash takes precedence.
func TestUpgradeRaces(t *testing.T) {
	for name, change := range map[string]func(*registry.Client){
		"renamed":          func(c *registry.Client) { c.Name = "another" },
		"disabled":         func(c *registry.Client) { c.Disabled = true },
		"secret removed":   func(c *registry.Client) { c.Secrets = c.Secrets[:1] },
		"replaced already": func(c *registry.Client) { c.Secrets[1].Hash = hasher.Hash("imported", c.Secrets...) },
		"another secret":   func(c *registry.Client) { c.Secrets[1].Hash = hasher.Hash("a new one", c.Secrets...) },
	} {
		testUpgrade(t, func(t *testing.T, s *fakeStore, accepts func(string) bool, failed *[]error) {
			var after *registry.Client
			s.onSave = func(c *registry.Client) {
				change(c)
				after = c
				s.onSave = nil
			}
			if !accepts("imported") || s.client != after || len(*failed) > 0 {
				t.Errorf("%s: got %+v, failures %v", name, s.client, *failed)
			}
		})
	}
}

// An authenticator may have an older version of the client; the upgrade changes the stored one.
func TestUpgradeOfStale(t *testing.T) {
	for name, change := range map[string]func(*fakeStore){
		"deleted":          func(s *fakeStore) { s.client = nil },
		"disabled":         func(s *fakeStore) { s.change(func(c *registry.Client) { c.Disabled = true }) },
		"another's hash":   func(s *fakeStore) { s.change(func(c *registry.Client) { c.Secrets[0].ID = "other" }) },
		"replaced already": func(s *fakeStore) { s.change(func(c *registry.Client) { c.Secrets[0].Hash = hasher.Hash("imported") }) },
	} {
		stale := client("a", "imported")
		stale.Secrets[0].Hash = importedHash
		s := &fakeStore{client: stale}
		change(s)
		synctest.Test(t, func(t *testing.T) {
			a := clientauth.New(clientauth.Config{
				Clients: registered{"a": stale}, Store: s, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0), Now: func() time.Time { return start },
			})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = a.Run(ctx, func(err error) { t.Errorf("%s: %v", name, err) }) })
			if _, err := a.Authenticate(t.Context(), post("a", "imported")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			synctest.Wait()
			if s.saves > 0 {
				t.Errorf("%s: the client was saved", name)
			}
			cancel()
			running.Wait()
		})
	}
}

// A store that fails keeps no client out, is not retried at once, and gets the hash later.
func TestUpgradeFails(t *testing.T) {
	testUpgrade(t, func(t *testing.T, s *fakeStore, accepts func(string) bool, failed *[]error) {
		down := errors.New("down")
		s.setSaveErr(down)
		for range 3 * clientauth.MaxUpgrades {
			if !accepts("imported") {
				t.Fatal("the imported secret is not accepted")
			}
		}
		if _, saves := s.stored(1); saves != 1 || len(*failed) != 1 || !errors.Is((*failed)[0], down) {
			t.Errorf("%d saves, failures %v, want 1 of each", saves, *failed)
		}
		s.setSaveErr(nil)
		time.Sleep(clientauth.UpgradeBackoff)
		synctest.Wait()
		if hash, _ := s.stored(1); hash.Kind() != clientsecret.KindChosen || len(*failed) != 1 {
			t.Errorf("after the backoff: the hash is %s, failures %v", hash, *failed)
		}
	})
}

// Authentication does not wait for the replacement of hashes.
func TestUpgradesAreBounded(t *testing.T) {
	c := client("a", "imported")
	c.Secrets[0].Hash = importedHash
	a := newAuthenticator(registered{"a": c})
	for range clientauth.MaxUpgrades + 10 {
		if _, err := a.Authenticate(t.Context(), post("a", "imported")); err != nil {
			t.Fatal(err)
		}
	}
}
