package clientassertion_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

// TestMake parses and verifies the assertions of each type of key.
func TestMake(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, algorithm := range []jwks.Algorithm{jwks.ES256, "ES384", jwks.RS256, jwks.EdDSA} {
		signer := jwstest.NewSigner(algorithm)
		for _, id := range []string{"", "mine"} {
			maker := clientassertion.Maker{Issuer: "https://auth.example.com", Client: "a", KeyID: id}
			text := must.Get(maker.Make(signer.Private, now))
			if text == must.Get(maker.Make(signer.Private, now)) {
				t.Errorf("%s: two assertions are equal", algorithm)
			}
			message := must.Get(jws.Parse(text))
			must.Succeed(t, message.Verify(signer.Key()))
			want := jws.Header{Algorithm: string(algorithm), KeyID: signer.Key().ID(), Type: clientassertion.MediaType}
			if id != "" {
				want.KeyID = id
			}
			if got := message.Header; got.Algorithm != want.Algorithm || got.KeyID != want.KeyID || got.Type != want.Type {
				t.Errorf("%s: got the header %+v, want %+v", algorithm, got, want)
			}
			claims := must.Get(jws.ParseClaims(message.Payload))
			for name, want := range map[string]string{"iss": `"a"`, "sub": `"a"`, "aud": `"https://auth.example.com"`, "iat": "1800000000", "exp": "1800000060"} {
				if got := string(claims[name]); got != want {
					t.Errorf("%s: got %s %s, want %s", algorithm, name, got, want)
				}
			}
			if len(must.Get(claims.Text("jti"))) < 22 || len(claims) != 6 {
				t.Errorf("%s: got the claims %s", algorithm, message.Payload)
			}
		}
	}
}

// TestMakeErrors has keys that sign no assertion.
func TestMakeErrors(t *testing.T) {
	short := must.Get(rsa.GenerateKey(rand.Reader, 1024))
	for name, key := range map[string]crypto.Signer{
		"a short RSA key": short, "P-224": must.Get(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)),
	} {
		if text, err := (clientassertion.Maker{}).Make(key, time.Now()); err == nil {
			t.Errorf("%s: got %s", name, text)
		}
		if _, err := clientassertion.Key(key.Public()); err == nil {
			t.Errorf("%s: got a key", name)
		}
	}
}

func TestWriteNewKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	key := must.Get(clientassertion.WriteNewKey(path))
	if mode := must.Get(os.Stat(path)).Mode(); mode != 0o600 {
		t.Errorf("got the mode %v, want 0600", mode)
	}
	read := must.Get(clientassertion.ReadKey(path))
	if got := must.Get(clientassertion.Key(read.Public())); !got.Equal(key) || key.Algorithm() != jwks.ES256 {
		t.Errorf("got the key %s back, want %s for ES256", got.ID(), key.ID())
	}
	before := must.Get(os.ReadFile(path))
	if _, err := clientassertion.WriteNewKey(path); !os.IsExist(err) || string(must.Get(os.ReadFile(path))) != string(before) {
		t.Errorf("a file that exists: got %v, want an error and the file as it was", err)
	}
	if _, err := clientassertion.WriteNewKey(filepath.Join(path, "key.pem")); err == nil {
		t.Error("below a file: got no error")
	}
}

// TestReadKeyErrors has files without a key that can be used. No error quotes them.
func TestReadKeyErrors(t *testing.T) {
	dir := t.TempDir()
	public := must.Get(x509.MarshalPKIXPublicKey(jwstest.NewSigner(jwks.ES256).Private.Public()))
	for name, content := range map[string]string{
		"empty": "", "hush": "hush", "public": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"long": strings.Repeat("hush", 1<<15), "encrypted": "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVzaA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
	} {
		path := filepath.Join(dir, name+".pem")
		must.Succeed(t, os.WriteFile(path, []byte(content), fs.FileMode(0o600)))
		_, err := clientassertion.ReadKey(path)
		if err == nil || !strings.Contains(err.Error(), path) || strings.Count(err.Error(), "hush") != strings.Count(path, "hush") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
