package service_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/spiffetest"
	"github.com/grantorhq/grantor/service/tokentest"
	"github.com/grantorhq/grantor/service/trust"
)

const (
	prodDomain = "prod.example.com"
	ordersID   = "spiffe://prod.example.com/shop/orders"
)

// newSPIFFEWires starts an issuer that trusts domains by their bundles, keyed by name. Each has a workload for the IDs
// below /shop, whose client IDs begin with the name. The client all is every workload of prod.example.com.
func newSPIFFEWires(t *testing.T, bundles map[string]*spiffetest.Domain) *wires {
	t.Helper()
	dir := t.TempDir()
	w := newWires(t, tokentest.TrustDirectories(dir))
	var issuers []trust.Issuer
	var workloads []trust.Workload
	for name, domain := range bundles {
		path := filepath.Join(dir, name+".json")
		must.Succeed(t, os.WriteFile(path, domain.Document(), 0o600))
		issuers = append(issuers, trust.Issuer{TrustDomain: name, BundleFile: path})
		workloads = append(workloads, trust.Workload{
			ClientID: pattern(name + ":{name}"), Rule: trust.Rule{SPIFFEID: pattern("spiffe://" + name + "/shop/{name}")},
		})
	}
	m := trusting(issuers, workloads...)
	m.Clients = []registry.ClientSpec{{Client: registry.Client{
		ID: must.Get(oauth.ParseClientID("all")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: must.Get(oauth.ParseScopes("api1")),
		SPIFFEID: "spiffe://" + prodDomain + "/*",
	}}}
	w.Apply(t, m)
	return w
}

// byJWT returns the evidence of a JWT-SVID, and byX509 that of an X509-SVID.
func byJWT(id, token string) func() evidence {
	return func() evidence {
		return evidence{id: id, assertion: token, assertionType: clientauth.SPIFFEAssertionType}
	}
}

func byX509(id string, svid *x509svid.SVID) func() evidence {
	certificate := &tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	return func() evidence { return evidence{id: id, certificate: certificate} }
}

// TestOddSPIFFEIDsOverWires sends SVIDs of both kinds whose SPIFFE ID is not that of a workload, for a client that
// every workload of the domain is.
func TestOddSPIFFEIDsOverWires(t *testing.T) {
	d := spiffetest.NewDomain(prodDomain)
	w := newSPIFFEWires(t, map[string]*spiffetest.Domain{prodDomain: d})
	expect := func(what, id, want string) {
		t.Helper()
		w.expect(t, "JWT-SVID, "+what, byJWT("all", d.JWTSVID(id, w.URL, nil)), want)
		w.expect(t, "X509-SVID, "+what, byX509("all", d.X509SVID(id, nil)), want)
	}
	expect("a workload", ordersID, "all")
	expect("a longer path", ordersID+"/v2/a.b-c_D", "all")
	for name, id := range map[string]string{
		"no path": "spiffe://prod.example.com", "an empty path": "spiffe://prod.example.com/", "a slash at the end": ordersID + "/",
		"two slashes": "spiffe://prod.example.com/shop//orders", "a dot": "spiffe://prod.example.com/shop/./orders",
		"two dots": "spiffe://prod.example.com/shop/x/../orders", "an escape": ordersID + "%2fx",
		"an escaped dot": "spiffe://prod.example.com/shop/%2e%2e/shop/orders", "a backslash": "spiffe://prod.example.com/shop%5corders",
		"a domain in upper case": "spiffe://Prod.example.com/shop/orders", "a port": "spiffe://prod.example.com:443/shop/orders",
		"a user": "spiffe://x@prod.example.com/shop/orders", "a query": ordersID + "?x", "a fragment": ordersID + "#x",
		"another scheme": "https://prod.example.com/shop/orders", "too long": ordersID + "/" + strings.Repeat("a", 2048),
		"a wildcard": "spiffe://prod.example.com/shop/*", "no domain": "spiffe:///shop/orders",
		"a longer domain": "spiffe://prod.example.com.evil.example/shop/orders",
	} {
		expect(name, id, "invalid_client")
	}
}

// TestDomainsWithOneKeyOverWires has two trust domains with the keys and the authority of one.
func TestDomainsWithOneKeyOverWires(t *testing.T) {
	const twin, twinID = "twin.example.com", "spiffe://twin.example.com/shop/orders"
	d := spiffetest.NewDomain(prodDomain)
	w := newSPIFFEWires(t, map[string]*spiffetest.Domain{prodDomain: d, twin: d})
	w.expect(t, "JWT-SVID of the first", byJWT("", d.JWTSVID(ordersID, w.URL, nil)), "prod.example.com:orders")
	w.expect(t, "X509-SVID of the first", byX509(ordersID, d.X509SVID(ordersID, nil)), "prod.example.com:orders")
	w.expect(t, "JWT-SVID of the second", byJWT("", d.JWTSVID(twinID, w.URL, nil)), "twin.example.com:orders")
	// The certificate of the authority says of which domain it is; the key of a JWT-SVID does not.
	w.expect(t, "X509-SVID for the second, by an authority of the first", byX509(twinID, d.X509SVID(twinID, nil)), "invalid_client")
	w.expect(t, "JWT-SVID of the first as the second", byJWT("twin.example.com:orders", d.JWTSVID(ordersID, w.URL, nil)), "invalid_client")
	w.expect(t, "X509-SVID of the first as the second", byX509("twin.example.com:orders", d.X509SVID(ordersID, nil)), "invalid_client")
	w.expect(t, "JWT-SVID of the second as the first", byJWT("prod.example.com:orders", d.JWTSVID(twinID, w.URL, nil)), "invalid_client")
	w.expect(t, "JWT-SVID of the second as a client of the first", byJWT("all", d.JWTSVID(twinID, w.URL, nil)), "invalid_client")
}

// TestWrongJWTSVIDsOverWires sends JWT-SVIDs that are not in every respect what such a token must be.
func TestWrongJWTSVIDsOverWires(t *testing.T) {
	d, other, foreign := spiffetest.NewDomain(prodDomain), spiffetest.NewDomain("test.example.com"), spiffetest.NewDomain("evil.example.com")
	w := newSPIFFEWires(t, map[string]*spiffetest.Domain{prodDomain: d, "test.example.com": other})
	svid := func(change jwstest.Object) string { return d.JWTSVID(ordersID, w.URL, change) }
	in := func(d time.Duration) int64 { return w.Now().Add(d).Unix() }
	header := jwstest.Object{"alg": "ES256", "kid": d.Signer().Key().ID(), "typ": "JWT"}
	claims := jwstest.Object{"sub": ordersID, "aud": w.URL, "exp": in(time.Minute)}
	for name, test := range map[string]struct{ token, want string }{
		"good":                              {svid(nil), "prod.example.com:orders"},
		"aud as a list of one":              {svid(jwstest.Object{"aud": []string{w.URL}}), "prod.example.com:orders"},
		"aud as a list of two":              {svid(jwstest.Object{"aud": []string{w.URL, "https://b.example"}}), "invalid_client"},
		"for another issuer":                {svid(jwstest.Object{"aud": "https://b.example"}), "invalid_client"},
		"without aud":                       {svid(jwstest.Object{"aud": nil}), "invalid_client"},
		"expired":                           {svid(jwstest.Object{"exp": in(-time.Second)}), "invalid_client"},
		"from the future":                   {svid(jwstest.Object{"iat": in(time.Minute)}), "invalid_client"},
		"by another domain's key, same kid": {other.Signer().Sign(header, claims), "invalid_client"},
		"by another domain's key, its kid":  {other.JWTSVID(ordersID, w.URL, nil), "invalid_client"},
		"without a kid":                     {d.Signer().Sign(header.With(jwstest.Object{"kid": nil}), claims), "invalid_client"},
		"of no trusted domain":              {foreign.JWTSVID("spiffe://evil.example.com/shop/orders", w.URL, nil), "invalid_client"},
	} {
		w.expect(t, name, byJWT("", test.token), test.want)
	}
	w.expect(t, "as an assertion of another type", byAssertion(svid(nil)), "invalid_client")
}

// TestWrongX509SVIDsOverWires shows X509-SVIDs that are not in every respect what such a certificate must be.
func TestWrongX509SVIDsOverWires(t *testing.T) {
	d, other := spiffetest.NewDomain(prodDomain), spiffetest.NewDomain("test.example.com")
	w := newSPIFFEWires(t, map[string]*spiffetest.Domain{prodDomain: d, "test.example.com": other})
	second := must.Get(url.Parse("spiffe://prod.example.com/shop/invoices"))
	w.expect(t, "good", byX509(ordersID, d.X509SVID(ordersID, nil)), "prod.example.com:orders")
	for name, change := range map[string]func(*x509.Certificate){
		"two URIs":                         func(c *x509.Certificate) { c.URIs = append(c.URIs, second) },
		"a second URI that is no identity": func(c *x509.Certificate) { c.URIs = append(c.URIs, must.Get(url.Parse("https://example.com"))) },
		"expired":                          func(c *x509.Certificate) { c.NotAfter = w.Now().Add(-time.Second) },
		"not yet valid":                    func(c *x509.Certificate) { c.NotBefore = w.Now().Add(time.Hour) },
		"without the client-auth usage":    func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"without digitalSignature":         func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		"an authority":                     func(c *x509.Certificate) { c.IsCA = true },
	} {
		w.expect(t, name, byX509(ordersID, d.X509SVID(ordersID, change)), "invalid_client")
	}
	w.expect(t, "of another domain's authority", byX509(ordersID, other.X509SVID(ordersID, nil)), "invalid_client")
	w.expect(t, "of an authority of the same name", byX509(ordersID, spiffetest.NewDomain(prodDomain).X509SVID(ordersID, nil)), "invalid_client")
	selfSigned := certtest.SelfSigned(certtest.URIs(ordersID))
	w.expect(t, "self-signed", func() evidence { return evidence{id: ordersID, certificate: &selfSigned} }, "invalid_client")
	w.expect(t, "none", func() evidence { return evidence{id: ordersID} }, "invalid_client")
}
