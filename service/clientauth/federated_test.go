package clientauth_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/egress"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/trust"
	"github.com/grantorhq/grantor/service/trusttest"
)

func pattern(text string) trust.Pattern { return must.Get(trust.ParsePattern(text)) }

// trusted implements clientauth.Trust.
type trusted struct {
	table atomic.Pointer[trust.Table]
	fail  atomic.Bool
	reads atomic.Int64
}

func (f *trusted) Trust(context.Context) (*trust.Table, error) {
	f.reads.Add(1)
	if f.fail.Load() {
		return nil, errors.New("down")
	}
	return f.table.Load(), nil
}

// set replaces the table.
func (f *trusted) set(issuers []trust.Issuer, workloads ...trust.Workload) {
	version := uint64(1)
	if before := f.table.Load(); before != nil {
		version += before.Version()
	}
	f.table.Store(must.Get(trust.NewTable(version, issuers, workloads)))
}

// federated is an authenticator that trusts issuers.
type federated struct {
	*clientauth.Authenticator

	trust   *trusted
	clients registered
	replays *replays
	clock   atomic.Pointer[time.Time]
}

var loopback = remoteaddr.Networks{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newFederated(directories ...string) *federated {
	f := &federated{trust: &trusted{}, clients: registered{}, replays: &replays{}}
	f.clock.Store(&start)
	f.trust.set(nil)
	f.Authenticator = clientauth.New(clientauth.Config{
		Issuer: must.Get(oauth.ParseIssuer(issuer)), Clients: f.clients, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0),
		Replays: f.replays, Now: func() time.Time { return *f.clock.Load() }, Fetch: egress.NewClient(egress.Config{Allowed: loopback}),
		Federation: clientauth.Federation{Trust: f.trust, Networks: loopback, Directories: directories},
	})
	return f
}

func (f *federated) advance(d time.Duration) {
	now := f.clock.Load().Add(d)
	f.clock.Store(&now)
}

// authenticate returns the ID of the client that the token proves, or the reason of the refusal.
func (f *federated) authenticate(t *testing.T, token, id string) string {
	t.Helper()
	e := assertion(token)
	e.ClientID = id
	proven, err := f.Authenticate(t.Context(), e)
	if err != nil {
		if proven.Client != nil {
			t.Errorf("got a client with the error %v", err)
		}
		refusal := oauth.From(err)
		if refusal.Code == oauth.InvalidClient && refusal.Text != "Client authentication failed." {
			t.Errorf("got the text %q", refusal.Text)
		}
		return string(refusal.Why())
	}
	if proven.Method != oauth.FederatedJWT || proven.Identity == "" {
		t.Errorf("got %q as %q", proven.Method, proven.Identity)
	}
	return proven.Client.ID.String()
}

func (f *federated) expect(t *testing.T, what, token, id, want string) {
	t.Helper()
	if got := f.authenticate(t, token, id); got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// kubernetes is the workload that makes a client of each service account of the namespace shop.
func kubernetes(issuer string) trust.Workload {
	return trust.Workload{
		ClientID: pattern("k8s:{namespace}:{name}"), Where: trust.Captures{"namespace": "shop"},
		Rule:   trust.Rule{Issuer: issuer, Subject: pattern("system:serviceaccount:{namespace}:{name}")},
		Scopes: must.Get(oauth.ParseScopes("a b")), AccessTokenLifetime: time.Hour,
	}
}

// TestKubernetes authenticates by the tokens of a cluster whose keys are behind TLS with an authority of its own and ask for a
// token, which the kubelet replaces.
func TestKubernetes(t *testing.T) {
	k := trusttest.NewKubernetes(t)
	f := newFederated(k.Directory)
	entry := trust.Issuer{Issuer: k.Name, KeysURI: k.KeysURL(), CAFile: k.CAFile(), BearerTokenFile: k.TokenFile()}
	f.trust.set([]trust.Issuer{entry}, kubernetes(k.Name))
	token := func(namespace, name string) string {
		return k.SignKubernetes(k.ServiceAccount(namespace, name, issuer, start))
	}
	orders := token("shop", "orders")
	f.expect(t, "a service account", orders, "", "k8s:shop:orders")
	f.expect(t, "with its id", orders, "k8s:shop:orders", "k8s:shop:orders")
	f.expect(t, "with another id", orders, "k8s:shop:invoices", "no_matching_rule")
	f.expect(t, "another namespace", token("other", "orders"), "", "no_matching_rule")
	if got := k.Requests.Load(); got != 1 {
		t.Errorf("%d requests for the keys, want 1", got)
	}
	proven := must.Get(f.Authenticate(t.Context(), assertion(orders)))
	if want := (&registry.Client{
		ID: proven.Client.ID, Workload: true, GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: must.Get(oauth.ParseScopes("a b")),
		AccessTokenLifetime: time.Hour,
	}); proven.Client.ID.String() != "k8s:shop:orders" || proven.Client.Scopes.String() != want.Scopes.String() || !proven.Client.Workload {
		t.Errorf("got %+v, want %+v", proven.Client, want)
	}
	if want := k.Name + " system:serviceaccount:shop:orders"; proven.Identity != want {
		t.Errorf("got %q, want %q", proven.Identity, want)
	}
	// New keys, which only the new token of the pod can read.
	must.Succeed(t, k.Project())
	k.Rotate()
	f.advance(10 * time.Second)
	f.expect(t, "a new key", token("shop", "orders"), "", "k8s:shop:orders")
	f.expect(t, "a token of the old key", orders, "", "wrong_assertion")
	// Without the files the keys cannot be fetched.
	for name, directories := range map[string][]string{"no directory": nil, "another directory": {t.TempDir()}} {
		f := newFederated(directories...)
		f.trust.set([]trust.Issuer{entry}, kubernetes(k.Name))
		f.expect(t, name, orders, "", "keys_unreachable")
	}
}

// TestFederation authenticates registered clients by the tokens of CI jobs.
func TestFederation(t *testing.T) {
	github, gitlab := trusttest.New(t), trusttest.New(t)
	f := newFederated()
	f.trust.set([]trust.Issuer{{Issuer: github.Name}, {Issuer: gitlab.Name}})
	deploy, review, secretOnly := client("deploy"), client("review"), client("secret-only")
	deploy.Federation = []trust.Rule{
		{Issuer: github.Name, Claims: map[string]trust.Pattern{"repository": pattern("acme/orders"), "ref": pattern("refs/heads/main"), "ref_protected": pattern("true")}},
		{Issuer: gitlab.Name, Subject: pattern("project_path:shop/*:ref_type:branch:ref:main")},
	}
	review.Federation = []trust.Rule{{Issuer: github.Name, Subject: pattern("repo:acme/{repo}:ref:refs/heads/{branch}")}}
	secretOnly.Federation, secretOnly.AuthMethods = deploy.Federation, []string{oauth.ClientSecretBasic}
	for _, c := range []*registry.Client{deploy, review, secretOnly, client("keyless")} {
		f.clients[c.ID.String()] = c
	}
	job := func(repository, ref string) string {
		return github.Sign(github.GitHub(repository, ref, issuer, start))
	}
	main, branch := job("acme/orders", "refs/heads/main"), job("acme/orders", "refs/heads/fix")
	f.expect(t, "GitHub", main, "deploy", "deploy")
	f.expect(t, "GitLab", gitlab.Sign(gitlab.GitLab("shop/orders", "main", issuer, start)), "deploy", "deploy")
	f.expect(t, "by the subject", branch, "review", "review")
	f.expect(t, "another branch", branch, "deploy", "no_matching_rule")
	f.expect(t, "another owner", job("evil/orders", "refs/heads/main"), "deploy", "no_matching_rule")
	f.expect(t, "a longer ref", job("acme/orders", "refs/heads/main/x"), "deploy", "no_matching_rule")
	f.expect(t, "claims of another issuer", gitlab.Sign(github.GitHub("acme/orders", "refs/heads/main", issuer, start).With(jwstest.Object{"iss": gitlab.Name})), "deploy", "no_matching_rule")
	f.expect(t, "without an id", main, "", "no_matching_rule")
	f.expect(t, "an unknown client", main, "unknown", "unknown_client")
	f.expect(t, "a client without rules", main, "keyless", "no_matching_rule")
	f.expect(t, "a client that may use its secret alone", main, "secret-only", "auth_method_not_allowed")
	deploy.Disabled = true
	f.expect(t, "a disabled client", main, "deploy", "client_disabled")
	deploy.Disabled, deploy.AllowedNetworks = false, remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8")}
	f.expect(t, "from elsewhere", main, "deploy", "network_not_allowed")
}

// TestLongIdentities has subjects of characters of several bytes. What the audit log gets of them is bounded in bytes, and cut between
// two characters.
func TestLongIdentities(t *testing.T) {
	github := trusttest.New(t)
	f := newFederated()
	f.trust.set([]trust.Issuer{{Issuer: github.Name}})
	deploy := client("deploy")
	deploy.Federation = []trust.Rule{{Issuer: github.Name, Claims: map[string]trust.Pattern{"repository": pattern("acme/orders")}}}
	f.clients["deploy"] = deploy
	const maxName = 512
	for name, character := range map[string]string{"one byte": "a", "two bytes": "é", "three bytes": "€", "four bytes": "🔑"} {
		for padding := range 4 {
			subject := strings.Repeat("-", padding) + strings.Repeat(character, maxName)
			e := assertion(github.Sign(github.GitHub("acme/orders", "refs/heads/main", issuer, start).With(jwstest.Object{"sub": subject})))
			e.ClientID = "deploy"
			got := must.Get(f.Authenticate(t.Context(), e)).Identity
			if len(got) > maxName || len(got) <= maxName-len(character) || !utf8.ValidString(got) || !strings.HasPrefix(github.Name+" "+subject, got) {
				t.Errorf("%s after %d others: got %d bytes %q, want as many as fit into %d", name, padding, len(got), got, maxName)
			}
		}
	}
}

// TestWrongFederated sends assertions that are not in every respect what an issuer may send. All have the same answer.
func TestWrongFederated(t *testing.T) {
	i, other := trusttest.New(t), trusttest.New(t)
	f := newFederated()
	f.trust.set([]trust.Issuer{{Issuer: i.Name, Audience: []string{"https://sts.example.com"}}, {Issuer: other.Name}, {TrustDomain: "prod.example.com", BundleFile: "/run/bundle"}},
		kubernetes(i.Name))
	good := i.ServiceAccount("shop", "orders", issuer, start)
	sign := func(change jwstest.Object) string { return i.SignKubernetes(good.With(change)) }
	in := func(d time.Duration) int64 { return start.Add(d).Unix() }
	signer := i.Signer()
	typed := func(typ string) string {
		return signer.Sign(jwstest.Object{"alg": "RS256", "kid": signer.Key().ID(), "typ": typ}, good)
	}
	// A key of the other issuer, under the kid of this one's.
	forged := func(claims jwstest.Object) string {
		return other.Signer().Sign(jwstest.Object{"alg": "RS256", "kid": signer.Key().ID()}, claims)
	}
	for name, text := range map[string]string{
		"a string as aud": sign(jwstest.Object{"aud": issuer}), "a list of one": sign(nil), "an audience of the issuer": sign(jwstest.Object{"aud": "https://sts.example.com"}),
		"exp a day ahead": sign(jwstest.Object{"exp": in(24 * time.Hour)}), "iat within the leeway": sign(jwstest.Object{"iat": in(20 * time.Second)}),
		"no iat, nbf and jti": sign(jwstest.Object{"iat": nil, "nbf": nil, "jti": nil}), "typ JWT": typed("JWT"), "typ application/jwt": typed("application/jwt"), "an access token": typed("at+jwt"),
	} {
		f.expect(t, name, text, "", "k8s:shop:orders")
	}
	for name, text := range map[string]string{
		"a list of two": sign(jwstest.Object{"aud": []string{issuer, "https://b.example"}}), "another aud": sign(jwstest.Object{"aud": "https://b.example"}), "no aud": sign(jwstest.Object{"aud": nil}),
		"the same aud twice": sign(jwstest.Object{"aud": []string{issuer, issuer}}), "the token endpoint as aud": sign(jwstest.Object{"aud": tokenEndpoint}),
		"aud with a slash": sign(jwstest.Object{"aud": issuer + "/"}), "an empty list": sign(jwstest.Object{"aud": []string{}}),
		"expired": sign(jwstest.Object{"exp": start.Unix()}), "no exp": sign(jwstest.Object{"exp": nil}), "exp as text": sign(jwstest.Object{"exp": "1900000000"}),
		"nbf ahead": sign(jwstest.Object{"nbf": in(time.Minute)}), "iat ahead": sign(jwstest.Object{"iat": in(time.Minute)}), "iat as text": sign(jwstest.Object{"iat": "now"}),
		"the same kid of another issuer": forged(good), "an unknown kid": other.SignKubernetes(good), "typ of a proof": typed("dpop+jwt"), "typ of a logout": typed("logout+jwt"),
		"alg of another family": signer.Sign(jwstest.Object{"alg": "ES256", "kid": signer.Key().ID()}, good),
		"no signature":          strings.TrimRight(sign(nil), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") + "AAAA",
	} {
		f.expect(t, name, text, "", "wrong_assertion")
	}
	for name, iss := range map[string]string{
		"an issuer that is not trusted": "https://c.example", "with a slash": i.Name + "/", "in upper case": strings.ToUpper(i.Name), "a trust domain": "spiffe://prod.example.com",
	} {
		f.expect(t, name, sign(jwstest.Object{"iss": iss}), "", "untrusted_issuer")
	}
	for name, text := range map[string]string{
		"no iss": sign(jwstest.Object{"iss": nil}), "no sub": sign(jwstest.Object{"sub": nil}), "sub a number": sign(jwstest.Object{"sub": 5}), "sub empty": sign(jwstest.Object{"sub": ""}),
	} {
		f.expect(t, name, text, "", "malformed_credentials")
	}
	f.expect(t, "the identity of another issuer", other.SignKubernetes(good.With(jwstest.Object{"iss": other.Name})), "", "no_matching_rule")
	f.trust.fail.Store(true)
	f.expect(t, "the table cannot be read", sign(nil), "", "store_unreachable")
}

// TestSeenBefore checks what a verification that is remembered rests on.
func TestSeenBefore(t *testing.T) {
	i := trusttest.New(t)
	f := newFederated()
	entry := trust.Issuer{Issuer: i.Name, KeysURI: i.KeysURL()}
	f.trust.set([]trust.Issuer{entry}, kubernetes(i.Name))
	token := i.SignKubernetes(i.ServiceAccount("shop", "orders", issuer, start))
	for range 3 {
		f.expect(t, "good", token, "", "k8s:shop:orders")
	}
	// What is remembered does not answer for another client or another kind of evidence.
	e := assertion(token)
	e.AssertionType = "other"
	if _, err := f.Authenticate(t.Context(), e); oauth.From(err).Reason != oauth.MalformedCredentials {
		t.Errorf("another type: got %v", err)
	}
	// The workload has other scopes, or another rule.
	changed := kubernetes(i.Name)
	changed.Scopes = must.Get(oauth.ParseScopes("c"))
	f.trust.set([]trust.Issuer{entry}, changed)
	if got := must.Get(f.Authenticate(t.Context(), assertion(token))).Client.Scopes; got.String() != "c" {
		t.Errorf("after a change of the workload: got the scopes %s, want c", got)
	}
	changed.Where = trust.Captures{"namespace": "other"}
	f.trust.set([]trust.Issuer{entry}, changed)
	f.expect(t, "the workload has changed", token, "", "no_matching_rule")
	f.trust.set([]trust.Issuer{{Issuer: i.Name, KeysURI: i.KeysURL(), SingleUse: true}}, kubernetes(i.Name))
	f.expect(t, "single use", token, "", "k8s:shop:orders")
	f.expect(t, "single use again", token, "", "assertion_replayed")
	f.trust.set(nil)
	f.expect(t, "the issuer is trusted no more", token, "", "untrusted_issuer")
	f.trust.set([]trust.Issuer{entry}, kubernetes(i.Name))
	f.expect(t, "trusted again", token, "", "k8s:shop:orders")
	// The key is withdrawn: a token of a new key makes the set be fetched.
	i.Rotate()
	f.advance(10 * time.Second)
	f.expect(t, "a new key", i.SignKubernetes(i.ServiceAccount("shop", "invoices", issuer, start)), "", "k8s:shop:invoices")
	f.expect(t, "the old key", token, "", "wrong_assertion")
	other := i.SignKubernetes(i.ServiceAccount("shop", "orders", issuer, start))
	f.expect(t, "good again", other, "", "k8s:shop:orders")
	f.advance(2 * time.Hour)
	f.expect(t, "expired since", other, "", "wrong_assertion")
}

// TestSingleUse checks that an assertion of such an issuer is used once, whatever its signature, and refused if that is not known.
func TestSingleUse(t *testing.T) {
	i := trusttest.New(t)
	f := newFederated()
	f.trust.set([]trust.Issuer{{Issuer: i.Name, SingleUse: true}}, kubernetes(i.Name))
	claims := i.ServiceAccount("shop", "orders", issuer, start).With(jwstest.Object{"jti": nil})
	f.expect(t, "first", i.SignKubernetes(claims), "", "k8s:shop:orders")
	f.expect(t, "again", i.SignKubernetes(claims), "", "assertion_replayed")
	// The same text with another signature, which PSS makes at random.
	i.SetSigner(jwstest.NewSigner(jwks.PS256))
	f.advance(10 * time.Second)
	next := i.ServiceAccount("shop", "invoices", issuer, start)
	f.expect(t, "another", i.SignKubernetes(next), "", "k8s:shop:invoices")
	f.expect(t, "signed again", i.SignKubernetes(next), "", "assertion_replayed")
	f.replays.error = errors.New("down")
	f.expect(t, "while it is not known", i.SignKubernetes(next.With(jwstest.Object{"jti": "x"})), "", "store_unreachable")
}

// TestOverlay checks what is stored of a client that a workload makes, and that a workload makes no registered client.
func TestOverlay(t *testing.T) {
	i := trusttest.New(t)
	f := newFederated()
	f.trust.set([]trust.Issuer{{Issuer: i.Name}}, kubernetes(i.Name))
	token := i.SignKubernetes(i.ServiceAccount("shop", "orders", issuer, start))
	const id = "k8s:shop:orders"
	lifetime := func() time.Duration {
		return must.Get(f.Authenticate(t.Context(), assertion(token))).Client.AccessTokenLifetime
	}
	if got := lifetime(); got != time.Hour {
		t.Errorf("nothing is stored: got %s, want the lifetime of the workload", got)
	}
	overlay := client(id)
	overlay.Workload, overlay.AccessTokenLifetime = true, time.Minute
	f.clients[id] = overlay
	f.expect(t, "restricted", token, "", id)
	if got := must.Get(f.Authenticate(t.Context(), assertion(token))).Client; got.AccessTokenLifetime != time.Minute || got.Scopes.String() != "a b" {
		t.Errorf("got %+v", got)
	}
	delete(f.clients, id)
	if got := lifetime(); got != time.Hour {
		t.Errorf("nothing is stored any longer: got %s, want the lifetime of the workload", got)
	}
	overlay.Disabled = true
	f.clients[id] = overlay
	f.expect(t, "disabled", token, "", "client_disabled")
	f.expect(t, "disabled, by its id", token, id, "client_disabled")
	f.clients[id] = client(id, generated)
	f.expect(t, "registered", token, "", "no_matching_rule")
	f.expect(t, "registered, by its id", token, id, "no_matching_rule")
	f.clients[id] = nil
	f.expect(t, "not known", token, "", "store_unreachable")
	// The overlay of a client that no workload makes any longer authenticates no identity.
	f.clients[id] = overlay
	overlay.Disabled = false
	f.trust.set([]trust.Issuer{{Issuer: i.Name}})
	f.expect(t, "no workload", token, id, "no_matching_rule")
}
