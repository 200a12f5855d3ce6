package attach_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// newKeyedIssuer starts an issuer with the client orders, which has the keys of the signers and no secret.
func newKeyedIssuer(t *testing.T, signers ...jwstest.Signer) *tokentest.Issuer {
	t.Helper()
	scopes := must.Get(oauth.ParseScopes("orders.read"))
	issuer := tokentest.New(t)
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{ID: must.Get(oauth.ParseResource("https://orders.internal")), Scopes: scopes}},
		Clients: []registry.ClientSpec{{Client: registry.Client{
			ID: must.Get(oauth.ParseClientID("orders")), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: scopes,
			Keys: must.Get(jwks.ParseDocument(jwstest.Set(signers...))),
		}}},
	})
	return issuer
}

// bothWires calls test with the options for each wire.
func bothWires(t *testing.T, issuer *tokentest.Issuer, test func(t *testing.T, option attach.Option)) {
	t.Helper()
	conn := must.Get(grpc.NewClient(issuer.GRPCTarget, grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() { _ = conn.Close() })
	t.Run("HTTP", func(t *testing.T) { test(t, nil) })
	t.Run("gRPC", func(t *testing.T) { test(t, attach.OverGRPC(conn)) })
}

// writeKey writes a private key to a file in one of the forms of PEM.
func writeKey(t *testing.T, path string, private crypto.Signer) {
	t.Helper()
	der := must.Get(x509.MarshalPKCS8PrivateKey(private))
	must.Succeed(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

func TestPrivateKey(t *testing.T) {
	signers := []jwstest.Signer{jwstest.NewSigner(jwks.ES256), jwstest.NewSigner("ES384"), jwstest.NewSigner(jwks.RS256), jwstest.NewSigner(jwks.EdDSA)}
	issuer := newKeyedIssuer(t, signers...)
	for _, s := range signers {
		t.Run(string(s.Algorithm), func(t *testing.T) {
			bothWires(t, issuer, func(t *testing.T, wire attach.Option) {
				source := attach.ClientCredentials(issuer.URL, "orders", "", attach.PrivateKey(s.Private), wire)
				first := must.Get(source.Token()).AccessToken
				source.Drop(first) // the next request needs another assertion
				if second := must.Get(source.Token()).AccessToken; second == first {
					t.Error("got the same token after it was dropped")
				}
			})
		})
	}
}

// A key in a file is read for each request, in whatever form it is.
func TestPrivateKeyFile(t *testing.T) {
	ec, rsaKey := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.RS256)
	issuer := newKeyedIssuer(t, ec, rsaKey)
	path := filepath.Join(t.TempDir(), "key.pem")
	private, ok := ec.Private.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatal("not an EC key")
	}
	sec1 := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must.Get(x509.MarshalECPrivateKey(private))})
	bothWires(t, issuer, func(t *testing.T, wire attach.Option) {
		source := attach.ClientCredentials(issuer.URL, "orders", "", attach.PrivateKeyFile(path), wire)
		_ = os.Remove(path)
		if _, err := source.Token(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("without the file: got %v", err)
		}
		for name, write := range map[string]func(){
			"PKCS #8": func() { writeKey(t, path, rsaKey.Private) },
			"SEC 1": func() {
				must.Succeed(t, os.WriteFile(path, append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), sec1...), 0o600))
			},
		} {
			write()
			if _, err := attach.Issue(t.Context(), source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		must.Succeed(t, os.WriteFile(path, []byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0IGJ5dGVz\n-----END PRIVATE KEY-----\n"), 0o600))
		_, err := attach.Issue(t.Context(), source)
		wantNoSecret(t, "c2VjcmV0IGJ5dGVz", err)
		must.Succeed(t, os.WriteFile(path, make([]byte, 100_000), 0o600))
		if _, err := attach.Issue(t.Context(), source); err == nil {
			t.Error("a large file: got no error")
		}
	})
}

// failing is a key whose signer fails.
type failing struct {
	crypto.Signer

	fail func() error
}

func (f failing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return []byte("x"), f.fail()
}

type odd struct{ crypto.Signer }

func (odd) Public() crypto.PublicKey { return nil }

func TestPrivateKeyMistakes(t *testing.T) {
	own, foreign := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.ES256)
	issuer := newKeyedIssuer(t, own)
	good := attach.PrivateKey(own.Private)
	p224 := must.Get(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for name, test := range map[string]struct {
		secret  string
		options []attach.Option
		want    string
	}{
		"nil":           {"", []attach.Option{attach.PrivateKey(nil)}, "nil"},
		"nil of a type": {"", []attach.Option{attach.PrivateKey((*ecdsa.PrivateKey)(nil))}, "panicked"},
		"and a secret":  {"s", []attach.Option{good}, "set one"},
		"twice":         {"", []attach.Option{good, good}, "set one"},
		"with a method": {"", []attach.Option{good, attach.AuthMethod(attach.ClientSecretBasic)}, "AuthMethod"},
		"signer fails":  {"", []attach.Option{attach.PrivateKey(failing{own.Private, func() error { return errors.New("no slot") }})}, "no slot"},
		"signer panics": {"", []attach.Option{attach.PrivateKey(failing{own.Private, func() error { panic("hidden") }})}, "panicked"},
		"signer lies":   {"", []attach.Option{attach.PrivateKey(failing{own.Private, func() error { return nil }})}, "curve"},
		"no public key": {"", []attach.Option{attach.PrivateKey(odd{own.Private})}, "signs no assertion"},
		"P-224":         {"", []attach.Option{attach.PrivateKey(p224)}, "signs no assertion"},
		"foreign key":   {"", []attach.Option{attach.PrivateKey(foreign.Private)}, "invalid_client"},
		"unknown kid":   {"", []attach.Option{good, attach.KeyID("other")}, "invalid_client"},
		"no file":       {"", []attach.Option{attach.PrivateKeyFile("/nonexistent/key.pem")}, "/nonexistent/key.pem"},
	} {
		bothWires(t, issuer, func(t *testing.T, wire attach.Option) {
			source := attach.ClientCredentials(issuer.URL, "orders", test.secret, append(test.options, wire)...)
			if _, err := source.Token(); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("%s: got %v, want %q in it", name, err, test.want)
			}
		})
	}
	source := attach.ClientCredentials("", "orders", "", good, attach.TokenURL(issuer.URL+"/connect/token"))
	if _, err := source.Token(); err == nil || !strings.Contains(err.Error(), "audience") {
		t.Errorf("without an issuer: got %v", err)
	}
}

// A request that is repeated has another assertion, since the first one may have been used.
func TestFreshAssertion(t *testing.T) {
	s := jwstest.NewSigner(jwks.ES256)
	var sent []string
	var failed atomic.Bool
	server := newTokenServer(t, func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.PostForm.Get("client_assertion"))
		if r.PostForm.Has("client_secret") || r.Header.Get("Authorization") != "" {
			t.Errorf("got %v, want an assertion alone", r.PostForm)
		}
		if !failed.Swap(true) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		must.Succeed(t, json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "expires_in": 60}))
	})
	source := attach.ClientCredentials(server.URL, "orders", "", attach.PrivateKey(s.Private), attach.KeyID("k1"))
	must.Get(source.Token())
	if len(sent) != 2 || sent[0] == sent[1] || sent[0] == "" {
		t.Errorf("got the assertions %q, want two that differ", sent)
	}
	wantNoSecret(t, sent[1], fmt.Sprintf("%+v", source), source)
}
