package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/spiffetest"
	"github.com/grantorhq/grantor/service/token"
)

// proven is a server over TLS on a Redis, and clients of it that prove a key.
type proven struct {
	issuer string
	// named and keyed are the certificates of the clients named and keyed.
	named, keyed tls.Certificate
	// socket is that of the Workload API of the client workload.
	socket string
	// dpopFile has the key of the proofs, whose thumbprint is jkt.
	dpopFile, jkt string
	*servetest.Replica
}

// newProven starts a server with the arguments and hides the settings of the commands.
func newProven(t *testing.T, args ...string) *proven {
	t.Helper()
	authority, domain := certtest.NewAuthority(), spiffetest.NewDomain("prod.example.com")
	p := &proven{named: authority.Sign(certtest.URIs("spiffe://example.com/named")), keyed: certtest.SelfSigned()}
	p.socket = spiffetest.NewWorkloadAPI(t, domain, "spiffe://prod.example.com/shop/workload").Address
	bundle := servetest.WriteFile(t, "bundle.json", string(domain.Document()))
	signer := jwstest.NewSigner(jwks.ES256)
	p.dpopFile, p.jkt = keyFile(t, signer.Private), must.Get(dpop.NewSigner(signer.Private)).Thumbprint()
	const scopes = `["grantor:clients.read", api1, dpop.read, bound.read], default_scopes: [api1]`
	manifest := fmt.Sprintf(`resources:
  - {resource: "https://orders.internal", scopes: [api1]}
  - {resource: "https://dpop.internal", scopes: [dpop.read], require_bound_tokens: dpop}
  - {resource: "https://bound.internal", scopes: [bound.read], require_bound_tokens: certificate}
trusted_issuers:
  - {trust_domain: prod.example.com, bundle_file: %[1]s}
clients:
  - {client_id: named, tls_client_auth_san_uri: "spiffe://example.com/named", scopes: %[2]s}
  - {client_id: bound, tls_client_auth_san_uri: "spiffe://example.com/named", tls_client_certificate_bound_access_tokens: true, scopes: %[2]s}
  - {client_id: keyed, jwks: {keys: [%[3]s]}, auth_methods: [self_signed_tls_client_auth], scopes: %[2]s}
  - {client_id: workload, federation: [{spiffe_id: "spiffe://prod.example.com/shop/workload"}], scopes: %[2]s}
  - {client_id: secret, client_secret: service-secret-here, scopes: %[2]s}
  - {client_id: prover, client_secret: service-secret-here, dpop_bound_access_tokens: true, scopes: %[2]s}
`, bundle, scopes, must.Get(json.Marshal(must.Get(must.Get(jwks.NewKey(jwks.ES256, p.keyed.Leaf.PublicKey)).JWK()))))
	http, rpc := freeport.Address(t), freeport.Address(t)
	_, port, _ := net.SplitHostPort(http)
	_, rpcPort, _ := net.SplitHostPort(rpc)
	p.issuer = "https://localhost:" + port
	own := servetest.Trusted.WriteCertificate(t, time.Hour)
	args = append(append(servetest.Production(redistest.New(t), servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", manifest)), args...),
		"--issuer="+p.issuer, "--http-listen="+http, "--grpc-listen="+rpc, "--grpc-endpoint=localhost:"+rpcPort,
		"--tls-cert-file="+own.Cert, "--tls-key-file="+own.Key, "--trust-directories="+filepath.Dir(bundle),
		"--client-certificates=request", "--client-certificate-ca-file="+servetest.WriteFile(t, "ca.pem", certtest.PEM(authority.Certificate.Raw)))
	p.Replica = servetest.Start(t, args...)
	clitest.Isolate(t)
	t.Setenv("GRANTOR_ISSUER", p.issuer)
	return p
}

// certificateFlags returns the flags of a certificate in files.
func certificateFlags(t *testing.T, c tls.Certificate) string {
	t.Helper()
	return "--client-certificate-file " + servetest.WriteFile(t, "own.pem", certtest.PEM(c.Certificate...)) +
		" --client-certificate-key-file " + servetest.WriteFile(t, "own.key", certtest.KeyPEM(c))
}

// confirmation issues a token with the arguments and returns its claim cnf, and the whole response.
func (p *proven) confirmation(t *testing.T, args string) (cnf, response map[string]any) {
	t.Helper()
	response = fields(t, runToken(t, "", strings.Fields("issue -o json "+args)...).Works(t))
	raw, _ := response["access_token"].(string)
	claims, _ := fields(t, runToken(t, raw, "decode", "--verify", "--issuer", p.issuer, "-o", "json").Works(t))["claims"].(map[string]any)
	cnf, _ = claims["cnf"].(map[string]any)
	return cnf, response
}

// audited returns the attribute cnf of the last token in the log.
func (p *proven) audited(t *testing.T) string {
	t.Helper()
	issued := regexp.MustCompile(`"event":"token.issued".*"cnf":"([^"]*)"`).FindAllStringSubmatch(p.Log.String(), -1)
	if len(issued) == 0 {
		t.Fatal("the log has no token")
	}
	return issued[len(issued)-1][1]
}

// TestProvenCommands runs token issue and a command of the administration with each proof of a key, over TLS: certificates of both
// methods, SVIDs of both kinds, and DPoP beside each of them.
func TestProvenCommands(t *testing.T) {
	p := newProven(t)
	secret := "--client-secret-file " + servetest.WriteFile(t, "secret", clitest.DevSecret)
	withDPoP := " --dpop-key-file " + p.dpopFile
	named, keyed := certificateFlags(t, p.named), certificateFlags(t, p.keyed)
	x5t := certificate.Thumbprint(p.named.Leaf)
	for _, c := range []struct {
		name, args string
		// x5t and jkt are the members of cnf.
		x5t, jkt string
	}{
		{"tls_client_auth", "--client-id named " + named, "", ""},
		{"tls_client_auth, bound", "--client-id bound " + named, x5t, ""},
		{"tls_client_auth with DPoP", "--client-id named " + named + withDPoP, "", p.jkt},
		{"tls_client_auth, bound to both keys", "--client-id bound " + named + withDPoP, x5t, p.jkt},
		{"self_signed_tls_client_auth", "--client-id keyed " + keyed, "", ""},
		{"self_signed_tls_client_auth with DPoP", "--client-id keyed " + keyed + withDPoP, "", p.jkt},
		{"X509-SVID", "--client-id workload --spiffe-svid x509 --spiffe-socket " + p.socket, "", ""},
		{"X509-SVID with DPoP", "--client-id workload --spiffe-svid x509 --spiffe-socket " + p.socket + withDPoP, "", p.jkt},
		{"JWT-SVID", "--client-id workload --spiffe-socket " + p.socket, "", ""},
		{"JWT-SVID with DPoP", "--client-id workload --spiffe-svid jwt --spiffe-socket " + p.socket + withDPoP, "", p.jkt},
		{"secret with DPoP", "--client-id secret " + secret + withDPoP, "", p.jkt},
		{"client of DPoP", "--client-id prover " + secret + withDPoP, "", p.jkt},
	} {
		t.Run(c.name, func(t *testing.T) {
			cnf, response := p.confirmation(t, c.args)
			gotX5T, _ := cnf["x5t#S256"].(string)
			gotJKT, _ := cnf["jkt"].(string)
			if gotX5T != c.x5t || gotJKT != c.jkt {
				t.Errorf("got cnf %v, want x5t#S256 %q and jkt %q", cnf, c.x5t, c.jkt)
			}
			if want := map[bool]string{true: "DPoP", false: "Bearer"}[c.jkt != ""]; response["token_type"] != want {
				t.Errorf("got token_type %v, want %s", response["token_type"], want)
			}
			bound := token.Confirmation{CertificateThumbprint: c.x5t, KeyThumbprint: c.jkt}
			if got := p.audited(t); got != bound.Methods() {
				t.Errorf("got the audit attribute cnf %q, want %q", got, bound.Methods())
			}
			shows(t, grantor(t, "client list "+c.args), `^workload +`)
		})
	}
	issued := runToken(t, "", strings.Fields("issue --client-id secret "+secret+withDPoP)...)
	if want := "scope api1; expires in 1h0m0s; bound to the DPoP key " + p.jkt + "\n"; issued.ErrOut != want || strings.Count(issued.Works(t), ".") != 2 {
		t.Errorf("got %q and %q, want a token and %q", issued.Out, issued.ErrOut, want)
	}
	// Resources that require a binding.
	if cnf, _ := p.confirmation(t, "--client-id secret --scope dpop.read "+secret+withDPoP); cnf["jkt"] != p.jkt {
		t.Errorf("for a resource that requires DPoP: got cnf %v", cnf)
	}
	if cnf, _ := p.confirmation(t, "--client-id named --scope bound.read "+named); cnf["x5t#S256"] != x5t {
		t.Errorf("for a resource that requires a certificate: got cnf %v", cnf)
	}
	for args, want := range map[string]string{
		"--scope dpop.read " + secret: "A DPoP proof is required", "--scope bound.read " + secret + withDPoP: "A client certificate is required",
	} {
		runToken(t, "", strings.Fields("issue --client-id secret "+args)...).Exits(t, cli.ExitInvalid, "invalid_request: "+want)
	}
	run(t, strings.Fields("client list --client-id prover "+secret)...).Exits(t, cli.ExitInvalid, "invalid_request: A DPoP proof is required")
}

// TestProvenCommandsWithNonces has an issuer that demands its nonce in each DPoP proof, and generates load with such proofs.
func TestProvenCommandsWithNonces(t *testing.T) {
	p := newProven(t, "--dpop-nonce=required")
	t.Setenv("GRANTOR_DPOP_KEY_FILE", p.dpopFile)
	secret := "--client-id prover --client-secret-file " + servetest.WriteFile(t, "secret", clitest.DevSecret)
	svid := "--client-id workload --spiffe-socket " + p.socket
	for _, args := range []string{secret, svid, svid + " --spiffe-svid x509"} {
		if cnf, _ := p.confirmation(t, args); cnf["jkt"] != p.jkt {
			t.Errorf("%s: got cnf %v, want jkt %q", args, cnf, p.jkt)
		}
		shows(t, grantor(t, "client list "+args), `^workload +`)
	}
	named := "--client-id bound " + certificateFlags(t, p.named)
	for _, wire := range []string{"grpc", "rest"} {
		for _, args := range []string{secret, named} {
			for _, command := range []string{"issue", "introspect --tokens 2"} {
				got := grantor(t, "bench "+command+" --wire "+wire+" --calls 8 --warm-up 0s --duration 5s -q -o json "+args)
				if result := fields(t, got); result["calls"] != 8.0 {
					t.Errorf("bench %s over %s: %s: got %s, want 8 calls", command, wire, args, got)
				}
			}
		}
	}
}

// TestDPoPKeyErrors has keys that cannot be used, and an issuer without DPoP.
func TestDPoPKeyErrors(t *testing.T) {
	asDevClient(t)
	clitest.Isolate(t)
	secret := servetest.WriteFile(t, "secret", "a-secret-of-nobody")
	runToken(t, "", "issue", "--dpop-key-file", "/nonexistent").Exits(t, cli.ExitUsage, "dpop-key-file: open /nonexistent")
	runToken(t, "", "issue", "--dpop-key-file", secret).Exits(t, cli.ExitUsage, "dpop-key-file: "+secret+" has no private key in PEM", "a-secret-of-nobody")
	path := keyFile(t, jwstest.NewSigner(jwks.ES256).Private)
	fake := newFakeIssuer(t, nil)
	runToken(t, "", "issue", "--dpop-key-file", path).Exits(t, cli.ExitOther, `token_type is "Bearer", not DPoP`)
	run(t, "client", "list", "--dpop-key-file", path).Exits(t, cli.ExitOther, "DPoP")
	if len(fake.calls) != 0 {
		t.Errorf("got the calls %q, want none with a bearer token", fake.calls)
	}
}

// TestProofsInProfiles takes each proof from a profile.
func TestProofsInProfiles(t *testing.T) {
	p := newProven(t)
	_ = os.Unsetenv("GRANTOR_ISSUER")
	file := profiles(t, strings.NewReplacer("ISSUER", `"`+p.issuer+`"`, "SOCKET", `"`+p.socket+`"`).Replace(`
certified: {issuer: ISSUER, client_id: named, client_certificate_file: named.pem, client_certificate_key_file: named.key}
secret: {issuer: ISSUER, client_id: secret, client_secret: service-secret-here, dpop_key_file: dpop.pem}
svid: {issuer: ISSUER, spiffe_socket: SOCKET, client_id: workload}
x509: {issuer: ISSUER, spiffe_socket: SOCKET, spiffe_svid: x509, dpop_key_file: dpop.pem}
token: {issuer: ISSUER, token_file: svid.jwt}
bare: {issuer: ISSUER, dpop_key_file: dpop.pem}
lost: {issuer: ISSUER, client_id: named, client_certificate_file: lost.pem, client_certificate_key_file: lost.key}
unbound: {issuer: ISSUER, client_id: secret, client_secret: service-secret-here, dpop_key_file: lost.pem}
nowhere: {issuer: ISSUER, spiffe_socket: "unix:///nonexistent/agent.sock"}
none: {issuer: ISSUER, token_file: lost.jwt}
`))
	for name, content := range map[string]string{
		"named.pem": certtest.PEM(p.named.Certificate...), "named.key": certtest.KeyPEM(p.named), "dpop.pem": string(must.Get(os.ReadFile(p.dpopFile))),
	} {
		must.Succeed(t, os.WriteFile(filepath.Join(filepath.Dir(file), name), []byte(content), 0o600))
	}
	other := certificateFlags(t, p.named)
	for args, wantJKT := range map[string]string{
		"--profile certified": "", "--profile secret": p.jkt, "--profile svid": "", "--profile svid --spiffe-svid x509": "",
		"--profile x509 --client-id workload": p.jkt, "--profile certified --dpop-key-file " + p.dpopFile: p.jkt,
		// A flag takes precedence over the proof of the profile, whose key of DPoP proofs remains that of its client.
		"--profile secret --client-id named " + other: "",
		"--profile bare --client-id named " + other:   p.jkt,
	} {
		if cnf, _ := p.confirmation(t, args); (cnf["jkt"] == p.jkt) != (wantJKT != "") {
			t.Errorf("%s: got cnf %v, want jkt %q", args, cnf, wantJKT)
		}
		shows(t, grantor(t, "client list "+args), `^workload +`)
	}
	for args, want := range map[string]string{
		"--profile lost": "profile lost: open ", "--profile unbound": "profile unbound: open ", "--profile none": "profile none: ", "--profile nowhere": "profile nowhere: ",
		"--profile certified --client-id keyed": "the certificate of the profile certified is not for keyed at https",
		"--profile secret --spiffe-svid x509":   "spiffe-svid: is set without spiffe-socket",
	} {
		runToken(t, "", strings.Fields("issue "+args)...).Exits(t, cli.ExitUsage, want)
	}
	// The environment may be about another issuer, client or key.
	t.Setenv("GRANTOR_CLIENT_ID", "keyed")
	t.Setenv("GRANTOR_SPIFFE_SVID", "jwt")
	t.Setenv("GRANTOR_TOKEN_FILE", "/nonexistent")
	t.Setenv("GRANTOR_DPOP_KEY_FILE", "/nonexistent")
	if cnf, _ := p.confirmation(t, "--profile secret"); cnf["jkt"] != p.jkt {
		t.Errorf("got cnf %v, want the key of the profile", cnf)
	}
	runToken(t, "", "issue", "--profile", "certified").Exits(t, cli.ExitUsage, "dpop-key-file: open /nonexistent")
}

// TestProofsInProfilesErrors has profiles whose fields exclude each other.
func TestProofsInProfilesErrors(t *testing.T) {
	for _, c := range []struct{ name, fields, want string }{
		{"two proofs", "token_file: b, client_id: a, client_secret: hush", "give one of client_secret and token_file"},
		{"two identities", "token_file: b, spiffe_socket: c", "give one of token_file and spiffe_socket"},
		{"a certificate without its key", "client_id: a, client_certificate_file: b", "give both of client_certificate_file and client_certificate_key_file"},
		{"a key without its certificate", "client_id: a, client_certificate_key_file: b", "give both of client_certificate_file and client_certificate_key_file"},
		{"a certificate without a client", "client_certificate_file: b, client_certificate_key_file: c", "a profile with a certificate needs the client_id of the certificate"},
		{"a kind alone", "spiffe_svid: jwt", "spiffe_svid is for a profile with spiffe_socket"},
		{"another kind", "spiffe_socket: a, spiffe_svid: wit", "spiffe_svid: \"wit\" is neither jwt nor x509"},
		{"a method", "client_id: a, token_file: b, client_auth_method: client_secret_post", "client_auth_method is for a profile with a secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			profiles(t, "prod: {issuer: https://a.example, "+c.fields+"}")
			run(t, "key", "list", "--profile=prod").Exits(t, cli.ExitUsage, "profiles.yaml:1: "+c.want, "hush")
		})
	}
}
