package clientauth_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

const (
	issuer        = "https://auth.example.com"
	tokenEndpoint = issuer + "/connect/token"
)

// header returns the header of a good assertion.
func header(s jwstest.Signer) jwstest.Object {
	return jwstest.Object{"alg": string(s.Algorithm), "kid": s.Key().ID(), "typ": clientauth.AssertionMediaType}
}

// set returns a key set of a client.
func set(signers ...jwstest.Signer) jwks.Document {
	return must.Get(jwks.ParseDocument(jwstest.Set(signers...)))
}

// payload returns the claims of a good assertion of a client.
func payload(client string) jwstest.Object {
	return jwstest.Object{"iss": client, "sub": client, "aud": issuer, "exp": start.Add(time.Minute).Unix(), "iat": start.Unix(), "jti": rand.Text()}
}

// replays implements clientauth.Replays in memory.
type replays struct {
	mu    sync.Mutex
	used  map[[sha256.Size]byte]time.Time
	error error
}

func (r *replays) Use(_ context.Context, id [sha256.Size]byte, until time.Time) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used == nil {
		r.used = make(map[[sha256.Size]byte]time.Time)
	}
	_, used := r.used[id]
	r.used[id] = until
	return !used && r.error == nil, r.error
}

func newWithAssertions(clients registered, used *replays) *clientauth.Authenticator {
	return clientauth.New(clientauth.Config{
		Issuer: must.Get(oauth.ParseIssuer(issuer)), Clients: clients, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0),
		Replays: used, Now: func() time.Time { return start },
	})
}

func assertion(text string) clientauth.Evidence {
	return clientauth.Evidence{Assertion: text, AssertionType: clientauth.AssertionType}
}

func TestPrivateKeyJWT(t *testing.T) {
	for _, algorithm := range []jwks.Algorithm{jwks.ES256, "ES384", jwks.RS256, jwks.PS256, jwks.EdDSA} {
		s := jwstest.NewSigner(algorithm)
		c := client("a")
		c.Keys = set(jwstest.NewSigner(jwks.ES256), s)
		a := newWithAssertions(registered{"a": c}, &replays{})
		proven, err := a.Authenticate(t.Context(), assertion(s.Sign(header(s), payload("a"))))
		got, method := proven.Client, proven.Method
		if err != nil || got != c || method != oauth.PrivateKeyJWT || proven.Identity != s.Key().ID() {
			t.Errorf("%s: got %v by %s with %q, %v", algorithm, got, method, proven.Identity, err)
		}
	}
}

// An assertion that is not in every respect what RFC 7523 and RFC 10070 ask for proves nothing, and the answer is the same for
// all of them.
func TestWrongAssertions(t *testing.T) {
	own, second, foreign, rsaKey := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.EdDSA), jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.RS256)
	c := client("a", generated)
	c.Keys = set(own, second, rsaKey)
	disabled, barred, elsewhere, keyless := client("disabled"), client("barred"), client("elsewhere"), client("keyless", generated)
	disabled.Keys, disabled.Disabled = set(own), true
	barred.Keys, barred.AuthMethods = set(own), []string{oauth.ClientSecretBasic}
	elsewhere.Keys, elsewhere.AllowedNetworks = set(own), remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8")}
	clients := registered{"a": c, "disabled": disabled, "barred": barred, "elsewhere": elsewhere, "keyless": keyless}

	head, claims := header(own), payload("a")
	change := func(member string, value any) string {
		return own.Sign(head, claims.With(jwstest.Object{member: value}))
	}
	inHeader := func(member string, value any) string {
		return own.Sign(head.With(jwstest.Object{member: value}), claims)
	}
	in := func(d time.Duration) int64 { return start.Add(d).Unix() }
	good := own.Sign(head, claims)
	hs256 := func(secret []byte) string {
		signed := strings.Join(strings.Split(own.Sign(head.With(jwstest.Object{"alg": "HS256"}), claims), ".")[:2], ".")
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	for name, text := range map[string]string{
		"not a JWT": "j", "two parts": "e30.e30", "four parts": good + ".e30", "encrypted": "e30.e30.e30.e30.e30", "no signature": good[:strings.LastIndex(good, ".")+1],
		"padding": good + "=", "a line break": good + "\n", "payload a list": own.Sign(head, nil),
		"alg none": inHeader("alg", "none"), "alg None": inHeader("alg", "None"), "HMAC": hs256([]byte(c.Keys.String())), "HMAC with the id": hs256([]byte(own.Key().ID())),
		"alg of another key": inHeader("alg", "EdDSA"), "alg a number": inHeader("alg", 5), "no alg": inHeader("alg", nil),
		"foreign key": foreign.Sign(head, claims), "unknown kid": foreign.Sign(header(foreign), claims), "kid of another key": inHeader("kid", second.Key().ID()),
		"no kid among several keys": inHeader("kid", nil), "kid a number": inHeader("kid", 1),
		"crit": inHeader("crit", []string{"exp"}), "jku": inHeader("jku", issuer), "x5u": inHeader("x5u", issuer), "jwk": inHeader("jwk", must.Get(own.Key().JWK())),
		"typ JWT": inHeader("typ", "JWT"), "no typ": inHeader("typ", nil), "an access token": inHeader("typ", "at+jwt"), "typ with more": inHeader("typ", "client-authentication+jwt2"),
		"typ with a long s": inHeader("typ", "client-authentication+jwt\u017f"), "typ of another tree": inHeader("typ", "text/client-authentication+jwt"),
		"unknown client": own.Sign(head, payload("b")), "no client": own.Sign(head, payload("a b")), "disabled": own.Sign(head, payload("disabled")),
		"method not allowed": own.Sign(head, payload("barred")), "from elsewhere": own.Sign(head, payload("elsewhere")),
		"a client without keys": own.Sign(head, payload("keyless")),
		"iss another":           change("iss", "b"), "iss the issuer": change("iss", issuer), "no iss": change("iss", nil), "iss empty": change("iss", ""), "iss a number": change("iss", 1),
		"iss null": own.Sign(head, claims.With(jwstest.Object{"iss": json.RawMessage("null")})), "iss a list": change("iss", []string{"a"}), "iss in upper case": change("iss", "A"),
		"sub another": change("sub", "b"), "no sub": change("sub", nil),
		"no aud": change("aud", nil), "aud a list": change("aud", []string{issuer}), "aud the endpoint": change("aud", tokenEndpoint), "aud with a slash": change("aud", issuer+"/"),
		"aud another": change("aud", "https://other.example.com"), "aud of two": change("aud", []string{issuer, "https://other.example.com"}),
		"aud in upper case": change("aud", strings.ToUpper(issuer)), "aud empty": change("aud", ""), "aud a number": change("aud", 1), "aud the prefix": change("aud", "https://auth.example.co"),
		"no exp": change("exp", nil), "expired": change("exp", in(0)), "long expired": change("exp", in(-time.Hour)), "exp 11 minutes ahead": change("exp", in(11*time.Minute)),
		"exp a text": change("exp", "1800000060"), "exp negative": change("exp", -1), "exp huge": change("exp", 1e300), "exp null": own.Sign(head, claims.With(jwstest.Object{"exp": json.RawMessage("null")})),
		"nbf ahead": change("nbf", in(time.Minute)), "nbf a text": change("nbf", "x"), "iat ahead": change("iat", in(time.Hour)),
		"no jti": change("jti", nil), "jti empty": change("jti", ""), "jti a number": change("jti", 7), "jti too long": change("jti", strings.Repeat("j", 256)),
		"claims in another case": own.Sign(head, claims.With(jwstest.Object{"iss": nil, "ISS": "a"})),
	} {
		used := &replays{}
		_, err := newWithAssertions(clients, used).Authenticate(t.Context(), assertion(text))
		refusal := oauth.From(err)
		if refusal.Code != oauth.InvalidClient || refusal.Text != "Client authentication failed." {
			t.Errorf("%s: got %v", name, err)
		}
		if len(used.used) > 0 {
			t.Errorf("%s: it was remembered as used", name)
		}
		if strings.Contains(err.Error(), text) {
			t.Errorf("%s: the error contains the assertion", name)
		}
	}
	evidence := func(change func(*clientauth.Evidence)) clientauth.Evidence {
		e := assertion(good)
		change(&e)
		return e
	}
	for name, test := range map[string]struct {
		evidence clientauth.Evidence
		want     oauth.Code
	}{
		"another type":      {evidence(func(e *clientauth.Evidence) { e.AssertionType += "x" }), oauth.InvalidClient},
		"SAML":              {evidence(func(e *clientauth.Evidence) { e.AssertionType = strings.Replace(e.AssertionType, "jwt", "saml2", 1) }), oauth.InvalidClient},
		"another client_id": {evidence(func(e *clientauth.Evidence) { e.ClientID = "keyless" }), oauth.InvalidClient},
		"too large":         {assertion(change("note", strings.Repeat("x", 9000))), oauth.InvalidRequest},
	} {
		if _, err := newWithAssertions(clients, &replays{}).Authenticate(t.Context(), test.evidence); oauth.From(err).Code != test.want {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	e := evidence(func(e *clientauth.Evidence) { e.ClientID = "a" })
	if _, err := newWithAssertions(clients, &replays{}).Authenticate(t.Context(), e); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// The forms that RFC 10070 ended are accepted from a client for which they are allowed, until the moment that is stated.
func TestOlderAssertions(t *testing.T) {
	s := jwstest.NewSigner(jwks.ES256)
	for name, test := range map[string]struct {
		typ, aud       any
		untyped, older time.Duration
		want           bool
	}{
		"typ JWT":                  {"JWT", issuer, time.Second, 0, true},
		"typ jwt":                  {"application/jwt", issuer, time.Second, 0, true},
		"no typ":                   {nil, issuer, time.Second, 0, true},
		"typ JWT, too late":        {"JWT", issuer, 0, time.Hour, false},
		"an access token":          {"at+jwt", issuer, time.Hour, time.Hour, false},
		"the endpoint":             {clientauth.AssertionMediaType, tokenEndpoint, 0, time.Second, true},
		"a list":                   {clientauth.AssertionMediaType, []string{"https://other", issuer}, 0, time.Second, true},
		"a list with the endpoint": {clientauth.AssertionMediaType, []string{tokenEndpoint, "https://other"}, 0, time.Second, true},
		"the endpoint, too late":   {clientauth.AssertionMediaType, tokenEndpoint, time.Hour, 0, false},
		"another server":           {clientauth.AssertionMediaType, "https://other", time.Hour, time.Hour, false},
		"another endpoint":         {clientauth.AssertionMediaType, issuer + "/connect/revoke", time.Hour, time.Hour, false},
		"both":                     {"JWT", tokenEndpoint, time.Second, time.Second, true},
	} {
		c := client("a")
		c.Keys = set(s)
		if test.untyped > 0 {
			c.UntypedAssertionsUntil = start.Add(test.untyped)
		}
		if test.older > 0 {
			c.OlderAudiencesUntil = start.Add(test.older)
		}
		text := s.Sign(header(s).With(jwstest.Object{"typ": test.typ}), payload("a").With(jwstest.Object{"aud": test.aud}))
		_, err := newWithAssertions(registered{"a": c}, &replays{}).Authenticate(t.Context(), assertion(text))
		if (err == nil) != test.want {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAssertionOnce(t *testing.T) {
	s := jwstest.NewSigner(jwks.ES256)
	a, b := client("a"), client("b")
	a.Keys, b.Keys = set(s), set(s)
	used := &replays{}
	clients := registered{"a": a, "b": b}
	one, two := newWithAssertions(clients, used), newWithAssertions(clients, used)
	text := s.Sign(header(s), payload("a").With(jwstest.Object{"jti": "same"}))
	if _, err := one.Authenticate(t.Context(), assertion(text)); err != nil {
		t.Fatal(err)
	}
	for _, replica := range []*clientauth.Authenticator{one, two} {
		_, err := replica.Authenticate(t.Context(), assertion(text))
		if got := oauth.From(err); got.Code != oauth.InvalidClient || got.Reason != oauth.AssertionReplayed {
			t.Errorf("the same assertion: got %v", err)
		}
	}
	// Two clients may choose the same jti, and neither can use up that of the other.
	if _, err := two.Authenticate(t.Context(), assertion(s.Sign(header(s), payload("b").With(jwstest.Object{"jti": "same"})))); err != nil {
		t.Errorf("the same jti of another client: %v", err)
	}
	// The clock of the store may be ahead, and would otherwise forget an assertion that is still good.
	for id, until := range used.used {
		if want := start.Add(time.Minute + 30*time.Second); until.Before(want) || until.After(want.Add(2*time.Second)) {
			t.Errorf("%x is remembered until %s, want %s", id[:2], until, want)
		}
	}
	used.error = errors.New("down")
	_, err := one.Authenticate(t.Context(), assertion(s.Sign(header(s), payload("a"))))
	if got := oauth.From(err); got.Code != oauth.TemporarilyUnavailable || got.Reason != oauth.StoreUnreachable {
		t.Errorf("without the store: got %v", err)
	}
}

// Concurrent uses of one assertion at several replicas: one of them succeeds.
func TestAssertionRace(t *testing.T) {
	s := jwstest.NewSigner(jwks.EdDSA)
	c := client("a")
	c.Keys = set(s)
	used := &replays{}
	text := s.Sign(header(s), payload("a"))
	var group sync.WaitGroup
	results := make(chan error, 32)
	for range cap(results) {
		a := newWithAssertions(registered{"a": c}, used)
		group.Go(func() {
			_, err := a.Authenticate(context.Background(), assertion(text))
			results <- err
		})
	}
	group.Wait()
	close(results)
	succeeded := 0
	for err := range results {
		if err == nil {
			succeeded++
		}
	}
	if succeeded != 1 {
		t.Errorf("%d of them succeeded, want 1", succeeded)
	}
}

// Wrong assertions count as failed authentications, of the client that they claim and of their source, and do not keep the
// client itself out.
func TestAssertionFailures(t *testing.T) {
	s, foreign := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.ES256)
	c := client("a")
	c.Keys = set(s)
	a := clientauth.New(clientauth.Config{
		Issuer: must.Get(oauth.ParseIssuer(issuer)), Clients: registered{"a": c}, Hasher: hasher, Uses: &uses{}, Failures: limiter(3, 3),
		Replays: &replays{}, Now: func() time.Time { return start },
	})
	var last error
	for range 5 {
		e := assertion(foreign.Sign(header(s), payload("a")))
		e.Source = netip.MustParseAddr("192.0.2.1")
		_, last = a.Authenticate(t.Context(), e)
	}
	if got := oauth.From(last); got.Reason != oauth.TooManyFailures {
		t.Errorf("after 5 failures: got %v", last)
	}
	if _, err := a.Authenticate(t.Context(), assertion(s.Sign(header(s), payload("a")))); err != nil {
		t.Errorf("the client itself: %v", err)
	}
}

func FuzzAssertion(f *testing.F) {
	s := jwstest.NewSigner(jwks.ES256)
	c := client("a")
	c.Keys = set(s)
	good := s.Sign(header(s), payload("a"))
	f.Add(good)
	f.Add("e30.e30.AA")
	a := newWithAssertions(registered{"a": c}, &replays{})
	f.Fuzz(func(t *testing.T, text string) {
		e := assertion(text)
		if _, err := a.Authenticate(t.Context(), e); err == nil && text != good {
			t.Errorf("%q was accepted", text)
		}
		_ = e.ClaimedID()
	})
}
