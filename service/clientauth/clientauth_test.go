package clientauth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	start     = time.Unix(1_800_000_000, 0)
	hasher    = must.Get(clientsecret.NewHasher([]byte(strings.Repeat("p", 32))))
	generated = clientsecret.New()
	// oldSecret and newSecret are the secrets of a client that replaces its secret.
	oldSecret, newSecret = clientsecret.New(), clientsecret.New()
)

// registered implements clientauth.Clients with a map keyed by client ID. A nil entry makes the lookup fail.
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
	c := &registry.Client{ID: must.Get(oauth.ParseClientID(id))}
	for i, s := range secrets {
		c.Secrets = append(c.Secrets, clientsecret.Secret{ID: fmt.Sprintf("%s-%d", id, i), Hash: hasher.Hash(s, c.Secrets...)})
	}
	return c
}

// uses records uses of secrets, newest last.
type uses struct {
	mu   sync.Mutex
	list []registry.Use
}

func (u *uses) Note(client oauth.ClientID, secretID string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = append(u.list, registry.Use{Client: client, SecretID: secretID, At: at})
}

func newAuthenticator(clients registered) *clientauth.Authenticator {
	return newRecorded(clients, &uses{})
}

func newRecorded(clients registered, noted *uses) *clientauth.Authenticator {
	return clientauth.New(clientauth.Config{
		Clients: clients, Hasher: hasher, Uses: noted, Failures: limiter(0, 0), Now: func() time.Time { return start },
	})
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

// with returns e with the parameters client_id and client_secret.
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
	clients["two"] = client("two", oldSecret, newSecret)
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
		want     oauth.Code // "" if the client is authenticated
	}{
		"none":              {clientauth.Evidence{}, "", oauth.InvalidClient},
		"id alone":          {post("a", ""), "", oauth.InvalidClient},
		"secret alone":      {post("", generated), "", oauth.InvalidClient},
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
		"empty id":              {raw(":" + generated), isBasic, oauth.InvalidClient},
		"empty secret":          {raw("a:"), isBasic, oauth.InvalidClient},
		"both empty":            {raw(":"), isBasic, oauth.InvalidClient},
		"bearer alone":          {authorization("Bearer x"), "", oauth.InvalidClient},
		"bearer and post":       {with(authorization("Bearer x"), "a", generated), isPost, ""},
		"long s alone":          {authorization("Ba\u017fic " + encoded), "", oauth.InvalidClient},
		"long s and post":       {with(authorization("Ba\u017fic "+encoded), "a", generated), isPost, ""},
		"long s, assertion":     {clientauth.Evidence{Assertion: "j", AssertionType: "t", Authorization: "Ba\u017fic " + encoded}, "", oauth.InvalidClient},
		"scheme like basic":     {with(authorization("Basicx "+encoded), "a", generated), isPost, ""},
		"long header":           {authorization("Basic " + strings.Repeat("A", 100_000)), isBasic, oauth.InvalidClient},
		"long id":               {basic(long, generated), isBasic, oauth.InvalidRequest},
		"long secret":           {basic("a", longSecret), isBasic, oauth.InvalidRequest},
		"long id, post":         {post(long, generated), isPost, oauth.InvalidRequest},
		"long secret, post":     {post("a", longSecret), isPost, oauth.InvalidRequest},
		"wrong secret":          {post("a", oldSecret), isPost, oauth.InvalidClient},
		"unknown client":        {post("b", generated), isPost, oauth.InvalidClient},
		"letter case of id":     {post("A", generated), isPost, oauth.InvalidClient},
		"id that is none":       {post("a b", generated), isPost, oauth.InvalidClient},
		"id with a NUL":         {post("a\x00", generated), isPost, oauth.InvalidClient},
		"client without secret": {post("bare", generated), isPost, oauth.InvalidClient},
		"disabled":              {post("disabled", generated), isPost, oauth.InvalidClient},
		"disabled, wrong":       {post("disabled", oldSecret), isPost, oauth.InvalidClient},
		"expired":               {post("two", oldSecret), isPost, oauth.InvalidClient},
		"the other of two":      {post("two", newSecret), isPost, ""},
		"basic only, basic":     {basic("basic", generated), isBasic, ""},
		"basic only, post":      {post("basic", generated), isPost, oauth.InvalidClient},
		"post only, post":       {post("post", generated), isPost, ""},
		"post only, basic":      {basic("post", generated), isBasic, oauth.InvalidClient},
		"store fails":           {post("down", generated), isPost, oauth.TemporarilyUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			proven, err := a.Authenticate(t.Context(), test.evidence)
			got, method := proven.Client, proven.Method
			code := oauth.Code("")
			if err != nil {
				refusal := oauth.From(err)
				code = refusal.Code
				// The cause is for the operator; the client reads the same text for every cause.
				if code == oauth.InvalidClient && refusal.Text != "Client authentication failed." {
					t.Errorf("the client reads %q", refusal.Text)
				}
				if strings.Contains(err.Error(), generated) || strings.Contains(err.Error(), oldSecret) {
					t.Errorf("the error shows the secret: %v", err)
				}
			}
			if code != test.want || method != test.method || (got != nil) != (test.want == "") {
				t.Errorf("got %v, %q, %v, want %q, %q", got, method, err, test.method, test.want)
			}
			if got != nil && got != clients[got.ID.String()] {
				t.Errorf("got %v, which is not the registered client", got)
			}
		})
	}
}

// counter counts the computed slow and fast hashes.
type counter struct{ slow, fast atomic.Int64 }

func count(a *clientauth.Authenticator) *counter {
	c := &counter{}
	a.OnFind(func(secret string) {
		if clientsecret.Generated(secret) {
			c.fast.Add(1)
		} else {
			c.slow.Add(1)
		}
	})
	return c
}

// clientsOfAllKinds returns clients that a caller with a wrong secret must not be able to tell apart.
func clientsOfAllKinds() registered {
	clients := registered{
		"fast": client("fast", generated), "slow": client("slow", "chosen"), "bare": client("bare"),
		"three": client("three", "chosen", "another", generated, "third"), "disabled": client("disabled", "chosen", generated),
		"post": client("post", "chosen", generated), "expired": client("expired", "chosen", generated),
	}
	clients["disabled"].Disabled = true
	clients["post"].AuthMethods = []string{oauth.ClientSecretBasic}
	for i := range clients["expired"].Secrets {
		clients["expired"].Secrets[i].ExpiresAt = start
	}
	return clients
}

// The kind and the amount of work depend on the secret that was sent, not on the client that was named. The test of
// clientsecret.Hasher.Match counts what one comparison computes.
func TestSameWork(t *testing.T) {
	clients := clientsOfAllKinds()
	a := newAuthenticator(clients)
	c := count(a)
	work := map[string]string{"guess": "1 slow, 0 fast", clientsecret.New(): "0 slow, 1 fast"}
	for _, id := range []string{"unknown", "fast", "slow", "bare", "three", "disabled", "post", "expired", "no id"} {
		for secret, want := range work {
			if _, err := a.Authenticate(t.Context(), post(id, secret)); oauth.From(err).Code != oauth.InvalidClient {
				t.Errorf("%s: got %v", id, err)
			}
			if got := fmt.Sprintf("%d slow, %d fast", c.slow.Swap(0), c.fast.Swap(0)); got != want {
				t.Errorf("%s with %s: got %s, want %s", id, secret, got, want)
			}
		}
	}
	// Nor does the work show that a secret is right if it does not authenticate, however often it is sent.
	for _, id := range []string{"disabled", "post", "expired"} {
		for range 2 {
			if _, err := a.Authenticate(t.Context(), post(id, "chosen")); oauth.From(err).Code != oauth.InvalidClient {
				t.Errorf("%s: got %v", id, err)
			}
			if got := c.slow.Swap(0); got != 1 {
				t.Errorf("%s, with the right secret: %d slow hashes", id, got)
			}
		}
	}
}

// BenchmarkRefusal measures what TestSameWork counts.
func BenchmarkRefusal(b *testing.B) {
	a := newAuthenticator(clientsOfAllKinds())
	for kind, secret := range map[string]string{"chosen": "guess", "generated": clientsecret.New()} {
		for _, id := range []string{"unknown", "slow", "three", "disabled", "expired"} {
			b.Run(kind+"/"+id, func(b *testing.B) {
				for b.Loop() {
					if _, err := a.Authenticate(b.Context(), post(id, secret)); err == nil {
						b.Fatal("a guess was accepted")
					}
				}
			})
		}
	}
}

// While a client replaces its secret, both the old and the new one are valid, each until it expires.
func TestOverlap(t *testing.T) {
	for name, secrets := range map[string][2]string{
		"generated": {oldSecret, newSecret}, "chosen": {"old secret", "new secret"}, "chosen, then generated": {"old secret", newSecret},
	} {
		noted, now := &uses{}, start
		c := client("a", secrets[:]...)
		c.Secrets[0].ExpiresAt = start.Add(time.Hour)
		a := clientauth.New(clientauth.Config{
			Clients: registered{"a": c}, Hasher: hasher, Uses: noted, Failures: limiter(0, 0), Now: func() time.Time { return now },
		})
		for _, step := range []struct {
			at     time.Duration
			secret int
			ok     bool
		}{{0, 0, true}, {0, 1, true}, {time.Hour - 1, 0, true}, {time.Hour, 0, false}, {time.Hour, 1, true}} {
			now = start.Add(step.at)
			before := len(noted.list)
			_, err := a.Authenticate(t.Context(), post("a", secrets[step.secret]))
			if (err == nil) != step.ok {
				t.Errorf("%s: secret %d after %s: got %v", name, step.secret, step.at, err)
			}
			// The use names the very secret; a refusal records none.
			var want []registry.Use
			if step.ok {
				want = []registry.Use{{Client: c.ID, SecretID: c.Secrets[step.secret].ID, At: now}}
			}
			if got := noted.list[before:]; !slices.Equal(got, want) {
				t.Errorf("%s: secret %d after %s: noted %v, want %v", name, step.secret, step.at, got, want)
			}
		}
	}
}

func TestRefusalIsNoUse(t *testing.T) {
	noted := &uses{}
	a := newRecorded(clientsOfAllKinds(), noted)
	for _, id := range []string{"unknown", "bare", "disabled", "post", "expired"} {
		for _, secret := range []string{"chosen", generated} {
			if _, err := a.Authenticate(t.Context(), post(id, secret)); err == nil {
				t.Errorf("%s was accepted", id)
			}
		}
	}
	if len(noted.list) > 0 {
		t.Errorf("noted %v", noted.list)
	}
}

func TestChosenSecretIsRemembered(t *testing.T) {
	clients := registered{"a": client("a", "chosen"), "b": client("b", "chosen")}
	a := newAuthenticator(clients)
	c := count(a)
	expect := func(id, secret string, ok bool, slow int64) {
		t.Helper()
		_, err := a.Authenticate(t.Context(), post(id, secret))
		if got := c.slow.Swap(0); (err == nil) != ok || got != slow {
			t.Errorf("%s, %s: got %v after %d slow hashes, want ok %v after %d", id, secret, err, got, ok, slow)
		}
	}
	expect("a", "chosen", true, 1)
	expect("a", "chosen", true, 0)
	// It is remembered neither for another client nor for another secret.
	expect("b", "chosen", true, 1)
	expect("a", "wrong", false, 1)
	expect("a", "wrong", false, 1)
	// It is forgotten when the secret expires, the client is removed or the client may no longer authenticate.
	before := clients["a"]
	disabled := *before
	disabled.Disabled = true
	clients["a"] = &disabled
	expect("a", "chosen", false, 1) // it takes as long as a wrong one, so as not to show that it is right
	expect("a", "chosen", false, 1)
	expired := *before
	expired.Secrets = slices.Clone(before.Secrets)
	expired.Secrets[0].ExpiresAt = start
	clients["a"] = &expired
	expect("a", "chosen", false, 1)
	clients["a"] = client("a", "another")
	expect("a", "chosen", false, 1)
	delete(clients, "a")
	expect("a", "chosen", false, 1)
	clients["a"] = before
	expect("a", "chosen", true, 0)
}

// Concurrent requests with the same secret need few hashes, not one each.
func TestSameSecretAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(registered{"a": client("a", "chosen")})
		c := count(a)
		var group sync.WaitGroup
		for range clientauth.MaxQueued {
			group.Go(func() {
				if _, err := a.Authenticate(t.Context(), post("a", "chosen")); err != nil {
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
		if _, err := a.Authenticate(t.Context(), test.evidence); oauth.From(err).Code != test.want {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}
