package service_test

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/codes"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// tryWith requests a token with the secret.
func (r *replica) tryWith(t testing.TB, secret string) error {
	t.Helper()
	_, err := r.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: secret,
	})
	return err
}

// svc returns the client as it is stored.
func (r *replica) svc(t testing.TB) *registry.Client {
	t.Helper()
	c, err := r.store.Client(t.Context(), must.Get(oauth.ParseClientID("svc")))
	must.Succeed(t, err)
	return c
}

// change stores a change of svc, and returns when it is in effect at all replicas.
func (r *replica) change(t testing.TB, change func(*registry.Client), others ...*replica) {
	t.Helper()
	c := *r.svc(t)
	c.Secrets = slices.Clone(c.Secrets)
	change(&c)
	must.Succeed(t, r.store.SaveClient(t.Context(), &c))
	for _, replica := range append(others, r) {
		must.Succeed(t, replica.CatchUp(withTimeout(t, timeout)))
	}
}

// lastUse returns when svc last authenticated with the secret.
func (r *replica) lastUse(t testing.TB, id string) time.Time {
	t.Helper()
	c := r.svc(t)
	found, err := r.store.LastUses(t.Context(), []oauth.ClientID{c.ID})
	must.Succeed(t, err)
	for i := range c.Secrets {
		if c.Secrets[i].ID == id {
			return c.Secrets[i].LastUse(found[c.ID])
		}
	}
	return time.Time{}
}

// expectAccepted checks which of the secrets are accepted.
func (r *replica) expectAccepted(t testing.TB, want map[string]bool) {
	t.Helper()
	for secret, accepted := range want {
		code := codes.Unauthenticated
		if accepted {
			code = codes.OK
		}
		expectCode(t, r.tryWith(t, secret), code)
	}
}

// TestRotation changes secrets while two replicas serve: both old and new are accepted until the old one expires.
func TestRotation(t *testing.T) {
	const chosen, next = "a chosen secret", "the next chosen secret"
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	hasher := a.Hasher()
	add := func(id, value string) func(*registry.Client) {
		return func(c *registry.Client) {
			c.Secrets = append(c.Secrets, clientsecret.Secret{ID: id, Hash: hasher.Hash(value, c.Secrets...), CreatedAt: time.Now()})
		}
	}
	fresh := clientsecret.New()
	a.change(t, add("2", fresh), b)
	a.change(t, add("3", chosen), b)
	a.change(t, add("4", next), b)
	for _, r := range []*replica{a, b} {
		r.expectAccepted(t, map[string]bool{secret: true, fresh: true, chosen: true, next: true, clientsecret.New(): false, "wrong": false})
	}
	stored := a.svc(t).Secrets
	for i := range stored {
		if clientsecret.Outdated(stored, i) {
			t.Errorf("secret %s does not share the salt", stored[i].ID)
		}
	}
	b.change(t, func(c *registry.Client) {
		c.Secrets[0].ExpiresAt, c.Secrets[2].ExpiresAt = time.Now(), time.Now()
	}, a)
	for _, r := range []*replica{a, b} {
		r.expectAccepted(t, map[string]bool{secret: false, fresh: true, chosen: false, next: true})
	}
}

// openIddict returns the hash of a secret as OpenIddict has it.
func openIddict(t testing.TB, secret string) string {
	t.Helper()
	salt := make([]byte, 16)
	sum, err := pbkdf2.Key(sha256.New, secret, salt, 10_000, 32)
	must.Succeed(t, err)
	header := []byte{1, 0, 0, 0, 1, 0, 0, 39, 16, 0, 0, 0, 16}
	return base64.StdEncoding.EncodeToString(slices.Concat(header, salt, sum))
}

// TestImportedSecrets checks that the hashes of other servers are replaced when their secrets are used.
func TestImportedSecrets(t *testing.T) {
	const fromOpenIddict, fromHydra = "a secret of OpenIddict's", "a secret of Hydra's"
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	hydra := must.Get(bcrypt.GenerateFromPassword([]byte(fromHydra), bcrypt.MinCost))
	created, expires := time.Now().Add(-time.Hour).Truncate(time.Second), time.Now().Add(time.Hour).Truncate(time.Second)
	a.change(t, func(c *registry.Client) {
		c.Secrets = append(c.Secrets,
			clientsecret.Secret{ID: "o", Hash: must.Get(clientsecret.ParseImported(openIddict(t, fromOpenIddict))), CreatedAt: created, ExpiresAt: expires},
			clientsecret.Secret{ID: "h", Hash: must.Get(clientsecret.ParseImported(string(hydra))), CreatedAt: created})
	}, b)
	before := a.svc(t)
	raw := a.token(t)
	a.expectAccepted(t, map[string]bool{"wrong": false})
	for i := range before.Secrets[1:] {
		if got := a.svc(t).Secrets[i+1].Hash; got.Kind() != clientsecret.KindImported {
			t.Errorf("got %s before its use, want the imported hash", got)
		}
	}
	// At both replicas, which race to replace them.
	for range 5 {
		for _, r := range []*replica{a, b} {
			r.expectAccepted(t, map[string]bool{fromOpenIddict: true, fromHydra: true, secret: true})
		}
	}
	// A replica that loses the race retries at the next use.
	must.Eventually(t, "the hashes are replaced", func() bool {
		a.expectAccepted(t, map[string]bool{fromOpenIddict: true, fromHydra: true})
		secrets := a.svc(t).Secrets
		return secrets[1].Hash.Kind() == clientsecret.KindChosen && secrets[2].Hash.Kind() == clientsecret.KindChosen
	})
	after := a.svc(t)
	for i, s := range after.Secrets {
		was := before.Secrets[i]
		if s.ID != was.ID || !s.CreatedAt.Equal(was.CreatedAt) || !s.ExpiresAt.Equal(was.ExpiresAt) || clientsecret.Outdated(after.Secrets, i) {
			t.Errorf("got %+v, want %+v with one salt", s, was)
		}
	}
	for _, r := range []*replica{a, b} {
		must.Succeed(t, r.CatchUp(withTimeout(t, timeout)))
		r.expectAccepted(t, map[string]bool{fromOpenIddict: true, fromHydra: true, secret: true, "wrong": false})
		r.expectActive(t, raw, true)
		if r.log.count("replacing the imported hash") > 0 {
			t.Error("the log reports a failure to replace one")
		}
	}
}

// TestLastUse has two replicas record when secrets were used.
func TestLastUse(t *testing.T) {
	c := newCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	first, gone, other := a.svc(t).Secrets[0].ID, clientsecret.New(), clientsecret.New()
	hasher := a.Hasher()
	a.change(t, func(c *registry.Client) {
		c.Secrets = append(c.Secrets,
			clientsecret.Secret{ID: "gone", Hash: hasher.Hash(gone), CreatedAt: time.Now()},
			clientsecret.Secret{ID: "other", Hash: hasher.Hash(other), CreatedAt: time.Now()},
			clientsecret.Secret{ID: "never", Hash: hasher.Hash(clientsecret.New()), CreatedAt: time.Now()})
	}, b)
	began := time.Now().Truncate(time.Second)
	b.expectAccepted(t, map[string]bool{secret: true, gone: true, other: true})
	a.expectAccepted(t, map[string]bool{secret: true, gone: true})
	expect := func(r *replica, what string, want map[string]bool) {
		t.Helper()
		for id, used := range want {
			if at := r.lastUse(t, id); at.IsZero() == used || used && (at.Before(began) || at.After(time.Now())) {
				t.Errorf("%s: %s was last used at %s, the test began at %s", what, id, at, began)
			}
		}
	}
	expect(a, "before it is written", map[string]bool{first: false, "gone": false, "other": false, "never": false})
	a.stop()
	expect(a, "of one replica", map[string]bool{first: true, "gone": true, "other": false, "never": false})
	// The other replica stops after the secret that it saw used is deleted.
	b.change(t, func(c *registry.Client) {
		c.Secrets = slices.DeleteFunc(c.Secrets, func(s clientsecret.Secret) bool { return s.ID == "gone" })
	})
	b.stop()
	want := map[string]bool{first: true, "gone": false, "other": true, "never": false}
	expect(b, "of both", want)
	found, err := b.store.LastUses(t.Context(), []oauth.ClientID{b.svc(t).ID})
	must.Succeed(t, err)
	if got := len(found[b.svc(t).ID]); got != 2 {
		t.Errorf("got %d uses, want those of the two secrets that exist", got)
	}
	c.redis.Kill()
	c.redis.Start()
	last := c.start(t)
	expect(last, "after a restart", want)
	// The uses of a client that was deleted in between are not written.
	last.token(t)
	svc := last.svc(t)
	must.Succeed(t, last.store.DeleteClient(t.Context(), svc.ID, svc.Version))
	last.stop()
	if found, err := last.store.LastUses(t.Context(), []oauth.ClientID{svc.ID}); len(found) > 0 || err != nil {
		t.Errorf("of a deleted client: %v, %v", found, err)
	}
}

// TestLastUseOutage freezes the Redis while secrets are used and when the replica stops. Neither waits for it for long.
func TestLastUseOutage(t *testing.T) {
	c := newCluster(t)
	r := c.start(t)
	r.apply(t, manifest())
	r.token(t)
	c.redis.Freeze()
	defer c.redis.Thaw()
	r.token(t)
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if r.log.count("writing when secrets were last used") != 1 {
		t.Error("the log does not report that uses are lost")
	}
}
