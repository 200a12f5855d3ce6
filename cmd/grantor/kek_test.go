package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/kms"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/redistest"
)

func encode(key []byte) string { return base64.StdEncoding.EncodeToString(key) }

// localURL returns the URL of a key that stands in for one in a KMS.
func localURL() string { return "base64key://" + base64.URLEncoding.EncodeToString(keys.NewKEK()) }

// keyWrap runs grantor key wrap.
func keyWrap(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{"key", "wrap"}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func wrapped(t *testing.T, args ...string) string {
	t.Helper()
	out, err := keyWrap(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestKEKErrors expects each error about the keys to be one line that names the setting, and to quote no key.
func TestKEKErrors(t *testing.T) {
	url, plain := localURL(), encode(keys.NewKEK())
	good := strings.TrimSpace(wrapped(t, "--key-encryption-key-url="+url))
	short, err := kms.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	tooShort, err := short.Wrap(t.Context(), []byte("sixteen bytes !!"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"previous alone", []string{"--previous-key-encryption-key=" + plain}, "previous-key-encryption-key: needs key-encryption-key"},
		{"previous file alone", []string{"--previous-key-encryption-key-file=" + servetest.KEKFile(t)}, "previous-key-encryption-key-file: needs key-encryption-key"},
		{"two previous", []string{"--key-encryption-key=" + plain, "--previous-key-encryption-key=x", "--previous-key-encryption-key-file=x"}, "previous-key-encryption-key, previous-key-encryption-key-file: give one"},
		{"short previous", []string{"--key-encryption-key=" + plain, "--previous-key-encryption-key=" + plain[1:]}, "previous-key-encryption-key: a key-encryption key is 32"},
		{"no previous file", []string{"--key-encryption-key=" + plain, "--previous-key-encryption-key-file=/nonexistent"}, "previous-key-encryption-key-file: "},
		{"empty file", []string{"--key-encryption-key-file=" + servetest.WriteFile(t, "kek", "\n")}, "key-encryption-key-file: the file is empty"},
		{"URL alone", []string{"--key-encryption-key-url=" + url}, "key-encryption-key-url: needs key-encryption-key"},
		{"wrapped without a URL", []string{"--key-encryption-key=" + good}, "key-encryption-key: a key-encryption key is 32"},
		{"plain with a URL", []string{"--key-encryption-key-url=" + url, "--key-encryption-key=" + plain}, "key-encryption-key: is a plain key"},
		{"plain previous with a URL", []string{"--key-encryption-key-url=" + url, "--key-encryption-key=" + good, "--previous-key-encryption-key=" + plain}, "previous-key-encryption-key: is a plain key"},
		{"no base64 with a URL", []string{"--key-encryption-key-url=" + url, "--key-encryption-key=!" + good}, "key-encryption-key: is not base64"},
		{"wrapped by another", []string{"--key-encryption-key-url=" + localURL(), "--key-encryption-key=" + good}, "key-encryption-key: key-encryption-key-url does not unwrap it"},
		{"16 bytes wrapped", []string{"--key-encryption-key-url=" + url, "--key-encryption-key=" + tooShort}, "key-encryption-key: the wrapped key has 16 bytes"},
		{"no key in the URL", []string{"--key-encryption-key-url=base64key://", "--key-encryption-key=" + good}, "key-encryption-key-url: the URL has no key"},
		{"unknown scheme", []string{"--key-encryption-key-url=nokms://" + plain, "--key-encryption-key=" + good}, "key-encryption-key-url: "},
		{"malformed key in the URL", []string{"--key-encryption-key-url=" + url[:30], "--key-encryption-key=" + good}, "key-encryption-key-url: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := servetest.Try(t, append([]string{"--dev"}, c.args...)...)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want one line with %q", err, c.want)
			}
			for _, secret := range []string{plain[2:20], good[2:20], url[15:30]} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error quotes a key: %v", err)
				}
			}
		})
	}
}

// TestKeyWrapErrors expects the same of grantor key wrap.
func TestKeyWrapErrors(t *testing.T) {
	for want, args := range map[string][]string{
		"key-encryption-key-url: is required":  {},
		"key-encryption-key-url: open secrets": {"--key-encryption-key-url=nokms://x"},
		"plain-key-file: open":                 {"--key-encryption-key-url=" + localURL(), "--plain-key-file=/nonexistent"},
		"plain-key-file: a key-encryption":     {"--key-encryption-key-url=" + localURL(), "--plain-key-file=" + servetest.WriteFile(t, "kek", "x")},
		`key: there is no command "warp"`:      nil,
	} {
		if args == nil {
			cmd := newCommand()
			cmd.SetArgs([]string{"key", "warp"})
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			continue
		}
		if out, err := keyWrap(t, args...); err == nil || out != "" || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %q, %v, want %q", out, err, want)
		}
	}
}

// issuing starts a replica with the arguments, checks that it publishes the keys and issues tokens, and stops it.
func issuing(t *testing.T, args []string, keySet string) string {
	t.Helper()
	r, err := servetest.Try(t, append(args, "--issuer=http://localhost:1")...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		r.Stop()
		<-r.Ended
	}()
	r.Token(t)
	_, got := servetest.Get(t, r.URL("/.well-known/jwks.json"))
	if keySet != "" && got != keySet {
		t.Errorf("the keys are\n%s, want\n%s", got, keySet)
	}
	return got
}

// TestKEKSteps changes the key-encryption key by the settings, and from a plain key to a wrapped one.
func TestKEKSteps(t *testing.T) {
	redis := redistest.New(t)
	manifest := "--apply=" + servetest.WriteFile(t, "clients.yaml", servetest.Manifest)
	first, second, url := servetest.KEKFile(t), servetest.KEKFile(t), localURL()
	with := func(args ...string) []string { return append([]string{"--redis=" + redis.URL(), manifest}, args...) }
	keySet := issuing(t, with("--key-encryption-key-file="+first), "")
	for _, args := range [][]string{
		{"--key-encryption-key-file=" + first, "--previous-key-encryption-key-file=" + second},
		{"--key-encryption-key-file=" + second, "--previous-key-encryption-key-file=" + first},
		{"--key-encryption-key-file=" + second},
	} {
		issuing(t, with(args...), keySet)
	}
	if _, err := servetest.Try(t, with("--issuer=http://localhost:1", "--key-encryption-key-file="+first)...); err == nil ||
		!strings.Contains(err.Error(), keys.ErrSealed.Error()) {
		t.Errorf("the old key alone: got %v, want %v", err, keys.ErrSealed)
	}
	// The same key, wrapped: nothing needs to be sealed again.
	kms := "--key-encryption-key-url=" + url
	third := servetest.WriteFile(t, "wrapped", wrapped(t, kms, "--plain-key-file="+second))
	issuing(t, with(kms, "--key-encryption-key-file="+third), keySet)
	issuing(t, with("--key-encryption-key-file="+second), keySet)
	// Then to a key that was never in plaintext.
	fourth := servetest.WriteFile(t, "wrapped", wrapped(t, kms))
	issuing(t, with(kms, "--key-encryption-key-file="+fourth, "--previous-key-encryption-key-file="+third), keySet)
	issuing(t, with(kms, "--key-encryption-key-file="+fourth), keySet)
	// grantor apply has the same settings.
	cmd := newCommand()
	cmd.SetOut(&bytes.Buffer{})
	cmd.SetArgs([]string{"apply", "--redis=" + redis.URL(), kms, "--key-encryption-key-file=" + fourth, "-f", servetest.WriteFile(t, "clients.yaml", servetest.Manifest)})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestApplyFirst applies a manifest before any replica ran: the first replica adds its keys to the ring that apply
// created, and the secret is valid. A dry run creates nothing.
func TestApplyFirst(t *testing.T) {
	redis := redistest.New(t)
	kek := servetest.KEKFile(t)
	manifest := strings.Replace(servetest.Manifest, "service-secret-here", clientsecret.New(), 1)
	secret := strings.Fields(manifest[strings.Index(manifest, clientsecret.Prefix):])[0]
	path := servetest.WriteFile(t, "clients.yaml", manifest)
	if out, err := applyTo(t, redis, kek, "-f", path, "--dry-run"); err != nil || !strings.Contains(out, "created   client background-service") {
		t.Errorf("dry run: got %q, %v", out, err)
	}
	if n := redis.Client().DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("a dry run made %d keys", n)
	}
	if out, err := applyTo(t, redis, kek, "-f", path); err != nil || !strings.Contains(out, "created   client background-service") {
		t.Fatalf("got %q, %v", out, err)
	}
	r, err := servetest.Try(t, "--redis="+redis.URL(), "--key-encryption-key-file="+kek, "--issuer=http://localhost:1")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(r.URL("/connect/token"), "application/x-www-form-urlencoded",
		strings.NewReader("grant_type=client_credentials&client_id=background-service&client_secret="+secret))
	if err != nil {
		t.Fatal(err)
	}
	if body := servetest.ReadBody(t, answer); answer.StatusCode != http.StatusOK {
		t.Errorf("got %d %s, want a token", answer.StatusCode, body)
	}
	if out, err := applyTo(t, redis, kek, "-f", path); err != nil || strings.Contains(out, "created") || strings.Contains(out, "changed   ") {
		t.Errorf("again: got %q, %v, want it left", out, err)
	}
}

// vault stands in for Vault's transit engine, for the key named grantor and clients with the token.
func vault(t *testing.T, token string) *httptest.Server {
	block, err := aes.NewCipher(keys.NewKEK())
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked, data map[string]string
		_ = json.NewDecoder(r.Body).Decode(&asked)
		code := http.StatusOK
		switch {
		case r.Header.Get("X-Vault-Token") != token:
			code = http.StatusForbidden
		case r.URL.Path == "/v1/transit/encrypt/grantor":
			plain, _ := base64.StdEncoding.DecodeString(asked["plaintext"])
			data = map[string]string{"ciphertext": "vault:v1:" + encode(aead.Seal(nil, nil, plain, nil))}
		case r.URL.Path == "/v1/transit/decrypt/grantor":
			sealed, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(asked["ciphertext"], "vault:v1:"))
			plain, err := aead.Open(nil, nil, sealed, nil)
			if data = map[string]string{"plaintext": encode(plain)}; err != nil {
				code = http.StatusBadRequest
			}
		default:
			code = http.StatusNotFound
		}
		w.WriteHeader(code)
		if code != http.StatusOK {
			fmt.Fprintf(w, `{"errors":["refused with %d"]}`, code)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
	}))
	t.Cleanup(server.Close)
	return server
}

// TestVault wraps and unwraps the key-encryption key over Vault's HTTP API. The library creates its client once per
// process, so this is one test.
func TestVault(t *testing.T) {
	server := vault(t, "s.token")
	t.Setenv("VAULT_SERVER_URL", server.URL)
	t.Setenv("VAULT_SERVER_TOKEN", "s.token")
	url := "--key-encryption-key-url=hashivault://grantor"
	kek := servetest.WriteFile(t, "wrapped", wrapped(t, url))
	redis := redistest.New(t)
	args := []string{"--redis=" + redis.URL(), "--apply=" + servetest.WriteFile(t, "clients.yaml", servetest.Manifest), url, "--key-encryption-key-file=" + kek}
	keySet := issuing(t, args, "")
	issuing(t, args, keySet)
	_, err := servetest.Try(t, append(args, "--issuer=http://localhost:1", "--key-encryption-key-url=hashivault://other")...)
	if err == nil || !strings.Contains(err.Error(), "does not unwrap it") || strings.Contains(err.Error(), "s.token") || strings.Contains(err.Error(), "\n") {
		t.Errorf("another key: got %v, want one line that says so", err)
	}
}
