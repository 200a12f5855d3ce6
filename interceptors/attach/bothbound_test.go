package attach_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// bothBound is a token endpoint whose tokens are bound to the certificate of the request and to a key of DPoP proofs, and
// servers that verify both.
type bothBound struct {
	*provenServer

	certified *certifiedIssuer
	source    *attach.Source
	own       *rotating
	url       string
	target    string
	tokens    shortLived
	// lifetime is that of the tokens for a certificate; the zero value is six to seven seconds.
	lifetime func(*x509.Certificate) time.Duration
}

func newBothBound(t *testing.T, lifetime func(*x509.Certificate) time.Duration, options ...verify.Option) *bothBound {
	t.Helper()
	b := &bothBound{provenServer: newProvenServer(t, tokentest.New(t), options...), certified: newCertifiedIssuer(t), own: newRotating(), lifetime: lifetime}
	b.tokens = shortLived{t: t, issuer: b.issuer, scopes: []string{"orders.read"}}
	key := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	thumbprint := must.Get(jwks.NewKey(jwks.ES256, key.Public())).Thumbprint()
	endpoint := b.certified.serve(t, func(w http.ResponseWriter, r *http.Request) {
		hash := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		claims := map[string]any{"cnf": map[string]string{"jkt": thumbprint, "x5t#S256": base64.RawURLEncoding.EncodeToString(hash[:])}}
		lifetime := b.lifetime(r.TLS.PeerCertificates[0])
		if lifetime != 0 {
			claims["exp"] = time.Now().Add(lifetime).Unix()
		}
		b.tokens.mu.Lock()
		defer b.tokens.mu.Unlock()
		raw, expires := b.tokens.issue(claims)
		if lifetime != 0 {
			expires = lifetime
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": raw, "token_type": "DPoP", "expires_in": expires.Seconds()})
	})
	b.source = attach.ClientCredentials("", "billing", "", attach.CertificateFunc(b.own.get), attach.DPoPKey(key),
		attach.TokenURL(endpoint.URL), attach.HTTPClient(b.certified.client))
	b.want = verify.ProofCertificate
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	b.serve(t, listener, grpc.Creds(credentials.NewTLS(b.certified.config())))
	b.target = listener.Addr().String()
	guarded := verify.HTTP(b.verifier, verify.Scopes("orders.read"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := b.check(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
		}
		_, _ = io.Copy(w, r.Body)
	}))
	b.url = b.certified.serve(t, guarded.ServeHTTP).URL
	return b
}

func anHour(*x509.Certificate) time.Duration { return time.Hour }

func (b *bothBound) dial(t *testing.T) testgrpc.TestServiceClient {
	t.Helper()
	return b.certified.dial(t, b.target, b.source)
}

// call makes a call of each kind.
func (b *bothBound) call(t *testing.T, client testgrpc.TestServiceClient) error {
	t.Helper()
	if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{Payload: hello}); err != nil {
		return fmt.Errorf("unary: %w", err)
	}
	stream, err := client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("server-streaming: %w", err)
	}
	web := &http.Client{Transport: b.source.Transport(b.certified.client.Transport)}
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/orders?page=1", strings.NewReader("body")))
	answer, err := web.Do(request)
	if err != nil {
		return fmt.Errorf("HTTP: %w", err)
	}
	body := must.Get(io.ReadAll(answer.Body))
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK || string(body) != "body" {
		return fmt.Errorf("HTTP: %s: %s", answer.Status, body)
	}
	return nil
}

// TestBoundToBoth checks that a source with a certificate and DPoP proves both on all wires, also while the certificate changes and
// with a server that demands nonces.
func TestBoundToBoth(t *testing.T) {
	for name, options := range map[string][]verify.Option{"no nonce": nil, "nonces": {verify.RequireDPoPNonce(nil)}} {
		t.Run(name, func(t *testing.T) {
			b := newBothBound(t, anHour, options...)
			old := b.dial(t)
			must.Succeed(t, b.call(t, old))
			first := accessToken(t, b.source)
			b.own.rotate()
			must.Eventually(t, "a token for the new certificate", func() bool { must.Succeed(t, b.call(t, old)); return accessToken(t, b.source) != first })
			renewed := b.dial(t)
			for range 5 {
				must.Succeed(t, b.call(t, old))
				must.Succeed(t, b.call(t, renewed))
			}
			for reason := range b.take() {
				if reason != "use_dpop_nonce" {
					t.Errorf("the server refused a call: %s", reason)
				}
			}
		})
	}
}

// TestNonceOfConcurrentCalls checks that each of many calls at once, all without a nonce, is repeated with the one that the server
// provides.
func TestNonceOfConcurrentCalls(t *testing.T) {
	b := newBothBound(t, anHour, verify.RequireDPoPNonce(nil))
	client := b.dial(t)
	must.Get(b.source.Token())
	var calls sync.WaitGroup
	for range 30 {
		calls.Go(func() {
			if err := b.call(t, client); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
}
