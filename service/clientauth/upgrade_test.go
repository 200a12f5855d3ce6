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

	"github.com/grantorhq/grantor/service/must"

	"golang.org/x/crypto/bcrypt"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// shelf is a store of one client, which is also what answers the authenticator.
type shelf struct {
	mu     sync.Mutex
	client *registry.Client
	saves  int
	// fail, where set, is what saving answers. meanwhile, where set, runs before that.
	fail      error
	meanwhile func(*registry.Client)
}

func (s *shelf) Client(context.Context, oauth.ClientID) (*registry.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil, registry.ErrNotFound
	}
	return s.client, nil
}

func (s *shelf) SaveClient(_ context.Context, c *registry.Client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saves++
	if s.meanwhile != nil {
		s.change(s.meanwhile)
	}
	switch {
	case s.fail != nil:
		return s.fail
	case s.client.Version != c.Version:
		return registry.ErrConflict
	}
	s.change(func(stored *registry.Client) { stored.Secrets = c.Secrets })
	return nil
}

// answer sets what saving answers.
func (s *shelf) answer(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// change makes a new version of the client.
func (s *shelf) change(f func(*registry.Client)) {
	next := *s.client
	next.Secrets = slices.Clone(s.client.Secrets)
	next.Version++
	f(&next)
	s.client = &next
}

// stored gives the hash of the secret at i, and how often one was saved.
func (s *shelf) stored(i int) (hash clientsecret.Hash, saves int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.Secrets[i].Hash, s.saves
}

var importedHash = clientsecret.Hash(must.Get(bcrypt.GenerateFromPassword([]byte("imported"), bcrypt.MinCost)))

// upgrading runs the test with a client that has a chosen, an imported and a generated secret, in this order, and with an
// authenticator that replaces hashes.
func upgrading(t *testing.T, test func(t *testing.T, s *shelf, in func(secret string) bool, failed *[]error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{client: client("a", "chosen", "imported", generated)}
		imported := &s.client.Secrets[1]
		imported.Hash, imported.CreatedAt, imported.ExpiresAt, imported.FromFile = importedHash, start.Add(-time.Hour), start.Add(time.Hour), true
		a := clientauth.New(clientauth.Config{
			Clients: s, Store: s, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0), Now: func() time.Time { return start },
		})
		failed := &[]error{}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = a.Run(ctx, func(err error) { *failed = append(*failed, err) }) })
		in := func(secret string) bool {
			_, _, err := a.Authenticate(t.Context(), post("a", secret))
			synctest.Wait()
			return err == nil
		}
		test(t, s, in, failed)
		cancel()
		running.Wait()
	})
}

func TestUpgrade(t *testing.T) {
	upgrading(t, func(t *testing.T, s *shelf, in func(string) bool, failed *[]error) {
		before := s.client
		// Nothing but the right secret replaces it.
		if !in("chosen") || !in(generated) || in("wrong") || in("") {
			t.Error("the wrong secrets are in")
		}
		if hash, saves := s.stored(1); hash != importedHash || saves != 0 {
			t.Errorf("before its use: %s after %d saves", hash, saves)
		}
		if !in("imported") {
			t.Error("the imported secret is not in")
		}
		want := *before
		want.Version++
		want.Secrets = slices.Clone(before.Secrets)
		want.Secrets[1].Hash = s.client.Secrets[1].Hash
		if !reflect.DeepEqual(s.client, &want) {
			t.Errorf("got %+v, want %+v", s.client, want)
		}
		if hash := s.client.Secrets[1].Hash; hash.Kind() != clientsecret.KindChosen || clientsecret.Outdated(s.client.Secrets, 1) {
			t.Errorf("it is replaced by %s", hash)
		}
		if !in("imported") || !in("chosen") || !in(generated) || in("wrong") {
			t.Error("after it: the wrong secrets are in")
		}
		if _, saves := s.stored(1); saves != 1 || len(*failed) > 0 {
			t.Errorf("%d saves, failures %v", saves, *failed)
		}
	})
}

// Two chosen secrets that were hashed apart get one salt by use.
func TestUpgradeSalt(t *testing.T) {
	upgrading(t, func(t *testing.T, s *shelf, in func(string) bool, _ *[]error) {
		s.change(func(c *registry.Client) { c.Secrets[1].Hash = hasher.Hash("imported") })
		if !in("imported") || clientsecret.Outdated(s.client.Secrets, 1) {
			t.Errorf("got %v", s.client.Secrets)
		}
	})
}

// Whoever changes the client while the hash is replaced has precedence.
func TestUpgradeRaces(t *testing.T) {
	for name, change := range map[string]func(*registry.Client){
		"renamed":          func(c *registry.Client) { c.Name = "another" },
		"disabled":         func(c *registry.Client) { c.Disabled = true },
		"secret taken":     func(c *registry.Client) { c.Secrets = c.Secrets[:1] },
		"replaced already": func(c *registry.Client) { c.Secrets[1].Hash = hasher.Hash("imported", c.Secrets...) },
		"another secret":   func(c *registry.Client) { c.Secrets[1].Hash = hasher.Hash("a new one", c.Secrets...) },
	} {
		upgrading(t, func(t *testing.T, s *shelf, in func(string) bool, failed *[]error) {
			var after *registry.Client
			s.meanwhile = func(c *registry.Client) {
				change(c)
				after = c
				s.meanwhile = nil
			}
			if !in("imported") || s.client != after || len(*failed) > 0 {
				t.Errorf("%s: got %+v, failures %v", name, s.client, *failed)
			}
		})
	}
}

// An authenticator may know the client as it was; what is replaced is what the store has.
func TestUpgradeOfStale(t *testing.T) {
	for name, change := range map[string]func(*shelf){
		"deleted":          func(s *shelf) { s.client = nil },
		"disabled":         func(s *shelf) { s.change(func(c *registry.Client) { c.Disabled = true }) },
		"another's hash":   func(s *shelf) { s.change(func(c *registry.Client) { c.Secrets[0].ID = "other" }) },
		"replaced already": func(s *shelf) { s.change(func(c *registry.Client) { c.Secrets[0].Hash = hasher.Hash("imported") }) },
	} {
		stale := client("a", "imported")
		stale.Secrets[0].Hash = importedHash
		s := &shelf{client: stale}
		change(s)
		synctest.Test(t, func(t *testing.T) {
			a := clientauth.New(clientauth.Config{
				Clients: registered{"a": stale}, Store: s, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0), Now: func() time.Time { return start },
			})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = a.Run(ctx, func(err error) { t.Errorf("%s: %v", name, err) }) })
			if _, _, err := a.Authenticate(t.Context(), post("a", "imported")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			synctest.Wait()
			if s.saves > 0 {
				t.Errorf("%s: it is saved", name)
			}
			cancel()
			running.Wait()
		})
	}
}

// A store that takes nothing does not keep anybody out, is not asked without end, and gets the hash later.
func TestUpgradeFails(t *testing.T) {
	upgrading(t, func(t *testing.T, s *shelf, in func(string) bool, failed *[]error) {
		down := errors.New("down")
		s.answer(down)
		for range 3 * clientauth.MostUpgrades {
			if !in("imported") {
				t.Fatal("it is not in")
			}
		}
		if _, saves := s.stored(1); saves != 1 || len(*failed) != 1 || !errors.Is((*failed)[0], down) {
			t.Errorf("%d saves, failures %v, want one", saves, *failed)
		}
		s.answer(nil)
		time.Sleep(clientauth.UpgradePause)
		synctest.Wait()
		if hash, _ := s.stored(1); hash.Kind() != clientsecret.KindChosen || len(*failed) != 1 {
			t.Errorf("after the pause: %s, failures %v", hash, *failed)
		}
	})
}

// Where nothing replaces hashes, proofs do not wait for it.
func TestUpgradesAreBounded(t *testing.T) {
	c := client("a", "imported")
	c.Secrets[0].Hash = importedHash
	a := newAuthenticator(registered{"a": c})
	for range clientauth.MostUpgrades + 10 {
		if _, _, err := a.Authenticate(t.Context(), post("a", "imported")); err != nil {
			t.Fatal(err)
		}
	}
}
