package main

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
)

// TestKeyExport verifies a token with each exported form, by other means than Grantor's.
func TestKeyExport(t *testing.T) {
	r := asDevClient(t)
	raw := r.Token(t)
	parts := strings.Split(raw, ".")
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature := must.Get(base64.RawURLEncoding.DecodeString(parts[2]))

	set := must.Get(jwks.Parse([]byte(run(t, "key", "export").Works(t))))
	if _, published := servetest.Get(t, r.URL("/.well-known/jwks.json")); len(set.Keys()) != len(must.Get(jwks.Parse([]byte(published))).Keys()) {
		t.Errorf("got %d keys, want those of %s", len(set.Keys()), published)
	}
	verified := 0
	for _, key := range set.Keys() {
		text := run(t, "key", "export", "--format=pem", "--", key.ID()).Works(t)
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 || !strings.HasPrefix(text, "# "+key.ID()+" "+string(key.Algorithm())+"\n") {
			t.Fatalf("got %q, want one public key and its id", text)
		}
		switch public := must.Get(x509.ParsePKIXPublicKey(block.Bytes)).(type) {
		case *ecdsa.PublicKey:
			if ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
				verified++
			}
		case *rsa.PublicKey:
		default:
			t.Errorf("got a %T", public)
		}
	}
	if verified != 1 {
		t.Errorf("%d keys verify the token, want 1", verified)
	}
	all := run(t, "key", "export", "--format", "pem").Works(t)
	if got := strings.Count(all, "BEGIN PUBLIC KEY"); got != len(set.Keys()) || strings.Contains(all, "PRIVATE") {
		t.Errorf("got %d keys, want %d public ones:\n%s", got, len(set.Keys()), all)
	}
	if got := run(t, "key", "export", "--alg=RS256").Works(t); strings.Count(got, `"kid"`) != 1 || !strings.Contains(got, `"RS256"`) || strings.Contains(got, `"d"`) {
		t.Errorf("got %s, want the public key of RS256", got)
	}
	run(t, "key", "export", "nothing").Exits(t, cli.ExitNotFound, "has no such key")
	run(t, "key", "export", "--alg=HS256").Exits(t, cli.ExitNotFound, "has no such key")
	run(t, "key", "export", "--format=der").Exits(t, cli.ExitUsage, `format: "der" is neither pem nor jwks`)
}

// TestKeyExportHAProxy runs the configuration of HAProxy in docs/administration.md: it lets a token pass until its
// signature is changed, and none of another algorithm.
func TestKeyExportHAProxy(t *testing.T) {
	r := servetest.Dev(t, "--access-token-lifetime=2s")
	issuer := must.Get(r.Issuer())
	t.Setenv("GRANTOR_ISSUER", issuer.String())
	dir := t.TempDir()
	kid := strings.Fields(run(t, "key", "export", "--format=pem", "--alg=ES256").Works(t))[1]
	must.Succeed(t, os.WriteFile(dir+"/current.pem", []byte(run(t, "key", "export", "--format=pem", "--", kid).Works(t)), 0o600))
	address := freeport.Address(t)
	_, example, _ := strings.Cut(page(t, "docs/administration.md"), "```haproxy\n")
	example, _, found := strings.Cut(example, "```")
	if !found {
		t.Fatal("docs/administration.md has no configuration of HAProxy")
	}
	runHAProxy(t, "global\n    maxconn 100\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"+
		strings.NewReplacer(":8443", address, "/etc/haproxy/keys", dir, "https://auth.example.com", issuer.String()).Replace(example)+
		"    http-request return status 200\n")
	status := func(authorization string) int {
		request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil))
		request.Header.Set("Authorization", authorization)
		request.Close = true
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0
		}
		servetest.ReadBody(t, answer)
		return answer.StatusCode
	}
	must.Eventually(t, "haproxy serves", func() bool { return status("") != 0 })
	token := r.Token(t)
	parts := strings.Split(token, ".")
	for _, c := range []struct {
		name, token string
		want        int
	}{
		{"a token", token, http.StatusOK},
		{"another payload", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+issuer.String()+`","aud":"https://orders.internal","exp":9999999999}`)) + "." + parts[2], http.StatusUnauthorized},
		{"no signature", parts[0] + "." + parts[1] + ".", http.StatusUnauthorized},
		{"another algorithm", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + ".", http.StatusUnauthorized},
		{"no token", "", http.StatusUnauthorized},
	} {
		if got := status("Bearer " + c.token); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	must.Eventually(t, "the token has expired", func() bool { return status("Bearer "+token) == http.StatusUnauthorized })
}
