package clientauth_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	start     = time.Unix(1_800_000_000, 0)
	hasher    = must(registry.NewHasher([]byte(strings.Repeat("p", 32))))
	generated = registry.NewSecret()
	// old and soon are secrets of a client that changes its secret.
	old, soon = registry.NewSecret(), registry.NewSecret()
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// registered are clients by id; an entry nil stands for a store that fails.
type registered map[string]*registry.Client

func (r registered) Client(_ context.Context, id oauth.ClientID) (*registry.Client, error) {
	client, ok := r[id.String()]
	switch {
	case !ok:
		return nil, registry.ErrNotFound
	case client == nil:
		return nil, errors.New("down")
	}
	return client, nil
}

func client(id string, secrets ...string) *registry.Client {
	c := &registry.Client{ID: must(oauth.ParseClientID(id))}
	for _, s := range secrets {
		c.Secrets = append(c.Secrets, registry.Secret{Hash: hasher.Hash(s)})
	}
	return c
}

func newAuthenticator(clients registered) *clientauth.Authenticator {
	return clientauth.New(clients, hasher, func() time.Time { return start })
}

func basic(id, secret string) clientauth.Evidence {
	return raw(url.QueryEscape(id) + ":" + url.QueryEscape(secret))
}

func raw(credentials string) clientauth.Evidence {
	return clientauth.Evidence{Authorization: "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))}
}

func post(id, secret string) clientauth.Evidence {
	return clientauth.Evidence{ClientID: id, ClientSecret: secret}
}

// with adds the parameters to evidence.
func with(e clientauth.Evidence, id, secret string) clientauth.Evidence {
	e.ClientID, e.ClientSecret = id, secret
	return e
}

func TestEvidence(t *testing.T) {
	clients := registered{"a": client("a", generated), "a:b+c%": client("a:b+c%", generated), "down": nil}
	clients["basic"] = client("basic", generated)
	clients["basic"].AuthMethods = []string{oauth.ClientSecretBasic}
	clients["post"] = client("post", generated)
	clients["post"].AuthMethods = []string{oauth.ClientSecretPost}
	clients["disabled"] = client("disabled", generated)
	clients["disabled"].Disabled = true
	clients["two"] = client("two", old, soon)
	clients["two"].Secrets[0].ExpiresAt = start
	clients["two"].Secrets[1].ExpiresAt = start.Add(time.Second)
	clients["bare"] = client("bare")
	authorization := func(value string) clientauth.Evidence { return clientauth.Evidence{Authorization: value} }
	encoded := strings.TrimPrefix(basic("a", generated).Authorization, "Basic ")
	long, longSecret := strings.Repeat("a", oauth.MaxID+1), strings.Repeat("a", oauth.MaxSecret+1)
	const isBasic, isPost = oauth.ClientSecretBasic, oauth.ClientSecretPost
	a := newAuthenticator(clients)
	for name, test := range map[string]struct {
		evidence clientauth.Evidence
		method   string
		want     oauth.Code // "" where the client is proven
	}{
		"none":              {clientauth.Evidence{}, "", oauth.InvalidRequest},
		"id alone":          {post("a", ""), "", oauth.InvalidRequest},
		"secret alone":      {post("", generated), "", oauth.InvalidRequest},
		"post":              {post("a", generated), isPost, ""},
		"basic":             {basic("a", generated), isBasic, ""},
		"basic and the id":  {with(basic("a", generated), "a", ""), isBasic, ""},
		"basic, other id":   {with(basic("a", generated), "b", ""), isBasic, oauth.InvalidRequest},
		"both":              {with(basic("a", generated), "a", generated), isBasic, oauth.InvalidRequest},
		"both, secret only": {with(basic("a", generated), "", generated), isBasic, oauth.InvalidRequest},
		"form-encoded":      {basic("a:b+c%", generated), isBasic, ""},
		"post, odd id":      {post("a:b+c%", generated), isPost, ""},

		"lower-case scheme":     {authorization("basic " + encoded), isBasic, ""},
		"upper-case scheme":     {authorization("BASIC " + encoded), isBasic, ""},
		"two blanks":            {authorization("Basic  " + encoded), isBasic, ""},
		"scheme alone":          {authorization("Basic"), isBasic, oauth.InvalidClient},
		"scheme and blank":      {authorization("Basic "), isBasic, oauth.InvalidClient},
		"malformed and post":    {with(authorization("Basic x"), "a", ""), isBasic, oauth.InvalidClient},
		"not base64":            {authorization("Basic a:" + generated), isBasic, oauth.InvalidClient},
		"without padding":       {authorization("Basic " + strings.TrimRight(basic("a", "bb").Authorization[6:], "=")), isBasic, oauth.InvalidClient},
		"no colon":              {raw("a"), isBasic, oauth.InvalidClient},
		"bad escape in id":      {raw("%:" + generated), isBasic, oauth.InvalidClient},
		"bad escape in secret":  {raw("a:%zz"), isBasic, oauth.InvalidClient},
		"empty id":              {raw(":" + generated), isBasic, oauth.InvalidRequest},
		"empty secret":          {raw("a:"), isBasic, oauth.InvalidRequest},
		"both empty":            {raw(":"), isBasic, oauth.InvalidRequest},
		"bearer alone":          {authorization("Bearer x"), "", oauth.InvalidRequest},
		"bearer and post":       {with(authorization("Bearer x"), "a", generated), isPost, ""},
		"scheme like basic":     {with(authorization("Basicx "+encoded), "a", generated), isPost, ""},
		"long header":           {authorization("Basic " + strings.Repeat("A", 100_000)), isBasic, oauth.InvalidClient},
		"long id":               {basic(long, generated), isBasic, oauth.InvalidRequest},
		"long secret":           {basic("a", longSecret), isBasic, oauth.InvalidRequest},
		"long id, post":         {post(long, generated), isPost, oauth.InvalidRequest},
		"long secret, post":     {post("a", longSecret), isPost, oauth.InvalidRequest},
		"wrong secret":          {post("a", old), isPost, oauth.InvalidClient},
		"unknown client":        {post("b", generated), isPost, oauth.InvalidClient},
		"letter case of id":     {post("A", generated), isPost, oauth.InvalidClient},
		"id that is none":       {post("a b", generated), isPost, oauth.InvalidClient},
		"id with a NUL":         {post("a\x00", generated), isPost, oauth.InvalidClient},
		"client without secret": {post("bare", generated), isPost, oauth.InvalidClient},
		"disabled":              {post("disabled", generated), isPost, oauth.InvalidClient},
		"disabled, wrong":       {post("disabled", old), isPost, oauth.InvalidClient},
		"expired":               {post("two", old), isPost, oauth.InvalidClient},
		"the other of two":      {post("two", soon), isPost, ""},
		"basic only, basic":     {basic("basic", generated), isBasic, ""},
		"basic only, post":      {post("basic", generated), isPost, oauth.InvalidClient},
		"post only, post":       {post("post", generated), isPost, ""},
		"post only, basic":      {basic("post", generated), isBasic, oauth.InvalidClient},
		"store fails":           {post("down", generated), isPost, oauth.TemporarilyUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			got, method, err := a.Authenticate(t.Context(), test.evidence)
			code := oauth.Code("")
			if err != nil {
				refusal := oauth.From(err)
				code = refusal.Code
				// What failed is for the operator; the client reads one text whatever it was.
				if code == oauth.InvalidClient && refusal.Text != "Client authentication failed." {
					t.Errorf("the client reads %q", refusal.Text)
				}
				if strings.Contains(err.Error(), generated) || strings.Contains(err.Error(), old) {
					t.Errorf("the error shows the secret: %v", err)
				}
			}
			if code != test.want || method != test.method || (got != nil) != (test.want == "") {
				t.Errorf("got %v, %q, %v, want %q, %q", got, method, err, test.method, test.want)
			}
			if got != nil && got != clients[got.ID.String()] {
				t.Errorf("got %v, which is not the client registered", got)
			}
		})
	}
}

// counter counts the slow and the fast hashes computed.
type counter struct{ slow, fast atomic.Int64 }

func count(a *clientauth.Authenticator) *counter {
	c := &counter{}
	a.Watch(func(secret string) {
		if registry.Generated(secret) {
			c.fast.Add(1)
		} else {
			c.slow.Add(1)
		}
	})
	return c
}

// The kind and the amount of work follow from the secret that was sent, not from the client that was named.
func TestSameWork(t *testing.T) {
	clients := registered{"fast": client("fast", generated), "slow": client("slow", "chosen"), "bare": client("bare")}
	clients["disabled"] = client("disabled", "chosen")
	clients["disabled"].Disabled = true
	a := newAuthenticator(clients)
	c := count(a)
	for _, id := range []string{"unknown", "fast", "slow", "bare", "disabled", "no id"} {
		for secret, want := range map[string]string{"guess": "1 slow, 0 fast", registry.NewSecret(): "0 slow, 1 fast"} {
			if _, _, err := a.Authenticate(t.Context(), post(id, secret)); oauth.From(err).Code != oauth.InvalidClient {
				t.Errorf("%s: got %v", id, err)
			}
			if got := fmt.Sprintf("%d slow, %d fast", c.slow.Swap(0), c.fast.Swap(0)); got != want {
				t.Errorf("%s with %s: got %s, want %s", id, secret, got, want)
			}
		}
	}
}

func TestChosenSecretIsRemembered(t *testing.T) {
	clients := registered{"a": client("a", "chosen"), "b": client("b", "chosen")}
	a := newAuthenticator(clients)
	c := count(a)
	expect := func(id, secret string, ok bool, slow int64) {
		t.Helper()
		_, _, err := a.Authenticate(t.Context(), post(id, secret))
		if got := c.slow.Swap(0); (err == nil) != ok || got != slow {
			t.Errorf("%s, %s: got %v after %d slow hashes, want ok %v after %d", id, secret, err, got, ok, slow)
		}
	}
	expect("a", "chosen", true, 1)
	expect("a", "chosen", true, 0)
	// Neither for another client nor for another secret.
	expect("b", "chosen", true, 1)
	expect("a", "wrong", false, 1)
	expect("a", "wrong", false, 1)
	// What was remembered ends with the secret, the client and its right to prove itself.
	before := clients["a"]
	disabled := *before
	disabled.Disabled = true
	clients["a"] = &disabled
	expect("a", "chosen", false, 1) // as long as a wrong one: that it is right must not show
	expect("a", "chosen", false, 1)
	expired := *before
	expired.Secrets = []registry.Secret{{Hash: before.Secrets[0].Hash, ExpiresAt: start}}
	clients["a"] = &expired
	expect("a", "chosen", false, 1)
	clients["a"] = client("a", "another")
	expect("a", "chosen", false, 1)
	delete(clients, "a")
	expect("a", "chosen", false, 1)
	clients["a"] = before
	expect("a", "chosen", true, 0)
}

// Those who come at once with the same secret need few hashes, not one each.
func TestSameSecretAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(registered{"a": client("a", "chosen")})
		c := count(a)
		var group sync.WaitGroup
		for range clientauth.Queued {
			group.Go(func() {
				if _, _, err := a.Authenticate(t.Context(), post("a", "chosen")); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if got := c.slow.Load(); got > int64(clientauth.Parallel()) {
			t.Errorf("%d slow hashes, want at most %d", got, clientauth.Parallel())
		}
	})
}

// blocked makes an authenticator whose slow hashes take until the gate is closed.
func blocked(clients registered) (a *clientauth.Authenticator, underWay *atomic.Int64, gate chan struct{}) {
	a, underWay, gate = newAuthenticator(clients), &atomic.Int64{}, make(chan struct{})
	a.Pretend(func(hash registry.Hash, secret string) bool {
		if registry.Generated(secret) {
			return hasher.Matches(hash, secret)
		}
		underWay.Add(1)
		<-gate
		return false
	})
	return a, underWay, gate
}

func TestSlowHashesAreBounded(t *testing.T) {
	clients := registered{"a": client("a", "chosen"), "fast": client("fast", generated)}
	synctest.Test(t, func(t *testing.T) {
		a, underWay, gate := blocked(clients)
		var group sync.WaitGroup
		refused := make(chan *oauth.Error, 2*clientauth.Queued)
		for range clientauth.Queued + 10 {
			group.Go(func() {
				_, _, err := a.Authenticate(t.Context(), post("a", "guess"))
				refused <- oauth.From(err)
			})
		}
		synctest.Wait()
		if got := underWay.Load(); got != int64(clientauth.Parallel()) {
			t.Errorf("%d slow hashes under way, want %d", got, clientauth.Parallel())
		}
		if len(refused) != 10 {
			t.Errorf("%d refused at once, want 10", len(refused))
		}
		for range len(refused) {
			if e := <-refused; e.Code != oauth.TemporarilyUnavailable || !e.Limited || e.RetryAfter <= 0 {
				t.Errorf("got %+v, want a limit with the time to wait", e)
			}
		}
		close(gate)
		group.Wait()
		for range clientauth.Queued {
			if e := <-refused; e.Code != oauth.InvalidClient {
				t.Errorf("got %v, want %s", e, oauth.InvalidClient)
			}
		}
	})
	// Generated secrets do not wait for chosen ones.
	synctest.Test(t, func(t *testing.T) {
		a, _, gate := blocked(clients)
		var group sync.WaitGroup
		for range clientauth.Queued {
			group.Go(func() { _, _, _ = a.Authenticate(t.Context(), post("a", "guess")) })
		}
		synctest.Wait()
		if _, _, err := a.Authenticate(t.Context(), post("fast", generated)); err != nil {
			t.Errorf("got %v", err)
		}
		close(gate)
		group.Wait()
	})
}

func TestCallerStopsWaiting(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	synctest.Test(t, func(t *testing.T) {
		a, underWay, gate := blocked(clients)
		var group sync.WaitGroup
		for range clientauth.Parallel() {
			group.Go(func() { _, _, _ = a.Authenticate(t.Context(), post("a", "guess")) })
		}
		synctest.Wait()
		// More than the queue holds: each gives its place back when it stops waiting.
		for range clientauth.Queued + 1 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _, err := a.Authenticate(ctx, post("a", "guess"))
			cancel()
			if e := oauth.From(err); e.Code != oauth.TemporarilyUnavailable || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, want %s for %v", err, oauth.TemporarilyUnavailable, context.DeadlineExceeded)
			}
		}
		if got := underWay.Load(); got != int64(clientauth.Parallel()) {
			t.Errorf("%d slow hashes were begun, want %d", got, clientauth.Parallel())
		}
		close(gate)
		group.Wait()
	})
}

// One source cannot take every place in the queue: a client elsewhere gets in.
func TestSourceShare(t *testing.T) {
	clients := registered{"a": client("a", "chosen")}
	a := newAuthenticator(clients)
	gate, entered := make(chan struct{}), make(chan struct{}, clientauth.Queued)
	a.Pretend(func(registry.Hash, string) bool {
		entered <- struct{}{}
		<-gate
		return true
	})
	var flood sync.WaitGroup
	refused := make(chan error, clientauth.Queued)
	for range clientauth.Queued {
		flood.Go(func() {
			e := post("a", rand.Text())
			e.Source = "192.0.2.1"
			if _, _, err := a.Authenticate(t.Context(), e); err != nil {
				refused <- err
			}
		})
	}
	for range clientauth.Parallel() {
		<-entered
	}
	for range clientauth.Queued - clientauth.SourceShare {
		if err := <-refused; oauth.From(err).Code != oauth.TemporarilyUnavailable || !oauth.From(err).Limited {
			t.Fatalf("beyond the share: got %v, want a limit", err)
		}
	}
	done := make(chan error, 1)
	go func() {
		e := post("a", "chosen")
		e.Source = "192.0.2.2"
		_, _, err := a.Authenticate(t.Context(), e)
		done <- err
	}()
	close(gate)
	if err := <-done; err != nil {
		t.Errorf("from elsewhere: got %v, want in", err)
	}
	flood.Wait()
}

func TestAssertion(t *testing.T) {
	a := newAuthenticator(registered{"a": client("a", "chosen")})
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("a:chosen"))
	for name, test := range map[string]struct {
		evidence clientauth.Evidence
		want     oauth.Code
	}{
		"alone":          {clientauth.Evidence{Assertion: "j", AssertionType: "t"}, oauth.InvalidClient},
		"without type":   {clientauth.Evidence{Assertion: "j"}, oauth.InvalidRequest},
		"type alone":     {clientauth.Evidence{AssertionType: "t"}, oauth.InvalidRequest},
		"with a secret":  {clientauth.Evidence{Assertion: "j", AssertionType: "t", ClientID: "a", ClientSecret: "chosen"}, oauth.InvalidRequest},
		"with Basic":     {clientauth.Evidence{Assertion: "j", AssertionType: "t", Authorization: basic}, oauth.InvalidRequest},
		"Basic by a tab": {clientauth.Evidence{Authorization: "Basic\tYTpi", ClientID: "a", ClientSecret: "chosen"}, oauth.InvalidRequest},
	} {
		if _, _, err := a.Authenticate(t.Context(), test.evidence); oauth.From(err).Code != test.want {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}
