package service_test

import (
	"crypto/rand"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/rest"
	"github.com/grantorhq/grantor/service/trust"
)

// cloud is an issuer whose keys are registered, so that no request is made for them.
type cloud struct {
	name   string
	signer jwstest.Signer
}

func (c *cloud) entry() trust.Issuer {
	return trust.Issuer{Issuer: c.name, Keys: must.Get(jwks.ParseDocument(jwstest.Set(c.signer)))}
}

// token returns a token of the issuer for a service account.
func (c *cloud) token(name, id string) string {
	return c.signer.Sign(jwstest.Object{"alg": string(c.signer.Algorithm), "kid": c.signer.Key().ID()}, jwstest.Object{
		"iss": c.name, "sub": "sa:shop:" + name, "aud": "https://issuer.test", "exp": time.Now().Add(time.Hour).Unix(), "jti": id,
	})
}

// federatedManifest returns one that trusts the issuers, whose service accounts are clients with the name of the issuer's host.
func federatedManifest(issuers ...trust.Issuer) registry.Manifest {
	m := manifest()
	m.Issuers = issuers
	for _, i := range issuers {
		host, _, _ := strings.Cut(strings.TrimPrefix(i.Issuer, "https://"), ".")
		m.Workloads = append(m.Workloads, trust.Workload{
			ClientID: must.Get(trust.ParsePattern(host + ":{name}")), Scopes: must.Get(oauth.ParseScopes("api1")),
			Rule: trust.Rule{Issuer: i.Issuer, Subject: must.Get(trust.ParsePattern("sa:shop:{name}"))},
		})
	}
	return m
}

// issueWith requests a token with an assertion.
func (r *replica) issueWith(t *testing.T, assertion string) (string, error) {
	t.Helper()
	answer, err := r.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientAssertionType: clientauth.AssertionType, ClientAssertion: assertion,
	})
	return answer.GetAccessToken(), err
}

// TestFederatedReplicas checks that what one replica changes is in effect at the other, that a token for an assertion takes
// neither a write nor a read, and that one for single use is used once in all.
func TestFederatedReplicas(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	sa := &cloud{"https://cloud.example", jwstest.NewSigner(jwks.ES256)}
	once := &cloud{"https://once.example", jwstest.NewSigner(jwks.ES256)}
	single := once.entry()
	single.SingleUse = true
	a.apply(t, federatedManifest(sa.entry(), single))
	catchUp := func() {
		t.Helper()
		must.Succeed(t, a.CatchUp(withTimeout(t, timeout)))
		must.Succeed(t, b.CatchUp(withTimeout(t, timeout)))
	}
	catchUp()
	orders, another := sa.token("orders", "1"), sa.token("orders", "2")
	var issued string
	for _, r := range []*replica{a, b, a} {
		raw, err := r.issueWith(t, orders)
		must.Succeed(t, err)
		r.expectActive(t, raw, true)
		issued = raw
	}
	if log := a.log.String(); !strings.Contains(log, "client_id=cloud:orders auth_method=federated_jwt identity=\"https://cloud.example sa:shop:orders\"") {
		t.Errorf("the log lacks who it was:\n%s", log)
	}
	first := once.token("jobs", "1")
	if _, err := a.issueWith(t, first); err != nil {
		t.Error(err)
	}
	for _, r := range []*replica{a, b} {
		_, err := r.issueWith(t, first)
		expectCode(t, err, codes.Unauthenticated)
	}

	c.redis.Freeze()
	t.Cleanup(c.redis.Thaw)
	for _, assertion := range []string{orders, another, orders} {
		if _, err := a.issueWith(t, assertion); err != nil {
			t.Errorf("while the Redis is frozen: %v", err)
		}
	}
	_, err := a.issueWith(t, once.token("jobs", "2"))
	expectCode(t, err, codes.Unavailable)
	c.redis.Thaw()
	catchUp()

	id := must.Get(oauth.ParseClientID("cloud:orders"))
	_, err = a.Editor().UpdateClient(t.Context(), registry.Target{ID: id}, func(c *registry.Client) error { c.Disabled = true; return nil })
	must.Succeed(t, err)
	catchUp()
	for _, r := range []*replica{a, b} {
		_, err := r.issueWith(t, orders)
		expectCode(t, err, codes.Unauthenticated)
		r.expectActive(t, issued, false)
		if _, err := r.issueWith(t, sa.token("invoices", "1")); err != nil {
			t.Errorf("another client of the workload: %v", err)
		}
	}
	must.Succeed(t, a.Editor().DeleteWorkload(t.Context(), "cloud:{name}", ""))
	catchUp()
	for _, r := range []*replica{a, b} {
		_, err := r.issueWith(t, sa.token("invoices", "1"))
		expectCode(t, err, codes.Unauthenticated)
	}
}

// TestSingleUseReplicas sends the tokens of an issuer with single_use to two replicas, on each wire, while their Redis
// stops and comes back: none is accepted twice, and none while it is not known whether it was used.
func TestSingleUseReplicas(t *testing.T) {
	c := newCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	a, b := c.start(t), c.start(t)
	once := &cloud{"https://once.example", jwstest.NewSigner(jwks.ES256)}
	entry := once.entry()
	entry.SingleUse = true
	a.apply(t, federatedManifest(entry))
	must.Succeed(t, b.CatchUp(withTimeout(t, timeout)))
	const refused, unknown = "invalid_client", "temporarily_unavailable"
	requests := map[string]func(r *replica, assertion string) wireAnswer{
		"REST": func(r *replica, assertion string) wireAnswer { return r.overREST(t, byAssertion(assertion)()) },
		"gRPC": func(r *replica, assertion string) wireAnswer {
			return requestOverGRPC(t, r.tokens, byAssertion(assertion)())
		},
	}
	both := func(what string, r *replica, assertions map[string]string, want string) {
		t.Helper()
		for wire, request := range requests {
			if got := request(r, assertions[wire]).outcome(); got != want {
				t.Errorf("%s over %s: got %q, want %q", what, wire, got, want)
			}
		}
	}
	fresh := func() map[string]string {
		return map[string]string{"REST": once.token("jobs", rand.Text()), "gRPC": once.token("jobs", rand.Text())}
	}
	used, kept := fresh(), fresh()
	both("the first use", a, used, "once:jobs")
	both("at the same replica", a, used, refused)
	both("at the other replica", b, used, refused)
	both("at the other replica, on the other wire", b, map[string]string{"REST": used["gRPC"], "gRPC": used["REST"]}, refused)
	c.redis.Stop()
	both("without the Redis", b, kept, unknown)
	both("a used one without the Redis", a, used, unknown)
	c.redis.Start()
	must.Eventually(t, "the Redis is back", func() bool {
		return requests["gRPC"](a, once.token("jobs", rand.Text())).code == "" && requests["gRPC"](b, once.token("jobs", rand.Text())).code == ""
	})
	both("after the Redis came back", a, used, refused)
	both("after the Redis came back, at the other", b, used, refused)
	both("one that was refused without the Redis", a, kept, "once:jobs")
	both("that one again", b, kept, refused)
}

// overREST requests a token of the replica over REST.
func (r *replica) overREST(t *testing.T, e evidence) wireAnswer {
	t.Helper()
	server := httptest.NewServer(must.Get(rest.New(t.Context(), must.Get(oauth.ParseIssuer("https://issuer.test")), r.Service)))
	defer server.Close()
	return requestOverREST(t, server.Client(), server.URL, e)
}
