package trustcheck_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/cmd/grantor/trustcheck"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

const (
	cluster = "https://kubernetes.default.svc.cluster.local"
	here    = "https://auth.example.com"
)

// file is the manifest of the tests. Its first argument is the JWK Set of the cluster, its second more fields of the trust
// domain.
const file = `trusted_issuers:
  - issuer: ` + cluster + `
    jwks: %s
  - issuer: https://bearer.example
    bearer_token_file: /var/run/token
  - trust_domain: prod.example.com
    %s
clients:
  - client_id: orders
    client_secret_file: /nonexistent
    federation:
      - issuer: ` + cluster + `
        subject: system:serviceaccount:shop:orders
      - spiffe_id: spiffe://prod.example.com/shop/orders
      - {issuer: "https://bearer.example", subject: x}
  - client_id: off
    disabled: true
    federation: [{issuer: ` + cluster + `, subject: off}]
  - client_id: k8s:billing:off
    workload: true
    disabled: true
workloads:
  - client_id: "k8s:{namespace}:{name}"
    issuer: ` + cluster + `
    subject: "system:serviceaccount:{namespace}:{name}"
    where: {namespace: billing}
  - client_id: "mesh:{name}"
    spiffe_id: "spiffe://prod.example.com/mesh/{name}"
`

// fixture has a manifest and the key of its issuer.
type fixture struct {
	signer   jwstest.Signer
	manifest string
}

func newFixture(t *testing.T, domain string) *fixture {
	t.Helper()
	clitest.Isolate(t)
	f := &fixture{signer: jwstest.NewSigner(jwks.ES256)}
	set := must.Get(json.Marshal(map[string]any{"keys": []jwks.JWK{f.signer.JWK()}}))
	f.manifest = servetest.WriteFile(t, "clients.yaml", fmt.Sprintf(file, set, domain))
	return f
}

// token returns a token of the cluster with other claims than usual.
func (f *fixture) token(change jwstest.Object) string {
	now := time.Now().Unix()
	return f.signer.Sign(
		jwstest.Object{"alg": "ES256", "kid": f.signer.Key().ID()},
		jwstest.Object{
			"iss": cluster, "sub": "system:serviceaccount:shop:orders", "aud": []string{here}, "exp": now + 600, "iat": now, "nbf": now,
		}.With(change))
}

func (f *fixture) check(t *testing.T, sent string, args ...string) clitest.Result {
	t.Helper()
	args = append([]string{"--file", f.manifest, "--issuer", here}, args...)
	got := clitest.Run(t, trustcheck.NewCommand(), strings.NewReader(sent), args...)
	for part := range strings.SplitSeq(strings.TrimSpace(sent), ".") {
		if len(part) > 20 && strings.Contains(got.Out+got.ErrOut+fmt.Sprint(got.Err), part) {
			t.Errorf("a part of the token is in %s %s %v", got.Out, got.ErrOut, got.Err)
		}
	}
	return got
}

// TestToken checks tokens of an issuer, each of which is accepted or has one defect.
func TestToken(t *testing.T) {
	f := newFixture(t, "bundle_file: /nonexistent")
	now := time.Now().Unix()
	other := jwstest.NewSigner(jwks.ES256)
	forged := &fixture{signer: other}
	for _, c := range []struct {
		name, token string
		code        int
		has         []string
	}{
		{"a client", f.token(nil), 0, []string{"signature  right", "audience   right", "client orders, rule 1", "yes", "clients.yaml:12", "It is the client orders.", "workload k8s:{namespace}:{name}", "the subject does not match"}},
		{"a workload", f.token(jwstest.Object{"sub": "system:serviceaccount:billing:api"}), 0, []string{"k8s:billing:api", "It is the client k8s:billing:api."}},
		{"an audience that is a string", f.token(jwstest.Object{"aud": here}), 0, []string{"audience   right"}},
		{"another namespace", f.token(jwstest.Object{"sub": "system:serviceaccount:other:api"}), cli.ExitNotFound, []string{`the subject does not match "system:serviceaccount:billing:{name}"`, "No client matches."}},
		{"a disabled client", f.token(jwstest.Object{"sub": "off"}), cli.ExitNotFound, []string{"the client is disabled"}},
		{"a disabled client of a workload", f.token(jwstest.Object{"sub": "system:serviceaccount:billing:off"}), cli.ExitNotFound, []string{"the client k8s:billing:off is disabled"}},
		{"another issuer", f.token(jwstest.Object{"iss": "https://elsewhere.example"}), cli.ExitNotFound, []string{"issuer  wrong", "not among the trusted issuers"}},
		{"an issuer with a slash", f.token(jwstest.Object{"iss": cluster + "/"}), cli.ExitNotFound, []string{"issuer  wrong"}},
		{"an expired one", f.token(jwstest.Object{"exp": now - 10}), cli.ExitInvalid, []string{"times      wrong", "it expired at"}},
		{"one without an end", f.token(jwstest.Object{"exp": nil}), cli.ExitInvalid, []string{"times      wrong"}},
		{"one from the future", f.token(jwstest.Object{"nbf": now + 600}), cli.ExitInvalid, []string{"times      wrong", "nbf"}},
		{"another audience", f.token(jwstest.Object{"aud": "https://other.example"}), cli.ExitInvalid, []string{"audience   wrong", "https://other.example"}},
		{"two audiences", f.token(jwstest.Object{"aud": []string{here, "x"}}), cli.ExitInvalid, []string{"audience   wrong", `aud is ["https://auth.example.com","x"], want https://auth.example.com alone`}},
		{"a forged one", forged.token(nil), cli.ExitInvalid, []string{"signature  wrong", "no key with its kid"}},
		{"a wrong signature", f.token(nil)[:len(f.token(nil))-8] + "AAAAAAAA", cli.ExitInvalid, []string{"signature  wrong"}},
		{"keys behind a token", f.token(jwstest.Object{"iss": "https://bearer.example", "sub": "x"}), 0, []string{"signature  not checked", "give the keys with --keys"}},
		{"a logout token", f.signer.Sign(jwstest.Object{"alg": "ES256", "kid": f.signer.Key().ID(), "typ": "logout+jwt"}, jwstest.Object{
			"iss": cluster, "sub": "system:serviceaccount:shop:orders", "aud": here, "exp": now + 60,
		}), cli.ExitInvalid, []string{"type       wrong", "logout+jwt"}},
		{"a subject with a line break", f.token(jwstest.Object{"sub": "a\nb\x1b[2J"}), cli.ExitNotFound, []string{"subject a?b?[2J"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := f.check(t, c.token+"\n")
			if code := cli.ExitCode(got.Err); code != c.code {
				t.Errorf("got exit code %d (%v), want %d:\n%s", code, got.Err, c.code, got.Out)
			}
			for _, text := range c.has {
				if !strings.Contains(got.Out, text) {
					t.Errorf("got this, without %q:\n%s", text, got.Out)
				}
			}
		})
	}
	path := servetest.WriteFile(t, "token", f.token(nil))
	if got := f.check(t, "", "@"+path).Works(t); !strings.Contains(got, "It is the client orders.") {
		t.Errorf("from a file: got %s", got)
	}
	var scripted struct {
		Clients []string `json:"clients"`
		Rules   []struct {
			Rule    string `json:"rule"`
			Matches bool   `json:"matches"`
		} `json:"rules"`
	}
	must.Succeed(t, json.Unmarshal([]byte(f.check(t, f.token(nil), "-o", "json").Works(t)), &scripted))
	if len(scripted.Clients) != 1 || len(scripted.Rules) != 3 || !scripted.Rules[0].Matches {
		t.Errorf("got %+v", scripted)
	}
}

// TestKeys checks the signature with the keys of a file, and those that an issuer publishes.
func TestKeys(t *testing.T) {
	clitest.Isolate(t)
	f := &fixture{signer: jwstest.NewSigner(jwks.ES256)}
	set := must.Get(json.Marshal(map[string]any{"keys": []jwks.JWK{f.signer.JWK()}}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/keys":
			_, _ = w.Write(set)
		case "/moved":
			http.Redirect(w, r, "/keys", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	for _, c := range []struct{ fields, keys, want string }{
		{"jwks_uri: " + server.URL + "/keys", "", "signature  right        with " + server.URL + "/keys"},
		{"jwks_uri: " + server.URL + "/moved", "", "signature  not checked  its keys cannot be fetched from here"},
		{"jwks_uri: " + server.URL + "/none", "", "signature  not checked"},
		{"ca_file: /nonexistent", "", "signature  not checked  its ca_file cannot be read here"},
		{"audience: [x]", servetest.WriteFile(t, "keys.json", string(set)), "signature  right"},
	} {
		f.manifest = servetest.WriteFile(t, "clients.yaml", "trusted_issuers:\n  - issuer: "+cluster+"\n    "+c.fields+"\nworkloads:\n  - {client_id: a, issuer: "+cluster+", subject: '*:*:*:*'}\n")
		args := []string{}
		if c.keys != "" {
			args = append(args, "--keys", c.keys)
		}
		got := f.check(t, f.token(jwstest.Object{"aud": here}), args...)
		if want := strings.Join(strings.Fields(c.want), " "); got.Err != nil || !strings.Contains(strings.Join(strings.Fields(got.Out), " "), want) {
			t.Errorf("%s: got %v and\n%s\nwant %s", c.fields, got.Err, got.Out, want)
		}
	}
	wrongKeys := f.check(t, f.token(jwstest.Object{"aud": here}), "--keys", servetest.WriteFile(t, "keys.json", "{}"))
	if wrongKeys.Err == nil || !strings.Contains(strings.Join(strings.Fields(wrongKeys.Out), " "), "signature wrong") {
		t.Errorf("keys that are none: got %v and\n%s", wrongKeys.Err, wrongKeys.Out)
	}
	if none := f.check(t, f.token(nil), "--keys", "/nonexistent"); none.Err == nil || !strings.Contains(none.Err.Error(), "keys: open /nonexistent") {
		t.Errorf("no such file: got %v and\n%s", none.Err, none.Out)
	}
}

// authority is the authority of a trust domain.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{must.Get(url.Parse("spiffe://prod.example.com"))},
	}
	der := must.Get(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return &authority{must.Get(x509.ParseCertificate(der)), key}
}

// issue returns a certificate in PEM.
func (a *authority) issue(change func(*x509.Certificate)) string {
	key := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Minute),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{must.Get(url.Parse("spiffe://prod.example.com/shop/orders"))}, Subject: pkix.Name{CommonName: "orders"},
	}
	change(template)
	der := must.Get(x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestCertificate checks certificates of a trust domain, each of which is accepted or has one defect.
func TestCertificate(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	bundle := spiffebundle.New(spiffeid.RequireTrustDomainFromString("prod.example.com"))
	bundle.AddX509Authority(ours.certificate)
	svid := jwstest.NewSigner(jwks.ES256)
	must.Succeed(t, bundle.AddJWTAuthority("svid-key", svid.Private.Public()))
	path := servetest.WriteFile(t, "bundle.json", string(must.Get(bundle.Marshal())))
	f := newFixture(t, "bundle_file: "+path)
	at := func(id string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.URIs = []*url.URL{must.Get(url.Parse(id))} }
	}
	nothing := func(*x509.Certificate) {}
	for _, c := range []struct {
		name, sent string
		code       int
		want       string
	}{
		{"a client", ours.issue(nothing), 0, "It is the client orders."},
		{"a workload", ours.issue(at("spiffe://prod.example.com/mesh/a")), 0, "It is the client mesh:a."},
		{"another path", ours.issue(at("spiffe://prod.example.com/shop/orders/x")), cli.ExitNotFound, "the SPIFFE ID does not match"},
		{"another domain", ours.issue(at("spiffe://test.example.com/shop/orders")), cli.ExitNotFound, "not among the trusted issuers"},
		{"a wrong authority", theirs.issue(nothing), cli.ExitInvalid, "signature wrong"},
		{"an expired one", ours.issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), cli.ExitInvalid, "times wrong"},
		{"no usage of a client", ours.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), cli.ExitInvalid, "usage wrong"},
		{"two ids", ours.issue(func(c *x509.Certificate) { c.URIs = append(c.URIs, must.Get(url.Parse("spiffe://prod.example.com/x"))) }), cli.ExitInvalid, ""},
		{"no id", ours.issue(func(c *x509.Certificate) { c.URIs = nil }), cli.ExitInvalid, ""},
		{"a JWT-SVID", svid.Sign(jwstest.Object{"alg": "ES256", "kid": "svid-key"}, jwstest.Object{
			"sub": "spiffe://prod.example.com/mesh/b", "aud": []string{here}, "exp": time.Now().Unix() + 60,
		}), 0, "It is the client mesh:b."},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := f.check(t, c.sent)
			if code := cli.ExitCode(got.Err); code != c.code || !strings.Contains(strings.Join(strings.Fields(got.Out), " "), c.want) {
				t.Errorf("got exit code %d (%v), want %d and %q:\n%s", code, got.Err, c.code, c.want, got.Out)
			}
		})
	}
}

// TestInput has one case for each input that is no token and no certificate. No error quotes it.
func TestInput(t *testing.T) {
	f := newFixture(t, "bundle_file: /nonexistent")
	for _, c := range []struct {
		name, sent string
		args       []string
		code       int
	}{
		{"nothing", "", nil, cli.ExitUsage},
		{"blanks", " \n", nil, cli.ExitUsage},
		{"a file without @", "", []string{"canary"}, cli.ExitUsage},
		{"no such file", "", []string{"@/nonexistent"}, cli.ExitUsage},
		{"two arguments", "", []string{"a", "b"}, cli.ExitUsage},
		{"no JWT", "canary", nil, cli.ExitInvalid},
		{"three parts", "canary.canary.canary", nil, cli.ExitInvalid},
		{"an encrypted token", "e30.canary.canary.canary.canary", nil, cli.ExitInvalid},
		{"a large token", strings.Repeat("canary", 2000), nil, cli.ExitInvalid},
		{"no end", strings.Repeat("canary", 20000), nil, cli.ExitOther},
		{"no claims", f.signer.Sign(jwstest.Object{"alg": "ES256"}, jwstest.Object{}), nil, cli.ExitInvalid},
		{"a key alone", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n", nil, cli.ExitInvalid},
		{"no certificate", "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n", nil, cli.ExitInvalid},
		{"certificates without end", strings.Repeat(newAuthority(t).issue(func(*x509.Certificate) {}), 11), nil, cli.ExitInvalid},
		{"an output that there is not", "", []string{"-o", "yaml"}, cli.ExitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := f.check(t, c.sent, c.args...)
			if got.Err == nil || strings.Contains(got.Err.Error()+got.ErrOut+got.Out, "canary") && c.name != "a file without @" {
				t.Fatalf("got %v %s", got.Err, got.Out)
			}
			if c.name != "two arguments" && cli.ExitCode(got.Err) != c.code {
				t.Errorf("got exit code %d (%v), want %d", cli.ExitCode(got.Err), got.Err, c.code)
			}
		})
	}
}
