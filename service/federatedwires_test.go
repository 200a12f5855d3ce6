package service_test

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
	"github.com/grantorhq/grantor/service/trusttest"
)

// accounts is the workload that makes a client of each service account of an issuer in the namespace shop.
func accounts(i *trusttest.Issuer, prefix string) trust.Workload {
	return trust.Workload{
		ClientID: pattern(prefix + ":{name}"),
		Rule:     trust.Rule{Issuer: i.Name, Subject: pattern("system:serviceaccount:shop:{name}")},
	}
}

// byAssertion returns the evidence of an assertion (RFC 7523).
func byAssertion(text string) func() evidence {
	return func() evidence { return evidence{assertion: text, assertionType: clientauth.AssertionType} }
}

// TestFederatedOverWires sends tokens of trusted issuers that are not in every respect what such a token must be.
func TestFederatedOverWires(t *testing.T) {
	w, i, other := newWires(t), trusttest.New(t), trusttest.New(t)
	w.Apply(t, trusting([]trust.Issuer{{Issuer: i.Name}, {Issuer: other.Name}}, accounts(i, "k8s"), accounts(other, "other")))
	good := i.ServiceAccount("shop", "orders", w.URL, w.Now())
	sign := func(change jwstest.Object) string { return i.SignKubernetes(good.With(change)) }
	header := jwstest.Object{"alg": string(i.Signer().Algorithm), "kid": i.Signer().Key().ID()}
	in := func(d time.Duration) int64 { return w.Now().Add(d).Unix() }
	for name, test := range map[string]struct{ assertion, want string }{
		"aud as a list of one":               {sign(nil), "k8s:orders"},
		"aud as a string":                    {sign(jwstest.Object{"aud": w.URL}), "k8s:orders"},
		"without jti":                        {sign(jwstest.Object{"jti": nil}), "k8s:orders"},
		"of the other issuer":                {other.SignKubernetes(good.With(jwstest.Object{"iss": other.Name})), "other:orders"},
		"for another issuer":                 {sign(jwstest.Object{"aud": "https://sts.example.com"}), "invalid_client"},
		"for the token endpoint":             {sign(jwstest.Object{"aud": w.URL + "/connect/token"}), "invalid_client"},
		"aud as a list of two":               {sign(jwstest.Object{"aud": []string{w.URL, "https://sts.example.com"}}), "invalid_client"},
		"aud as a list of one twice":         {sign(jwstest.Object{"aud": []string{w.URL, w.URL}}), "invalid_client"},
		"aud as an empty list":               {sign(jwstest.Object{"aud": []string{}}), "invalid_client"},
		"without aud":                        {sign(jwstest.Object{"aud": nil}), "invalid_client"},
		"expired":                            {sign(jwstest.Object{"exp": in(-time.Second)}), "invalid_client"},
		"without exp":                        {sign(jwstest.Object{"exp": nil}), "invalid_client"},
		"issued in the future":               {sign(jwstest.Object{"iat": in(time.Minute)}), "invalid_client"},
		"valid in the future":                {sign(jwstest.Object{"nbf": in(time.Minute)}), "invalid_client"},
		"by another issuer's key, same kid":  {other.Signer().Sign(header, good), "invalid_client"},
		"by another issuer's key, its kid":   {other.SignKubernetes(good), "invalid_client"},
		"by no issuer's key, same kid":       {jwstest.NewSigner(jwks.RS256).Sign(header, good), "invalid_client"},
		"of an issuer that is not trusted":   {sign(jwstest.Object{"iss": "https://c.example"}), "invalid_client"},
		"of an issuer with a slash more":     {sign(jwstest.Object{"iss": i.Name + "/"}), "invalid_client"},
		"of an identity that no rule is for": {sign(jwstest.Object{"sub": "system:serviceaccount:other:orders"}), "invalid_client"},
		"altered":                            {sign(nil)[:len(sign(nil))-4] + "AAAA", "invalid_client"},
	} {
		w.expect(t, name, byAssertion(test.assertion), test.want)
	}
}

// TestSharedKeyOverWires has two issuers that publish the same key: neither vouches for a workload of the other.
func TestSharedKeyOverWires(t *testing.T) {
	w, i, twin := newWires(t), trusttest.New(t), trusttest.New(t)
	twin.SetSigner(i.Signer())
	w.Apply(t, trusting([]trust.Issuer{{Issuer: i.Name}, {Issuer: twin.Name}}, accounts(i, "k8s"), accounts(twin, "twin")))
	of := func(i *trusttest.Issuer) string {
		return i.SignKubernetes(i.ServiceAccount("shop", "orders", w.URL, w.Now()))
	}
	as := func(id, assertion string) func() evidence {
		return func() evidence {
			return evidence{id: id, assertion: assertion, assertionType: clientauth.AssertionType}
		}
	}
	w.expect(t, "the first", byAssertion(of(i)), "k8s:orders")
	w.expect(t, "the second", byAssertion(of(twin)), "twin:orders")
	w.expect(t, "the first as a client of the second", as("twin:orders", of(i)), "invalid_client")
	w.expect(t, "the second as a client of the first", as("k8s:orders", of(twin)), "invalid_client")
}

// TestFailingIssuerOverWires has an issuer, and a client with its keys at a URL, that do not answer as they should.
// Their last keys serve for a day, and nothing of it concerns another issuer.
func TestFailingIssuerOverWires(t *testing.T) {
	w, i, sound := newWires(t), trusttest.New(t), trusttest.New(t)
	m := trusting([]trust.Issuer{{Issuer: i.Name}, {Issuer: sound.Name}}, accounts(i, "k8s"), accounts(sound, "sound"))
	m.Clients = []registry.ClientSpec{{Client: registry.Client{
		ID: must.Get(oauth.ParseClientID("keyed")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: must.Get(oauth.ParseScopes("api1")), KeysURI: i.KeysURL(),
	}}}
	w.Apply(t, m)
	federated := func(i *trusttest.Issuer) func() evidence {
		return func() evidence {
			return byAssertion(i.SignKubernetes(i.ServiceAccount("shop", "orders", w.URL, w.Now())))()
		}
	}
	keyed := func() evidence {
		s, now := i.Signer(), w.Now()
		return byAssertion(s.Sign(jwstest.Object{"alg": string(s.Algorithm), "kid": s.Key().ID(), "typ": clientauth.AssertionMediaType}, jwstest.Object{
			"iss": "keyed", "sub": "keyed", "aud": w.URL, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "jti": rand.Text(),
		}))()
	}
	expect := func(what, ofIssuer, ofClient string) {
		t.Helper()
		w.expect(t, what, federated(i), ofIssuer)
		w.expect(t, what+", keys of a client", keyed, ofClient)
		w.expect(t, what+", another issuer", federated(sound), "sound:orders")
	}
	const down = "temporarily_unavailable"
	expect("up", "k8s:orders", "keyed")
	i.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	w.Advance(12 * time.Hour)
	expect("down for half a day", "k8s:orders", "keyed")
	w.Advance(13 * time.Hour)
	expect("down for a day", down, down)
	var followed atomic.Bool
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		followed.Store(true)
		sound.ServeHTTP(w, r)
	}))
	t.Cleanup(private.Close)
	for name, answer := range map[string]http.HandlerFunc{
		"10 MB":                         func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 10<<20)) },
		"a redirect":                    redirect(private.URL),
		"a redirect to a private place": redirect("http://169.254.169.254/latest/meta-data"),
		"metadata of another issuer":    document(`{"issuer":"` + sound.Name + `","jwks_uri":"` + sound.KeysURL() + `"}`),
		"keys at a private place":       document(`{"issuer":"` + i.Name + `","jwks_uri":"https://10.0.0.1/keys"}`),
		"no JSON":                       document("<html>"),
		"no keys":                       document(`{"keys":[]}`),
	} {
		i.Answer(answer)
		w.Advance(10 * time.Second)
		expect(name, down, down)
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
	i.Answer(nil)
	w.Advance(10 * time.Second)
	expect("up again", "k8s:orders", "keyed")
}

// redirect answers each request with a redirect.
func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

// document answers each request with a document.
func document(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}
