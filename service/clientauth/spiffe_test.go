package clientauth_test

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/spiffetest"
	"github.com/grantorhq/grantor/service/trust"
	"github.com/grantorhq/grantor/service/workloadapi"
)

const (
	prod     = "prod.example.com"
	ordersID = "spiffe://prod.example.com/shop/orders"
)

// spiffe is an authenticator that trusts the domains whose bundles are in files.
type spiffe struct {
	*federated

	dir string
}

func newSPIFFE(t *testing.T, domains ...*spiffetest.Domain) *spiffe {
	t.Helper()
	s := &spiffe{dir: t.TempDir()}
	s.federated = newFederated(s.dir)
	now := time.Now()
	s.clock.Store(&now)
	var issuers []trust.Issuer
	var workloads []trust.Workload
	for _, d := range domains {
		issuers = append(issuers, trust.Issuer{TrustDomain: d.Name.Name(), BundleFile: s.write(t, d)})
		workloads = append(workloads, trust.Workload{
			ClientID: pattern(d.Name.Name() + ":{name}"), Rule: trust.Rule{SPIFFEID: pattern(d.Name.IDString() + "/shop/{name}")},
			Scopes: must.Get(oauth.ParseScopes("a")),
		})
	}
	s.trust.set(issuers, workloads...)
	return s
}

// write writes the bundle of a domain to its file and returns its path.
func (s *spiffe) write(t *testing.T, d *spiffetest.Domain) string {
	t.Helper()
	path := filepath.Join(s.dir, d.Name.Name()+".json")
	must.Succeed(t, os.WriteFile(path, d.Document(), 0o600))
	return path
}

// prove returns the client that the evidence proves, or the reason of the refusal. It checks that the identity is the SPIFFE ID.
func (s *spiffe) prove(t *testing.T, e clientauth.Evidence) string {
	t.Helper()
	proven, err := s.Authenticate(t.Context(), e)
	if err != nil {
		refusal := oauth.From(err)
		if refusal.Code == oauth.InvalidClient && refusal.Text != "Client authentication failed." {
			t.Errorf("got the text %q", refusal.Text)
		}
		return string(refusal.Why())
	}
	want := oauth.SPIFFEX509
	if e.Assertion != "" {
		want = oauth.SPIFFEJWT
	}
	if proven.Method != want || !strings.HasPrefix(proven.Identity, "spiffe://") {
		t.Errorf("got %q as %q, want %s", proven.Method, proven.Identity, want)
	}
	return proven.Client.ID.String()
}

func jwtSVID(id, token string) clientauth.Evidence {
	return clientauth.Evidence{ClientID: id, Assertion: token, AssertionType: clientauth.SPIFFEAssertionType}
}

func x509SVID(id string, svid *x509svid.SVID) clientauth.Evidence {
	return clientauth.Evidence{ClientID: id, Certificates: svid.Certificates}
}

// Both kinds of SVIDs prove the same client: one that is registered with its SPIFFE ID or a rule, or one that a workload makes.
func TestSVIDs(t *testing.T) {
	d := spiffetest.NewDomain(prod)
	s := newSPIFFE(t, d)
	for id, change := range map[string]func(string){
		"exact": func(id string) { s.clients[id].SPIFFEID = ordersID }, "below": func(id string) { s.clients[id].SPIFFEID = "spiffe://prod.example.com/*" },
		"by a rule": func(id string) {
			s.clients[id].Federation = []trust.Rule{{SPIFFEID: pattern("spiffe://prod.example.com/*/orders")}}
		},
		"none": func(string) {}, "another": func(id string) { s.clients[id].SPIFFEID = ordersID + "2" },
		"above":          func(id string) { s.clients[id].SPIFFEID = ordersID + "/*" },
		"another domain": func(id string) { s.clients[id].SPIFFEID = "spiffe://prod.example.com.evil.com/*" },
		"barred": func(id string) {
			s.clients[id].SPIFFEID, s.clients[id].AuthMethods = ordersID, []string{oauth.FederatedJWT}
		},
		"disabled": func(id string) { s.clients[id].SPIFFEID, s.clients[id].Disabled = ordersID, true },
	} {
		s.clients[strings.ReplaceAll(id, " ", "-")] = client(strings.ReplaceAll(id, " ", "-"))
		change(strings.ReplaceAll(id, " ", "-"))
	}
	token, svid := d.JWTSVID(ordersID, issuer, nil), d.X509SVID(ordersID, nil)
	for id, want := range map[string]string{
		"exact": "exact", "below": "below", "by-a-rule": "by-a-rule", "prod.example.com:orders": "prod.example.com:orders",
		ordersID: "prod.example.com:orders", "none": "no_matching_rule", "another": "no_matching_rule", "above": "no_matching_rule",
		"another-domain": "no_matching_rule", "unknown": "no_matching_rule", "barred": "auth_method_not_allowed", "disabled": "client_disabled",
	} {
		for range 2 { // a JWT-SVID is not for one use
			if got := s.prove(t, jwtSVID(id, token)); got != want {
				t.Errorf("JWT-SVID for %s: got %s, want %s", id, got, want)
			}
		}
		if got := s.prove(t, x509SVID(id, svid)); got != want {
			t.Errorf("X509-SVID for %s: got %s, want %s", id, got, want)
		}
	}
	if got := s.prove(t, jwtSVID("", token)); got != "prod.example.com:orders" {
		t.Errorf("JWT-SVID alone: got %s", got)
	}
	// What was verified as a JWT-SVID is nothing as another kind of assertion.
	s.expect(t, "as a token", token, "", "malformed_credentials")
	s.expect(t, "as a token of its domain", d.JWTSVID(ordersID, issuer, jwstest.Object{"iss": d.Name.IDString()}), "", "untrusted_issuer")
}

// JWT-SVIDs that are not in every respect what the standard and the draft ask for.
func TestWrongJWTSVIDs(t *testing.T) {
	d, other, foreign := spiffetest.NewDomain(prod), spiffetest.NewDomain("test.example.com"), spiffetest.NewDomain("evil.example.com")
	s := newSPIFFE(t, d, other)
	now := *s.clock.Load()
	change := func(o jwstest.Object) string { return d.JWTSVID(ordersID, issuer, o) }
	header := func(o jwstest.Object) string {
		signer := d.Signer()
		return signer.Sign(jwstest.Object{"alg": "ES256", "kid": signer.Key().ID(), "typ": "JWT"}.With(o),
			jwstest.Object{"sub": ordersID, "aud": issuer, "exp": now.Add(time.Minute).Unix()})
	}
	for name, test := range map[string]struct{ token, want string }{
		"a list of one":          {change(jwstest.Object{"aud": []string{issuer}}), "prod.example.com:orders"},
		"an iss":                 {change(jwstest.Object{"iss": "https://oidc.prod.example.com"}), "prod.example.com:orders"},
		"typ JOSE":               {header(jwstest.Object{"typ": "JOSE"}), "prod.example.com:orders"},
		"no typ":                 {header(jwstest.Object{"typ": nil}), "prod.example.com:orders"},
		"two aud":                {change(jwstest.Object{"aud": []string{issuer, "https://b.example"}}), "wrong_assertion"},
		"another aud":            {change(jwstest.Object{"aud": "https://b.example"}), "wrong_assertion"},
		"no aud":                 {change(jwstest.Object{"aud": nil}), "wrong_assertion"},
		"no exp":                 {change(jwstest.Object{"exp": nil}), "wrong_assertion"},
		"expired":                {change(jwstest.Object{"exp": now.Unix()}), "wrong_assertion"},
		"from the future":        {change(jwstest.Object{"iat": now.Add(time.Minute).Unix()}), "wrong_assertion"},
		"typ of another kind":    {header(jwstest.Object{"typ": "at+jwt"}), "wrong_assertion"},
		"no kid":                 {header(jwstest.Object{"kid": nil}), "wrong_assertion"},
		"an unknown kid":         {header(jwstest.Object{"kid": "x"}), "wrong_assertion"},
		"another alg":            {header(jwstest.Object{"alg": "ES384"}), "wrong_assertion"},
		"alg none":               {header(jwstest.Object{"alg": "none"}), "wrong_assertion"},
		"of another domain":      {other.JWTSVID(ordersID, issuer, nil), "wrong_assertion"},
		"of no trusted domain":   {foreign.JWTSVID("spiffe://evil.example.com/shop/orders", issuer, nil), "untrusted_issuer"},
		"the kid of another key": {other.Signer().Sign(jwstest.Object{"alg": "ES256", "kid": d.Signer().Key().ID()}, jwstest.Object{"sub": ordersID, "aud": issuer, "exp": now.Add(time.Minute).Unix()}), "wrong_assertion"},
	} {
		if got := s.prove(t, jwtSVID("", test.token)); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

// oddIDs are not SPIFFE IDs of workloads.
var oddIDs = map[string]string{
	"no path": "spiffe://prod.example.com", "an empty path": "spiffe://prod.example.com/", "a slash at the end": ordersID + "/", "two slashes": "spiffe://prod.example.com/shop//orders",
	"a dot": "spiffe://prod.example.com/shop/./orders", "two dots": "spiffe://prod.example.com/shop/x/../orders", "an escape": "spiffe://prod.example.com/shop/orders%2fx",
	"an escaped dot": "spiffe://prod.example.com/shop/%2e%2e/shop/orders", "upper case domain": "spiffe://Prod.example.com/shop/orders", "a port": "spiffe://prod.example.com:443/shop/orders",
	"a user": "spiffe://x@prod.example.com/shop/orders", "a query": ordersID + "?x", "a fragment": ordersID + "#x", "another scheme": "https://prod.example.com/shop/orders",
	"too long": "spiffe://prod.example.com/shop/" + strings.Repeat("a", 2048), "a wildcard": "spiffe://prod.example.com/shop/*", "no domain": "spiffe:///shop/orders",
}

func TestOddSPIFFEIDs(t *testing.T) {
	d := spiffetest.NewDomain(prod)
	s := newSPIFFE(t, d)
	c := client("all")
	c.SPIFFEID = "spiffe://prod.example.com/*"
	s.clients["all"] = c
	for name, id := range oddIDs {
		if got := s.prove(t, jwtSVID("all", d.JWTSVID(id, issuer, nil))); got != "malformed_credentials" {
			t.Errorf("JWT-SVID, %s: got %s", name, got)
		}
		if got := s.prove(t, x509SVID("all", d.X509SVID(id, nil))); got != "wrong_certificate" {
			t.Errorf("X509-SVID, %s: got %s", name, got)
		}
	}
}

// X509-SVIDs that are not in every respect what the standard asks for.
func TestWrongX509SVIDs(t *testing.T) {
	d, other := spiffetest.NewDomain(prod), spiffetest.NewDomain("test.example.com")
	s := newSPIFFE(t, d, other)
	now := *s.clock.Load()
	second := must.Get(url.Parse("spiffe://prod.example.com/shop/invoices"))
	for name, change := range map[string]func(*x509.Certificate){
		"two URIs": func(c *x509.Certificate) { c.URIs = append(c.URIs, second) }, "expired": func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) },
		"not yet valid": func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }, "an authority": func(c *x509.Certificate) { c.IsCA = true },
		"signs certificates": func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "signs lists": func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign },
		"no digitalSignature": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, "for servers": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
	} {
		if got := s.prove(t, x509SVID(ordersID, d.X509SVID(ordersID, change))); got != "wrong_certificate" {
			t.Errorf("%s: got %s", name, got)
		}
	}
	long := d.X509SVID(ordersID, nil)
	for range 6 {
		long.Certificates = append(long.Certificates, other.Authority)
	}
	if got := s.prove(t, x509SVID(ordersID, long)); got != "wrong_certificate" {
		t.Errorf("a chain of seven: got %s", got)
	}
	if got := s.prove(t, x509SVID(ordersID, other.X509SVID(ordersID, nil))); got != "wrong_certificate" {
		t.Errorf("of another domain: got %s", got)
	}
	if got := s.prove(t, x509SVID(ordersID, d.X509SVID(ordersID, func(c *x509.Certificate) { c.ExtKeyUsage = nil }))); got != "prod.example.com:orders" {
		t.Errorf("without extended usages: got %s", got)
	}
}

// Two domains with the same key are not believed for each other's workloads.
func TestDomainsWithOneKey(t *testing.T) {
	d := spiffetest.NewDomain(prod)
	s := newSPIFFE(t, d)
	// The bundle of the other domain has the certificate of this one's authority.
	path := filepath.Join(s.dir, "twin.json")
	must.Succeed(t, os.WriteFile(path, d.Document(), 0o600))
	s.trust.set([]trust.Issuer{{TrustDomain: prod, BundleFile: s.write(t, d)}, {TrustDomain: "twin.example.com", BundleFile: path}}, trust.Workload{
		ClientID: pattern("twin:{name}"), Rule: trust.Rule{SPIFFEID: pattern("spiffe://twin.example.com/shop/{name}")}, Scopes: must.Get(oauth.ParseScopes("a")),
	})
	if got := s.prove(t, x509SVID("twin:orders", d.X509SVID("spiffe://twin.example.com/shop/orders", nil))); got != "wrong_certificate" {
		t.Errorf("an authority of the first for an ID of the second: got %s", got)
	}
	if got := s.prove(t, x509SVID("twin:orders", d.X509SVID(ordersID, nil))); got != "unknown_client" {
		t.Errorf("an ID of the first as a client of the second: got %s", got)
	}
	if got := s.prove(t, jwtSVID("twin:orders", d.JWTSVID(ordersID, issuer, nil))); got != "unknown_client" {
		t.Errorf("a JWT-SVID of the first as a client of the second: got %s", got)
	}
}

// A client that is registered by the name in its certificate (RFC 8705) keeps that, also if the name is a SPIFFE ID.
func TestCertificateBesideSPIFFE(t *testing.T) {
	d := spiffetest.NewDomain(prod)
	s := newSPIFFE(t, d)
	roots := x509.NewCertPool()
	roots.AddCert(d.Authority)
	c := client("tls")
	c.Certificate.URI = ordersID
	s.clients["tls"] = c
	s.withAuthorities(roots)
	proven := must.Get(s.Authenticate(t.Context(), x509SVID("tls", d.X509SVID(ordersID, nil))))
	if proven.Method != oauth.TLSClientAuth || proven.Client.ID.String() != "tls" {
		t.Errorf("got %s by %s", proven.Client.ID, proven.Method)
	}
}

// Each source of a bundle is read again. While it is down, the last bundle serves for a day.
func TestBundleSources(t *testing.T) {
	d := spiffetest.NewDomain(prod)
	document := atomic.Pointer[[]byte]{}
	set := func(data []byte) { document.Store(&data) }
	var down atomic.Bool
	endpoint := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(*document.Load())
	}))
	defer endpoint.Close()
	api := spiffetest.NewWorkloadAPI(t, d, "spiffe://prod.example.com/grantor")
	socket := strings.TrimPrefix(api.Address, "unix://")
	for name, test := range map[string]struct {
		issuer func(s *spiffe) trust.Issuer
		update func(s *spiffe)
		fail   func(s *spiffe)
	}{
		"file": {
			func(s *spiffe) trust.Issuer { return trust.Issuer{TrustDomain: prod, BundleFile: s.write(t, d)} },
			func(s *spiffe) { s.write(t, d) }, func(s *spiffe) { _ = os.Remove(filepath.Join(s.dir, prod+".json")) },
		},
		"endpoint": {
			func(s *spiffe) trust.Issuer {
				set(d.Document())
				ca := filepath.Join(s.dir, "ca.pem")
				must.Succeed(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: endpoint.Certificate().Raw}), 0o600))
				return trust.Issuer{TrustDomain: prod, BundleEndpoint: endpoint.URL, CAFile: ca}
			},
			func(*spiffe) { set(d.Document()) }, func(*spiffe) { down.Store(true) },
		},
		"Workload API": {
			func(*spiffe) trust.Issuer { return trust.Issuer{TrustDomain: prod, WorkloadAPI: api.Address} },
			func(*spiffe) {}, func(*spiffe) { api.Refuse(true) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSPIFFE(t, d)
			s.withDirectories(s.dir, filepath.Dir(socket))
			s.trust.set([]trust.Issuer{test.issuer(s)}, s.trust.table.Load().Workloads()...)
			both := func(what, want string) {
				t.Helper()
				now := *s.clock.Load()
				if got := s.prove(t, jwtSVID("", d.JWTSVID(ordersID, issuer, jwstest.Object{"iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}))); got != want {
					t.Errorf("%s, JWT-SVID: got %s, want %s", what, got, want)
				}
				svid := d.X509SVID(ordersID, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-time.Minute), now.Add(time.Hour) })
				if got := s.prove(t, x509SVID(ordersID, svid)); got != want {
					t.Errorf("%s, X509-SVID: got %s, want %s", what, got, want)
				}
			}
			both("at first", "prod.example.com:orders")
			d.RotateJWTKey()
			test.update(s)
			s.advance(10 * time.Second)
			both("with a new key", "prod.example.com:orders")
			test.fail(s)
			s.advance(2 * time.Hour)
			both("while the source is down", "prod.example.com:orders")
			s.advance(30 * time.Hour)
			both("after a day", "keys_unreachable")
		})
	}
}

// Bundles that are none, and sources that an administrator of the API may not name.
func TestWrongBundles(t *testing.T) {
	d := spiffetest.NewDomain(prod)
	s := newSPIFFE(t, d)
	s.withDirectories(s.dir)
	outside := spiffetest.NewWorkloadAPI(t, d, ordersID)
	must.Succeed(t, os.Symlink(strings.TrimPrefix(outside.Address, "unix://"), filepath.Join(s.dir, "link.sock")))
	write := func(name, text string) string {
		path := filepath.Join(s.dir, name)
		must.Succeed(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	elsewhere := filepath.Join(t.TempDir(), "bundle.json")
	must.Succeed(t, os.WriteFile(elsewhere, d.Document(), 0o600))
	for name, source := range map[string]trust.Issuer{
		"no JSON": {BundleFile: write("text", "x")}, "a large file": {BundleFile: write("large", strings.Repeat(" ", 2<<20))}, "no file": {BundleFile: filepath.Join(s.dir, "none")},
		"a file elsewhere": {BundleFile: elsewhere}, "a socket elsewhere": {WorkloadAPI: outside.Address}, "a link elsewhere": {WorkloadAPI: "unix://" + s.dir + "/link.sock"},
		"no socket": {WorkloadAPI: "unix://" + s.dir + "/none.sock"}, "a private endpoint": {BundleEndpoint: "https://10.0.0.1/bundle"},
	} {
		t.Run(name, func(t *testing.T) {
			source.TrustDomain = prod
			s.trust.set([]trust.Issuer{source}, s.trust.table.Load().Workloads()...)
			for _, e := range []clientauth.Evidence{jwtSVID("", d.JWTSVID(ordersID, issuer, nil)), x509SVID(ordersID, d.X509SVID(ordersID, nil))} {
				if got := s.prove(t, e); got != "keys_unreachable" {
					t.Errorf("got %s", got)
				}
			}
		})
	}
}

// withAuthorities and withDirectories replace the authenticator.
func (s *spiffe) withAuthorities(roots *x509.CertPool) {
	s.renew(func(c *clientauth.Config) { c.Authorities = func() []*x509.CertPool { return []*x509.CertPool{roots} } })
}

func (s *spiffe) withDirectories(directories ...string) {
	s.renew(func(c *clientauth.Config) { c.Federation.Directories = directories })
}

func (s *spiffe) renew(change func(*clientauth.Config)) {
	config := clientauth.Config{
		Issuer: must.Get(oauth.ParseIssuer(issuer)), Clients: s.clients, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0),
		Replays: s.replays, Now: func() time.Time { return *s.clock.Load() },
		Federation: clientauth.Federation{Trust: s.trust, Networks: loopback, Directories: trust.Directories{s.dir}, WorkloadAPI: workloadapi.Bundle},
	}
	change(&config)
	s.Authenticator = clientauth.New(config)
}
