package clientauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// withCertificate returns the evidence of a connection with a certificate and a client ID.
func withCertificate(id string, c tls.Certificate) clientauth.Evidence {
	return clientauth.Evidence{ClientID: id, Certificates: certtest.Chain(c)}
}

// keysOf returns a key set with the keys of certificates.
func keysOf(certificates ...tls.Certificate) string {
	var keys []jwks.JWK
	for _, c := range certificates {
		keys = append(keys, must.Get(must.Get(jwks.NewKey(jwks.ES256, c.Leaf.PublicKey)).JWK()))
	}
	return string(must.Get(json.Marshal(map[string]any{"keys": keys})))
}

// newWithAuthorities returns an authenticator that trusts the authorities.
func newWithAuthorities(clients registered, perClient int, authorities ...*certtest.Authority) *clientauth.Authenticator {
	pools := make([]*x509.CertPool, len(authorities))
	for i, authority := range authorities {
		pools[i] = authority.Pool()
	}
	return clientauth.New(clientauth.Config{
		Issuer: must.Get(oauth.ParseIssuer(issuer)), Clients: clients, Hasher: hasher, Uses: &uses{}, Failures: limiter(perClient, 0),
		Replays: &replays{}, Now: func() time.Time { return start }, Authorities: func() []*x509.CertPool { return pools },
	})
}

// TestCertificates authenticates clients by certificates, of which the answer to the bad ones is the same.
func TestCertificates(t *testing.T) {
	root, other := certtest.NewAuthority(), certtest.NewAuthority()
	selfSigned, outdated := certtest.SelfSigned(), certtest.SelfSigned(func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Second) })
	uri := certtest.URIs("spiffe://example.com/orders")
	named, both, keyed, secret, disabled, elsewhere := client("named"), client("both"), client("keyed"), client("secret", generated), client("disabled"), client("elsewhere")
	named.Certificate = certificate.Subject{URI: "spiffe://example.com/orders"}
	both.Certificate, both.Keys = named.Certificate, must.Get(jwks.ParseDocument(keysOf(selfSigned)))
	keyed.Keys = must.Get(jwks.ParseDocument(keysOf(certtest.SelfSigned(), selfSigned, outdated)))
	disabled.Certificate, disabled.Disabled = named.Certificate, true
	elsewhere.Certificate, elsewhere.AuthMethods = named.Certificate, []string{oauth.PrivateKeyJWT}
	clients := registered{"down": nil}
	for _, c := range []*registry.Client{named, both, keyed, secret, disabled, elsewhere} {
		clients[c.ID.String()] = c
	}
	a := newWithAuthorities(clients, 0, other.Intermediate(), root)
	good := root.Sign(uri)
	usage := func(usages ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
	}
	withSecret := withCertificate("secret", good)
	withSecret.ClientSecret = generated
	asBasic := basic("secret", generated)
	asBasic.Certificates = certtest.Chain(good)
	foreignAssertion := withCertificate("named", good)
	foreignAssertion.Assertion, foreignAssertion.AssertionType = "x.y.z", clientauth.AssertionType
	asBearer := withCertificate("named", good)
	asBearer.Authorization = "Bearer x"
	noID := withCertificate("", good)
	const self, tlsAuth = oauth.SelfSignedTLSClientAuth, oauth.TLSClientAuth
	for name, test := range map[string]struct {
		evidence clientauth.Evidence
		method   string
		reason   oauth.Reason
	}{
		"under an authority":             {withCertificate("named", good), tlsAuth, ""},
		"through an intermediate":        {withCertificate("named", root.Intermediate().Sign(uri)), tlsAuth, ""},
		"beside a bearer token":          {asBearer, tlsAuth, ""},
		"by name, of two":                {withCertificate("both", good), tlsAuth, ""},
		"by key, of two":                 {withCertificate("both", selfSigned), self, ""},
		"by key":                         {withCertificate("keyed", selfSigned), self, ""},
		"a secret and a certificate":     {withSecret, oauth.ClientSecretPost, ""},
		"Basic and a certificate":        {asBasic, oauth.ClientSecretBasic, ""},
		"without a client ID":            {noID, "", oauth.MissingCredentials},
		"expired":                        {withCertificate("named", root.Sign(uri, func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Second) })), tlsAuth, oauth.WrongCertificate},
		"from the future":                {withCertificate("named", root.Sign(uri, func(c *x509.Certificate) { c.NotBefore = start.Add(time.Second) })), tlsAuth, oauth.WrongCertificate},
		"of another authority":           {withCertificate("named", other.Sign(uri)), tlsAuth, oauth.WrongCertificate},
		"self-signed with the name":      {withCertificate("named", certtest.SelfSigned(uri)), tlsAuth, oauth.WrongCertificate},
		"two URIs":                       {withCertificate("named", root.Sign(certtest.URIs("spiffe://example.com/orders", "spiffe://example.com/x"))), tlsAuth, oauth.WrongCertificate},
		"another URI":                    {withCertificate("named", root.Sign(certtest.URIs("spiffe://example.com/x"))), tlsAuth, oauth.WrongCertificate},
		"for servers alone":              {withCertificate("named", root.Sign(uri, usage(x509.ExtKeyUsageServerAuth))), tlsAuth, oauth.WrongCertificate},
		"another key":                    {withCertificate("keyed", certtest.SelfSigned()), self, oauth.WrongCertificate},
		"a key, outdated":                {withCertificate("keyed", outdated), self, oauth.WrongCertificate},
		"under an authority, keyed":      {withCertificate("keyed", good), self, oauth.WrongCertificate},
		"neither name nor key":           {withCertificate("both", other.Sign(uri)), tlsAuth, oauth.WrongCertificate},
		"a client with a secret":         {withCertificate("secret", good), tlsAuth, oauth.WrongCertificate},
		"disabled":                       {withCertificate("disabled", good), tlsAuth, oauth.ClientDisabled},
		"restricted to another method":   {withCertificate("elsewhere", good), tlsAuth, oauth.MethodNotAllowed},
		"unknown":                        {withCertificate("unknown", good), tlsAuth, oauth.UnknownClient},
		"an ID that no client can have":  {withCertificate("no client", good), tlsAuth, oauth.UnknownClient},
		"a malformed assertion as well":  {foreignAssertion, "", oauth.MalformedCredentials},
		"an authority as if it were one": {clientauth.Evidence{ClientID: "named", Certificates: []*x509.Certificate{root.Certificate}}, tlsAuth, oauth.WrongCertificate},
	} {
		got, err := a.Authenticate(t.Context(), test.evidence)
		if got.Method != test.method || (err == nil) != (test.reason == "") {
			t.Errorf("%s: got %v by %q, %v", name, got.Client, got.Method, err)
		}
		if err == nil && got.Client.ID.String() != test.evidence.ClaimedID() {
			t.Errorf("%s: got the client %s", name, got.Client.ID)
		}
		if err != nil {
			refusal := oauth.From(err)
			if refusal.Reason != test.reason || refusal.Code != oauth.InvalidClient || refusal.Text != "Client authentication failed." || got.Client != nil {
				t.Errorf("%s: got %#v", name, refusal)
			}
		}
		if test.method == tlsAuth && err == nil && got.Identity != "spiffe://example.com/orders" {
			t.Errorf("%s: got the identity %q", name, got.Identity)
		}
	}
	if _, err := a.Authenticate(t.Context(), withCertificate("down", good)); oauth.From(err).Code != oauth.TemporarilyUnavailable {
		t.Errorf("a store that is down: got %v", err)
	}
	long := withCertificate(string(make([]byte, oauth.MaxID+1)), good)
	if _, err := a.Authenticate(t.Context(), long); oauth.From(err).Code != oauth.InvalidRequest {
		t.Errorf("a long ID: got %v", err)
	}
	none := newWithAuthorities(clients, 0)
	if _, err := none.Authenticate(t.Context(), withCertificate("named", good)); oauth.From(err).Reason != oauth.WrongCertificate {
		t.Errorf("without authorities: got %v", err)
	}
}

// TestSelfSignedOnly has a client that may authenticate by its key alone, although an authority vouches for the certificate.
func TestSelfSignedOnly(t *testing.T) {
	root := certtest.NewAuthority()
	mine := root.Sign()
	c := client("a")
	c.Certificate, c.Keys = certificate.Subject{DNS: "localhost"}, must.Get(jwks.ParseDocument(keysOf(mine)))
	c.AuthMethods = []string{oauth.SelfSignedTLSClientAuth}
	got, err := newWithAuthorities(registered{"a": c}, 0, root).Authenticate(t.Context(), withCertificate("a", mine))
	if err != nil || got.Method != oauth.SelfSignedTLSClientAuth || got.Identity != must.Get(jwks.Thumbprint(mine.Leaf.PublicKey)) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestCertificateFailures counts wrong certificates as failures of the client that they claim, and of no other.
func TestCertificateFailures(t *testing.T) {
	root := certtest.NewAuthority()
	c := client("a")
	c.Certificate = certificate.Subject{DNS: "localhost"}
	a := newWithAuthorities(registered{"a": c}, 3, root)
	var last error
	for range 5 {
		e := withCertificate("a", certtest.SelfSigned())
		e.Source = netip.MustParseAddr("192.0.2.1")
		_, last = a.Authenticate(t.Context(), e)
	}
	if got := oauth.From(last); got.Reason != oauth.TooManyFailures {
		t.Errorf("after 5 failures: got %v", last)
	}
	if _, err := a.Authenticate(t.Context(), withCertificate("a", root.Sign())); err != nil {
		t.Errorf("the client itself: %v", err)
	}
}

// TestCertificateOfRemoteKeys has a client whose keys are at a URL, where a new one appears, and which then cannot be reached.
func TestCertificateOfRemoteKeys(t *testing.T) {
	first, second := certtest.SelfSigned(), certtest.SelfSigned()
	served := keysOf(first)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if served == "" {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(served))
	}))
	defer server.Close()
	c := client("a")
	c.KeysURI = server.URL
	now := start
	newOne := func() *clientauth.Authenticator {
		return clientauth.New(clientauth.Config{
			Clients: registered{"a": c}, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0), Replays: &replays{}, Fetch: server.Client(),
			Now: func() time.Time { return now },
		})
	}
	a := newOne()
	try := func(a *clientauth.Authenticator, certificate tls.Certificate) error {
		_, err := a.Authenticate(context.WithoutCancel(t.Context()), withCertificate("a", certificate))
		return err
	}
	must.Succeed(t, try(a, first))
	if err := try(a, second); oauth.From(err).Reason != oauth.WrongCertificate {
		t.Errorf("an unknown key: got %v", err)
	}
	served, now = keysOf(first, second), now.Add(10*time.Second)
	must.Succeed(t, try(a, second))
	served = ""
	must.Succeed(t, try(a, first))
	var refusal *oauth.Error
	if err := try(newOne(), first); !errors.As(err, &refusal) || refusal.Code != oauth.TemporarilyUnavailable || refusal.Reason != oauth.KeysUnreachable {
		t.Errorf("keys that cannot be fetched: got %v", err)
	}
}
