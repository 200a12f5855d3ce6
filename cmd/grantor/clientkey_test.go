package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

// getsToken reports whether a client gets a token with the private key in a file.
func getsToken(t *testing.T, id, path string) bool {
	t.Helper()
	saved := os.Getenv("GRANTOR_CLIENT_SECRET")
	t.Setenv("GRANTOR_CLIENT_SECRET", "")
	got := run(t, "token", "issue", "--client-id="+id, "--private-key-file="+path)
	t.Setenv("GRANTOR_CLIENT_SECRET", saved)
	if got.Err != nil && cli.ExitCode(got.Err) != cli.ExitDenied {
		t.Fatal(got.Err)
	}
	return got.Err == nil
}

// keyIDs returns the ids of a client's keys, as people see them.
func keyIDs(t *testing.T, id string) []string {
	t.Helper()
	for line := range strings.Lines(grantor(t, "client get "+id)) {
		if rest, ok := strings.CutPrefix(line, "jwks "); ok {
			return strings.Fields(rest)
		}
	}
	t.Fatal("no line with the keys")
	return nil
}

// TestGenerateKey registers a client with a new key, adds another one, and removes the first.
func TestGenerateKey(t *testing.T) {
	asAdministrator(t)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.pem"), filepath.Join(dir, "second.pem")
	made := run(t, "client", "create", "keyed", "--scope", "api1", "--generate-key", first)
	if out, want := made.Works(t), "Client keyed is registered. Its private key is in "+first+".\n"; out != "" || made.ErrOut != want {
		t.Errorf("got %q and %q, want nothing and %q", out, made.ErrOut, want)
	}
	if mode := must.Get(os.Stat(first)).Mode(); mode != 0o600 {
		t.Errorf("the file has the mode %v, want 0600", mode)
	}
	if !getsToken(t, "keyed", first) {
		t.Error("no token for the key that was made")
	}
	old := keyIDs(t, "keyed")
	if len(old) != 1 || strings.Contains(grantor(t, "client get keyed"), "SECRET") {
		t.Errorf("got the keys %v, want one and no secret", old)
	}
	run(t, "client", "update", "keyed", "--generate-key", first).Exits(t, cli.ExitUsage, "--generate-key: open "+first+": file exists")
	grantor(t, "client update keyed --generate-key "+second)
	if ids := keyIDs(t, "keyed"); len(ids) != 2 || ids[0] != old[0] || !getsToken(t, "keyed", first) || !getsToken(t, "keyed", second) {
		t.Errorf("got the keys %v, want both in use", ids)
	}
	grantor(t, "client update keyed --remove-key="+old[0])
	if getsToken(t, "keyed", first) || !getsToken(t, "keyed", second) {
		t.Error("want a token for the second key alone")
	}
	run(t, "client", "update", "keyed", "--remove-key="+old[0]).Exits(t, cli.ExitNotFound, "client keyed has no key "+old[0])
	grantor(t, "client update keyed --remove-key="+keyIDs(t, "keyed")[0])
	shows(t, grantor(t, "client get keyed"), `^jwks +none$`)
	if got := fields(t, grantor(t, "client get keyed -o json")); got["jwks"] != nil {
		t.Errorf("got the keys %v, want none", got["jwks"])
	}
	run(t, "client", "update", "keyed").Exits(t, cli.ExitUsage, "nothing to change")
}

// TestGenerateKeyRefused keeps the file only if the issuer may have the public key.
func TestGenerateKeyRefused(t *testing.T) {
	var answer error
	newFakeIssuer(t, func(request any) (proto.Message, error) {
		if _, ok := request.(*grantorv1.GetClientRequest); ok {
			return &grantorv1.GetClientResponse{Client: &grantorv1.Client{ClientId: "a"}}, nil
		}
		return nil, answer
	})
	path := filepath.Join(t.TempDir(), "key.pem")
	for code, kept := range map[codes.Code]bool{codes.AlreadyExists: false, codes.InvalidArgument: false, codes.Unavailable: true, codes.Internal: true} {
		for _, command := range []string{"create", "update"} {
			answer = status.Error(code, "no")
			run(t, "client", command, "a", "--generate-key", path).Fails(t, "no")
			if err := os.Remove(path); (err == nil) != kept {
				t.Errorf("%s, %s: got %v, want the file to be kept: %t", command, code, err, kept)
			}
		}
	}
}

// TestKeyFlags registers keys that were made elsewhere, and clears each field.
func TestKeyFlags(t *testing.T) {
	asAdministrator(t)
	one, two := jwstest.NewSigner("ES256"), jwstest.NewSigner("RS256")
	set := servetest.WriteFile(t, "jwks.json", jwstest.Set(one, two))
	made := run(t, "client", "create", "keyed", "--scope=api1", "--jwks-file="+set, "--untyped-assertions-until=2130-01-31", "--older-audiences-until=2130-01-31T12:00:00+01:00")
	if out := made.Works(t); out != "" {
		t.Errorf("got the secret %q of a client with keys", out)
	}
	for _, signer := range []jwstest.Signer{one, two} {
		if !getsToken(t, "keyed", keyFile(t, signer.Private)) {
			t.Errorf("no token for the key of %s", signer.Algorithm)
		}
	}
	shows(t, grantor(t, "client get keyed"), `^jwks +`+one.Key().ID()+" "+two.Key().ID()+`$`, `^jwks_uri +none$`,
		`^untyped_assertions_until +2130-01-31T00:00:00Z$`, `^older_audiences_until +2130-01-31T11:00:00Z$`)
	var got struct {
		Keys     json.RawMessage `json:"jwks"`
		Untyped  string          `json:"untyped_assertions_until"`
		Audience string          `json:"older_audiences_until"`
	}
	must.Succeed(t, json.Unmarshal([]byte(grantor(t, "client get keyed -o json")), &got))
	if !strings.Contains(string(got.Keys), one.JWK().X) || got.Untyped != "2130-01-31T00:00:00Z" || got.Audience != "2130-01-31T11:00:00Z" {
		t.Errorf("got %+v, want what was set", got)
	}
	run(t, "client", "update", "keyed", "--jwks-uri=https://keyed.example/jwks").Exits(t, cli.ExitInvalid, "jwks_uri: cannot be set beside jwks")
	run(t, "client", "update", "keyed", "--jwks-uri=https://keyed.example/jwks", "--jwks-file=", "--untyped-assertions-until=", "--older-audiences-until=").Works(t)
	shows(t, grantor(t, "client get keyed"), `^jwks +none$`, `^jwks_uri +https://keyed.example/jwks$`, `^untyped_assertions_until +never$`, `^older_audiences_until +never$`)
	run(t, "client", "update", "keyed", "--generate-key="+filepath.Join(t.TempDir(), "k")).Exits(t, cli.ExitInvalid, "jwks_uri: cannot be set beside jwks")
	grantor(t, "client update keyed --jwks-uri=")

	public := must.Get(x509.MarshalPKIXPublicKey(two.Private.Public()))
	path := servetest.WriteFile(t, "public.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	grantor(t, "client update keyed --jwks-file "+path)
	if ids := keyIDs(t, "keyed"); len(ids) != 1 || ids[0] != two.Key().ID() || !getsToken(t, "keyed", keyFile(t, two.Private)) {
		t.Errorf("got the keys %v, want the one of the PEM file, and a token for it", ids)
	}
	both := run(t, "client", "create", "both", "--scope=api1", "--jwks-file="+set, "--secret-file="+servetest.WriteFile(t, "secret", "a-secret-of-both"))
	if both.Works(t); !authenticates(t, "both", "a-secret-of-both") || !getsToken(t, "both", keyFile(t, one.Private)) {
		t.Error("want a client with a secret and keys to have both")
	}
}

// TestKeysOverREST registers a client with keys by the administrative REST API, and has a private key refused there.
func TestKeysOverREST(t *testing.T) {
	r := asAdministrator(t)
	token := strings.TrimSpace(grantor(t, "token issue"))
	post := func(client string) (int, string) {
		request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL("/v1/clients"), strings.NewReader(client)))
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("Content-Type", "application/json")
		answer := must.Get(http.DefaultClient.Do(request))
		return answer.StatusCode, servetest.ReadBody(t, answer)
	}
	signer := jwstest.NewSigner("ES256")
	client := func(id, set string) string {
		return `{"client": {"client_id": "` + id + `", "grant_types": ["client_credentials"], "scopes": ["api1"], "jwks": ` + set + `, "older_audiences_until": "2130-01-31T00:00:00Z"}, "without_secret": true}`
	}
	status, body := post(client("keyed", jwstest.Set(signer)))
	if status != http.StatusOK || !strings.Contains(body, signer.JWK().X) || !getsToken(t, "keyed", keyFile(t, signer.Private)) {
		t.Errorf("got %d %s, want a client that gets tokens", status, body)
	}
	status, body = post(client("private", `{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "eA", "d": "hush-hush"}]}`))
	if status != http.StatusBadRequest || !strings.Contains(body, "jwks") || strings.Contains(body, "hush") {
		t.Errorf("got %d %s, want a refusal that names the field alone", status, body)
	}
}

// TestKeyFlagErrors has files and values that are no keys; no error quotes a private key.
func TestKeyFlagErrors(t *testing.T) {
	signer := jwstest.NewSigner("ES256")
	private := keyFile(t, signer.Private)
	newFakeIssuer(t, func(any) (proto.Message, error) {
		t.Error("the issuer was called")
		return nil, status.Error(codes.Internal, "")
	})
	write := func(content string) string { return servetest.WriteFile(t, "file", content) }
	for _, c := range []struct{ name, args, want string }{
		{"no such file", "--jwks-file=/nonexistent", "--jwks-file: "},
		{"a private key in PEM", "--jwks-file=" + private, "has a PRIVATE KEY; register the PUBLIC KEY alone"},
		{"a private key", "--jwks-file=" + write(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"eA","d":"hush-hush"}]}`), `key 1 has the member "d" of a private key`},
		{"something else", "--jwks-file=" + write("hush-hush"), `is not a JWK Set such as {"keys": [...]}`},
		{"a list", "--jwks-file=" + write(`["hush-hush"]`), "is not a JWK Set"},
		{"no key in PEM", "--jwks-file=" + write("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "has a PUBLIC KEY that cannot be read"},
		{"a time that is none", "--older-audiences-until=soon", `--older-audiences-until: "soon" is not a time such as 2030-01-31`},
		{"a key in two ways", "--jwks-file=" + write(jwstest.Set(signer)) + " --generate-key=x", "--generate-key, --jwks-file: give one of them"},
		{"a key and a place", "--jwks-uri=https://a.example --generate-key=x", "--generate-key, --jwks-uri: give one of them"},
		{"no file for the key", "--generate-key=", "--generate-key: is empty"},
		{"no directory for the key", "--generate-key=/nonexistent/key", "--generate-key: open /nonexistent/key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, append([]string{"client", "create", "a"}, strings.Fields(c.args)...)...).Exits(t, cli.ExitUsage, c.want, "hush")
		})
	}
	run(t, "client", "create", "a", "--generate-key=x", "--secret-file="+write("hush")).Exits(t, cli.ExitUsage, "--generate-key, --secret-file: give one of them")
}
