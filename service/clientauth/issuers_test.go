package clientauth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
	"github.com/grantorhq/grantor/service/trusttest"
)

// TestIssuersApart checks that the keys of one issuer verify nothing of another: neither under the same kid, nor with the very
// same key set at both.
func TestIssuersApart(t *testing.T) {
	first, second := trusttest.New(t), trusttest.New(t)
	second.SetSigner(first.Signer())
	f := newFederated()
	one, other := kubernetes(first.Name), kubernetes(second.Name)
	other.ClientID = pattern("other:{name}")
	f.trust.set([]trust.Issuer{{Issuer: first.Name}, {Issuer: second.Name}}, one, other)
	of := func(i *trusttest.Issuer) string {
		return i.SignKubernetes(i.ServiceAccount("shop", "orders", issuer, start))
	}
	f.expect(t, "the first", of(first), "", "k8s:shop:orders")
	f.expect(t, "the second", of(second), "", "other:orders")
	claims := first.ServiceAccount("shop", "orders", issuer, start)
	second.SetSigner(jwstest.NewSigner(jwks.RS256))
	key := first.Signer().Key().ID()
	f.expect(t, "a new key under the old kid", second.Signer().Sign(jwstest.Object{"alg": "RS256", "kid": key}, claims), "", "wrong_assertion")
}

// TestIssuerFails checks what an issuer that does not answer as it should costs: nothing while its last keys can be used, and
// nothing for others.
func TestIssuerFails(t *testing.T) {
	i, sound := trusttest.New(t), trusttest.New(t)
	f := newFederated()
	one, other := kubernetes(i.Name), kubernetes(sound.Name)
	other.ClientID = pattern("other:{name}")
	f.trust.set([]trust.Issuer{{Issuer: i.Name}, {Issuer: sound.Name}}, one, other)
	token := func(i *trusttest.Issuer) string {
		return i.SignKubernetes(i.ServiceAccount("shop", "orders", issuer, *f.clock.Load()))
	}
	f.expect(t, "up", token(i), "", "k8s:shop:orders")
	i.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	f.advance(12 * time.Hour)
	f.expect(t, "down for half a day", token(i), "", "k8s:shop:orders")
	f.advance(13 * time.Hour)
	f.expect(t, "down for a day", token(i), "", "keys_unreachable")
	for name, answer := range map[string]http.HandlerFunc{
		"10 MB": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 10<<20)) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
		},
		"a redirect to itself":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, i.KeysURL(), http.StatusFound) },
		"no JSON":                 func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"another issuer":          metadata(sound.Name, sound.KeysURL()),
		"keys at a private place": metadata(i.Name, "https://10.0.0.1/keys"),
		"keys without TLS":        metadata(i.Name, "http://keys.example.com/keys"),
		"no place for keys":       metadata(i.Name, ""),
	} {
		i.Answer(answer)
		f.advance(10 * time.Second)
		f.expect(t, name, token(i), "", "keys_unreachable")
		f.expect(t, name+", a sound issuer", token(sound), "", "other:orders")
	}
	i.Answer(nil)
	f.advance(10 * time.Second)
	f.expect(t, "up again", token(i), "", "k8s:shop:orders")
}

// metadata answers each request with the metadata of an issuer.
func metadata(name, keys string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"issuer":"` + name + `","jwks_uri":"` + keys + `"}`))
	}
}

// TestCauseOfUnknownKeys checks that the audit distinguishes a key that is not known, or not yet, from a wrong signature. The
// answer is the same.
func TestCauseOfUnknownKeys(t *testing.T) {
	i := trusttest.New(t)
	f := newFederated()
	f.trust.set([]trust.Issuer{{Issuer: i.Name}}, kubernetes(i.Name))
	keyed, remote, own := client("keyed"), client("remote"), jwstest.NewSigner(jwks.ES256)
	keyed.Keys, remote.KeysURI = set(own), i.KeysURL()
	f.clients["keyed"], f.clients["remote"] = keyed, remote
	federated := func(s jwstest.Signer, kid string) string {
		return s.Sign(jwstest.Object{"alg": string(s.Algorithm), "kid": kid}, i.ServiceAccount("shop", "orders", issuer, *f.clock.Load()))
	}
	of := func(id string, s jwstest.Signer, change jwstest.Object) string {
		now := *f.clock.Load()
		return s.Sign(header(s).With(change), payload(id).With(jwstest.Object{"iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}))
	}
	expect := func(what, token string, want error, parts ...string) {
		t.Helper()
		_, err := f.Authenticate(t.Context(), assertion(token))
		refusal := oauth.From(err)
		if refusal.Reason != oauth.WrongAssertion || refusal.Text != "Client authentication failed." || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %q in it", what, err, part)
			}
		}
	}
	old := i.Signer()
	f.expect(t, "the first key", federated(old, old.Key().ID()), "", "k8s:shop:orders")
	must.Get(f.Authenticate(t.Context(), assertion(of("remote", old, nil))))
	fetched := "fetched at " + f.clock.Load().UTC().Format(time.RFC3339)
	i.Rotate()
	fresh := i.Signer()
	f.advance(4 * time.Second)
	expect("a new key, seconds after the keys were fetched", federated(fresh, fresh.Key().ID()), jwks.ErrUnknownKey, fresh.Key().ID(), fetched)
	expect("a new key of a client, the same", of("remote", fresh, nil), jwks.ErrUnknownKey, fresh.Key().ID(), fetched)
	expect("a wrong signature under a known kid", federated(fresh, old.Key().ID()), jws.ErrSignature)
	expect("a wrong signature of a client", of("remote", fresh, jwstest.Object{"kid": old.Key().ID()}), jws.ErrSignature)
	expect("another alg of a client", of("remote", own, jwstest.Object{"kid": old.Key().ID()}), nil, `is not for the alg "ES256"`)
	expect("a key that is not registered", of("keyed", fresh, nil), jwks.ErrUnknownKey, fresh.Key().ID())
	f.advance(time.Second)
	f.expect(t, "the new key, once the keys may be fetched again", federated(fresh, fresh.Key().ID()), "", "k8s:shop:orders")
	must.Get(f.Authenticate(t.Context(), assertion(of("remote", fresh, nil))))
	expect("an invented key", federated(old, "invented"), jwks.ErrUnknownKey, `"invented"`)
}

// TestFloodOfKeys checks that invented kids cost an issuer one request in five seconds.
func TestFloodOfKeys(t *testing.T) {
	i := trusttest.New(t)
	f := newFederated()
	f.trust.set([]trust.Issuer{{Issuer: i.Name, KeysURI: i.KeysURL()}}, kubernetes(i.Name))
	claims := i.ServiceAccount("shop", "orders", issuer, start)
	f.expect(t, "good", i.SignKubernetes(claims), "", "k8s:shop:orders")
	for range 50 {
		s := jwstest.NewSigner(jwks.EdDSA)
		f.expect(t, "invented", s.Sign(jwstest.Object{"alg": "EdDSA", "kid": s.Key().ID()}, claims), "", "wrong_assertion")
	}
	if got := i.Requests.Load(); got != 1 {
		t.Errorf("%d requests for the keys, want 1", got)
	}
}
