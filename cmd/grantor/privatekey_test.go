package main

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// keyFile writes a private key to a file and returns its path.
func keyFile(t *testing.T, private crypto.Signer) string {
	t.Helper()
	der := must.Get(x509.MarshalPKCS8PrivateKey(private))
	return servetest.WriteFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// keyedClients is the administration with the clients keyed, which has a key, and chief, an administrator with a key.
func keyedClients(set string) string {
	return administration + `
  - {client_id: keyed, jwks: ` + set + `, scopes: [api1]}
  - {client_id: chief, jwks: ` + set + `, scopes: ["grantor:clients.read", "grantor:clients.write"]}
`
}

// asKeyed starts a server with keyedClients and sets up the commands to be keyed, with a private key in a file.
func asKeyed(t *testing.T) (signer jwstest.Signer, path string) {
	t.Helper()
	signer = jwstest.NewSigner("ES256")
	r := servetest.Dev(t, "--apply="+servetest.WriteFile(t, "keyed.yaml", keyedClients(jwstest.Set(signer))))
	path = keyFile(t, signer.Private)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("GRANTOR_ISSUER", must.Get(r.Issuer()).String())
	t.Setenv("GRANTOR_CLIENT_ID", "keyed")
	t.Setenv("GRANTOR_CLIENT_SECRET", "")
	return signer, path
}

// TestPrivateKey authenticates each kind of command by a key, on both wires.
func TestPrivateKey(t *testing.T) {
	signer, path := asKeyed(t)
	raw := runToken(t, "", "issue", "--private-key-file", path).Works(t)
	t.Setenv("GRANTOR_PRIVATE_KEY_FILE", path)
	if got := fields(t, runToken(t, raw, "introspect", "-o", "json").Works(t)); got["client_id"] != "keyed" || got["active"] != true {
		t.Errorf("introspection: got %v, want an active token of keyed", got)
	}
	runToken(t, raw, "revoke").Works(t)
	if got := runToken(t, raw, "introspect").Works(t); got != "  active  false\n" {
		t.Errorf("introspection after the revocation: got %q", got)
	}
	raw = runToken(t, "", "issue", "--key-id", signer.Key().ID()).Works(t)
	runToken(t, "", "revoke", "--all").Works(t) // over gRPC
	if got := runToken(t, raw, "introspect").Works(t); got != "  active  false\n" {
		t.Errorf("introspection after all are revoked: got %q", got)
	}
	shows(t, run(t, "client", "list", "--client-id", "chief").Works(t), `^keyed +`)
	for _, wire := range []string{"grpc", "rest"} {
		run(t, "bench", "issue", "--wire", wire, "--calls", "8", "--warm-up", "0s", "--duration", "5s", "-q").Works(t)
		run(t, "bench", "introspect", "--wire", wire, "--calls", "8", "--warm-up", "0s", "--duration", "5s", "-q", "--tokens", "2").Works(t)
	}
}

// TestPrivateKeyErrors has keys that cannot be used or are not the client's, and settings that exclude each other.
func TestPrivateKeyErrors(t *testing.T) {
	_, path := asKeyed(t)
	foreign := keyFile(t, jwstest.NewSigner("ES256").Private)
	secret := servetest.WriteFile(t, "secret", "a-secret-of-nobody")
	for _, c := range []struct {
		name, args, want string
		code             int
	}{
		{"no such file", "--private-key-file /nonexistent", "private-key-file: open /nonexistent", cli.ExitUsage},
		{"no key in it", "--private-key-file " + secret, "private-key-file: " + secret + " has no private key in PEM", cli.ExitUsage},
		{"a key of another client", "--private-key-file " + foreign, "invalid_client: ", cli.ExitDenied},
		{"under another kid", "--key-id other --private-key-file " + path, "invalid_client: ", cli.ExitDenied},
		{"a kid without a key", "--key-id other", "key-id: is set without private-key-file", cli.ExitUsage},
		{"a secret too", "--private-key-file " + path + " --client-secret-file " + secret, "client-secret-file, private-key-file: both are set", cli.ExitUsage},
		{"a method of secrets", "--client-auth-method client_secret_post --private-key-file " + path, "client-auth-method: is for a client with a secret", cli.ExitUsage},
		{"neither", "", "in the file of --private-key-file", cli.ExitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			runToken(t, "", append([]string{"issue"}, strings.Fields(c.args)...)...).Exits(t, c.code, c.want, "a-secret-of-nobody")
		})
	}
	t.Setenv("GRANTOR_CLIENT_SECRET", "a-secret-of-nobody")
	runToken(t, "", "issue", "--private-key-file", path).Exits(t, cli.ExitUsage, "GRANTOR_CLIENT_SECRET, private-key-file: both are set", "a-secret-of-nobody")
}

// TestPrivateKeyProfile takes the key from a profile, which is for its client alone.
func TestPrivateKeyProfile(t *testing.T) {
	signer, path := asKeyed(t)
	issuer := os.Getenv("GRANTOR_ISSUER")
	t.Setenv("GRANTOR_CLIENT_ID", "")
	_ = os.Unsetenv("GRANTOR_CLIENT_ID")
	file := profiles(t, `
prod: {issuer: "`+issuer+`", client_id: keyed, private_key_file: own.pem, key_id: `+signer.Key().ID()+`}
wrong: {issuer: "`+issuer+`", client_id: keyed, private_key_file: own.pem, key_id: other}
lost: {issuer: "`+issuer+`", client_id: keyed, private_key_file: lost.pem}
secret: {issuer: "`+issuer+`", client_id: keyed, client_secret: hush, client_auth_method: client_secret_post}
`)
	must.Succeed(t, os.WriteFile(filepath.Join(filepath.Dir(file), "own.pem"), must.Get(os.ReadFile(path)), 0o600))
	runToken(t, "", "issue", "--profile=prod").Works(t)
	runToken(t, "", "issue", "--profile=secret", "--private-key-file="+path).Works(t)
	runToken(t, "", "issue", "--profile=wrong", "--key-id="+signer.Key().ID()).Works(t)
	runToken(t, "", "issue", "--profile=wrong").Exits(t, cli.ExitDenied, "invalid_client: ")
	runToken(t, "", "issue", "--profile=lost").Exits(t, cli.ExitUsage, "profile lost: open ")
	runToken(t, "", "issue", "--profile=secret", "--key-id=x").Exits(t, cli.ExitUsage, "key-id: is set without private-key-file")
	runToken(t, "", "issue", "--profile=prod", "--client-id=chief").Exits(t, cli.ExitUsage, "the private key of the profile prod is not for chief at http")
	// The environment may be about another issuer or client.
	t.Setenv("GRANTOR_CLIENT_SECRET", "hush")
	t.Setenv("GRANTOR_KEY_ID", "other")
	runToken(t, "", "issue", "--profile=prod").Works(t)
	t.Setenv("GRANTOR_PROFILE", "prod")
	runToken(t, "", "issue", "--key-id=").Exits(t, cli.ExitDenied, "invalid_client: ", "hush")
}

func TestPrivateKeyProfileErrors(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"a secret too", "prod: {issuer: https://a.example, client_id: a, client_secret: hush, private_key_file: b}", "profiles.yaml:1: give one of client_secret and private_key_file"},
		{"a kid alone", "prod: {issuer: https://a.example, client_id: a, key_id: b}", "profiles.yaml:1: key_id is for a profile with private_key_file"},
		{"a method", "prod: {issuer: https://a.example, client_id: a, private_key_file: b, client_auth_method: client_secret_post}", "client_auth_method is for a profile with a secret"},
		{"no client", "prod: {issuer: https://a.example, private_key_file: b}", "a profile with a private key needs the client_id of the private key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			profiles(t, c.content)
			run(t, "key", "list", "--profile=prod").Exits(t, cli.ExitUsage, c.want, "hush")
		})
	}
}

// TestPrivateKeyEcho uses an issuer that echoes the assertion. No error quotes it.
func TestPrivateKeyEcho(t *testing.T) {
	var assertion string
	p := newFakeIssuer(t, func(any) (proto.Message, error) { return nil, status.Error(codes.Internal, assertion) })
	p.grant = func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if assertion = r.PostForm.Get("client_assertion"); r.PostForm.Has("client_secret") || r.Header.Get("Authorization") != "" || assertion == "" {
			t.Errorf("got %v and %q, want an assertion alone", r.PostForm, r.Header.Get("Authorization"))
		}
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_request", "error_description": "it has " + assertion})
	}
	t.Setenv("GRANTOR_CLIENT_SECRET", "")
	path := keyFile(t, jwstest.NewSigner("ES256").Private)
	issued := runToken(t, "", "issue", "--private-key-file", path)
	issued.Fails(t, "invalid_request: it has ***", assertion)
	listed := run(t, "client", "list", "--private-key-file", path)
	listed.Fails(t, "invalid_request: ", assertion)
}

// TestDevelopmentKey pastes the example with a key that development mode prints, and expects the key to end with it.
func TestDevelopmentKey(t *testing.T) {
	r := servetest.Dev(t)
	line := regexp.MustCompile(`(?m)^  \S+ (token issue --issuer \S+ --client-id background-service --private-key-file (\S+) .*)$`).FindStringSubmatch(r.Out.String())
	if line == nil {
		t.Fatalf("development mode printed no example with a key:\n%s", r.Out.String())
	}
	clitest.Isolate(t)
	if raw := grantor(t, line[1]); strings.Count(raw, ".") != 2 {
		t.Errorf("got %q, want a token", raw)
	}
	if mode := must.Get(os.Stat(line[2])).Mode(); mode != 0o600 {
		t.Errorf("the key has the mode %v, want 0600", mode)
	}
	r.Stop()
	<-r.Ended
	if _, err := os.Stat(filepath.Dir(line[2])); !os.IsNotExist(err) {
		t.Errorf("after the server has stopped: got %v, want the directory of the key to be gone", err)
	}
	// A file that registers the client without the key makes the example false.
	for name, args := range map[string][]string{
		"a file of the client": {"--apply=" + servetest.WriteFile(t, "clients.yaml", servetest.Manifest)},
		"a Redis that lasts":   {"--redis=" + redistest.New(t).URL()},
	} {
		if out := servetest.Dev(t, args...).Out.String(); strings.Contains(out, "--private-key-file") {
			t.Errorf("%s: got an example that does not work:\n%s", name, out)
		}
	}
}
