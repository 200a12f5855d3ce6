package trustcheck_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/spiffetest"
	"github.com/grantorhq/grantor/service/trust"
)

// rulesOf implements what an Authenticator asks, by a manifest.
type rulesOf struct {
	table   *trust.Table
	clients []registry.Client
}

func (r *rulesOf) Trust(context.Context) (*trust.Table, error) { return r.table, nil }

func (r *rulesOf) Client(_ context.Context, id oauth.ClientID) (*registry.Client, error) {
	for i := range r.clients {
		if r.clients[i].ID == id {
			return &r.clients[i], nil
		}
	}
	return nil, registry.ErrNotFound
}

func (*rulesOf) RetryAfter(string, netip.Addr) time.Duration    { return 0 }
func (*rulesOf) RecordFailure(string, netip.Addr) time.Duration { return 0 }
func (*rulesOf) Suspect(netip.Addr) bool                        { return false }

// newIssuer returns the authenticator of an issuer with the manifest, which reads bundles below the directory.
func newIssuer(t *testing.T, path, directory string) (*clientauth.Authenticator, *rulesOf) {
	t.Helper()
	file := must.Get(manifest.ParseWithoutSecrets(path, must.Get(os.ReadFile(path))))
	r := &rulesOf{table: must.Get(trust.NewTable(1, file.Issuers, file.Workloads))}
	for i := range file.Clients {
		r.clients = append(r.clients, file.Clients[i].Client)
	}
	return clientauth.New(clientauth.Config{
		Issuer: must.Get(oauth.ParseIssuer(here)), Clients: r, Hasher: must.Get(clientsecret.NewHasher(bytes.Repeat([]byte("p"), 32))), Failures: r, Now: time.Now,
		Federation: clientauth.Federation{Trust: r, Directories: trust.Directories{directory}},
	}), r
}

// evidence is what is sent to both: the input of the command, and the same for the issuer.
type evidence struct {
	name, input string
	request     clientauth.Evidence
}

func token(name, text string) evidence {
	return evidence{name, text, clientauth.Evidence{Assertion: text, AssertionType: clientauth.AssertionType}}
}

func svid(name, text string) evidence {
	return evidence{name, text, clientauth.Evidence{Assertion: text, AssertionType: clientauth.SPIFFEAssertionType}}
}

func chain(name string, certificates ...*x509.Certificate) evidence {
	var text strings.Builder
	for _, c := range certificates {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return evidence{name, text.String(), clientauth.Evidence{Certificates: certificates}}
}

// tokens returns tokens of the cluster that are right or have one defect.
func (f *fixture) tokens() (all []evidence) {
	now := time.Now().Unix()
	for name, change := range map[string]jwstest.Object{
		"right": nil, "aud a string": {"aud": here}, "two aud": {"aud": []string{here, "x"}}, "no aud": {"aud": nil}, "aud empty": {"aud": []string{}}, "another aud": {"aud": here + "/"},
		"aud twice": {"aud": []string{here, here}}, "aud a number": {"aud": 5}, "expired": {"exp": now - 1}, "no exp": {"exp": nil}, "exp a text": {"exp": "1"}, "exp a fraction": {"exp": float64(now) + 60.5},
		"exp in a year": {"exp": now + 365*86400}, "nbf ahead": {"nbf": now + 60}, "iat ahead": {"iat": now + 60}, "iat ahead by 20 s": {"iat": now + 20}, "nbf a text": {"nbf": "x"}, "iat null": {"iat": nil},
		"another sub": {"sub": "x"}, "no sub": {"sub": nil}, "sub a number": {"sub": 5}, "a workload": {"sub": "system:serviceaccount:billing:api"}, "a disabled workload": {"sub": "system:serviceaccount:billing:off"},
		"a disabled client": {"sub": "off"}, "another iss": {"iss": "https://b.example"}, "iss with a slash": {"iss": cluster + "/"}, "no iss": {"iss": nil}, "iss as sub": {"sub": cluster},
		"a client that may use its secret alone": {"sub": "barred"}, "sub a SPIFFE ID": {"sub": "spiffe://prod.example.com/mesh/a"}, "iss a trust domain": {"iss": "spiffe://prod.example.com"},
	} {
		all = append(all, token(name, f.token(change)))
	}
	claims := jwstest.Object{"iss": cluster, "sub": "system:serviceaccount:shop:orders", "aud": here, "exp": now + 60}
	for name, header := range map[string]jwstest.Object{
		"typ JWT": {"typ": "JWT"}, "typ in lower case": {"typ": "application/jwt"}, "an access token": {"typ": "at+jwt"}, "typ of an assertion": {"typ": "client-authentication+jwt"},
		"typ of a proof": {"typ": "dpop+jwt"}, "typ of a logout": {"typ": "logout+jwt"}, "typ JOSE": {"typ": "JOSE"}, "another alg": {"alg": "RS256"}, "no kid": {"kid": nil}, "another kid": {"kid": "x"},
		"crit": {"crit": []string{"x"}},
	} {
		all = append(all, token(name, f.signer.Sign(jwstest.Object{"alg": "ES256", "kid": f.signer.Key().ID()}.With(header), claims)))
	}
	forged := jwstest.NewSigner(jwks.ES256).Sign(jwstest.Object{"alg": "ES256", "kid": f.signer.Key().ID()}, claims)
	return append(all, token("forged", forged))
}

// svids returns SVIDs of a trust domain that are right or have one defect.
func svids(d, other *spiffetest.Domain) (all []evidence) {
	now := time.Now()
	const id, second = "spiffe://prod.example.com/mesh/a", "spiffe://prod.example.com/shop/orders"
	for name, change := range map[string]jwstest.Object{
		"right": nil, "an iss": {"iss": "https://oidc.example"}, "two aud": {"aud": []string{here, "x"}}, "no exp": {"exp": nil}, "expired": {"exp": now.Unix() - 1}, "from the future": {"iat": now.Unix() + 60},
	} {
		all = append(all, svid("JWT-SVID "+name, d.JWTSVID(id, here, change)))
	}
	for name, header := range map[string]jwstest.Object{
		"typ JOSE": {"typ": "JOSE"}, "an access token": {"typ": "at+jwt"}, "typ in lower case": {"typ": "jwt"}, "no kid": {"kid": nil}, "another alg": {"alg": "ES384"},
	} {
		all = append(all, svid("JWT-SVID "+name, d.Signer().Sign(jwstest.Object{"alg": "ES256", "kid": d.Signer().Key().ID()}.With(header), jwstest.Object{"sub": id, "aud": here, "exp": now.Unix() + 60})))
	}
	for name, id := range map[string]string{
		"of a rule": second, "of a client's field": "spiffe://prod.example.com/field", "no path": "spiffe://prod.example.com", "a slash at the end": id + "/", "two dots": "spiffe://prod.example.com/mesh/../mesh/a",
		"a port": "spiffe://prod.example.com:1/mesh/a", "another path": "spiffe://prod.example.com/x", "another domain": "spiffe://test.example.com/mesh/a",
	} {
		all = append(all, svid("JWT-SVID "+name, d.JWTSVID(id, here, nil)), chain("X509-SVID "+name, d.X509SVID(id, nil).Certificates...))
	}
	for name, change := range map[string]func(*x509.Certificate){
		"right": nil, "expired": func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, "not yet valid": func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) },
		"two URIs":           func(c *x509.Certificate) { c.URIs = append(c.URIs, must.Get(url.Parse(second))) },
		"signs certificates": func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "no digitalSignature": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		"for servers": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "for nothing named": func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"for anything": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
	} {
		all = append(all, chain("X509-SVID "+name, d.X509SVID(id, change).Certificates...))
	}
	long := d.X509SVID(id, nil).Certificates
	for range 6 {
		long = append(long, d.Authority)
	}
	return append(all, chain("X509-SVID with a long chain", long...), chain("X509-SVID of another authority", other.X509SVID(id, nil).Certificates...),
		svid("JWT-SVID of another authority", other.JWTSVID(id, here, nil)))
}

// TestIssuerAgrees sends the same evidence to the command and to an issuer with the same manifest: the command accepts what the
// issuer accepts, as the client or without an id, and nothing else.
func TestIssuerAgrees(t *testing.T) {
	d, other := spiffetest.NewDomain("prod.example.com"), spiffetest.NewDomain("prod.example.com")
	directory := t.TempDir()
	must.Succeed(t, os.WriteFile(filepath.Join(directory, "bundle.json"), d.Document(), 0o600))
	f := newFixture(t, "bundle_file: "+filepath.Join(directory, "bundle.json"))
	text := string(must.Get(os.ReadFile(f.manifest)))
	f.manifest = servetest.WriteFile(t, "clients.yaml", strings.Replace(text, "workloads:\n", fmt.Sprintf(`  - {client_id: field, spiffe_id: "spiffe://prod.example.com/field"}
  - {client_id: barred, auth_methods: [client_secret_basic], client_secret_file: /nonexistent, federation: [{issuer: %q, subject: barred}]}
workloads:
`, cluster), 1))
	issuer, rules := newIssuer(t, f.manifest, directory)
	accepted := 0
	for _, sent := range append(f.tokens(), svids(d, other)...) {
		t.Run(sent.name, func(t *testing.T) {
			reasons, want := []string{}, false
			for _, id := range append([]string{"", "mesh:a"}, names(rules.clients)...) {
				request := sent.request
				request.ClientID = id
				_, err := issuer.Authenticate(t.Context(), request)
				want = want || err == nil
				if err != nil {
					reasons = append(reasons, id+": "+oauth.From(err).Error())
				}
			}
			got := f.check(t, sent.input)
			if code := cli.ExitCode(got.Err); (code == 0) != want {
				t.Errorf("got exit code %d (%v), but the issuer: accepted=%t, %s\n%s", code, got.Err, want, strings.Join(reasons, "\n"), got.Out)
			}
			if want {
				accepted++
			}
		})
	}
	if accepted < 10 {
		t.Errorf("the issuer accepts %d of all, so that the test says little", accepted)
	}
}

func names(clients []registry.Client) (all []string) {
	for i := range clients {
		all = append(all, clients[i].ID.String())
	}
	return all
}
