package attach_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestDPoP calls a server in every way with tokens that are requested on both wires, with and without nonces.
func TestDPoP(t *testing.T) {
	for _, nonces := range []bool{false, true} {
		t.Run(fmt.Sprintf("nonces %t", nonces), func(t *testing.T) {
			var ofIssuer []tokentest.Option
			var ofServer []verify.Option
			if nonces {
				ofIssuer, ofServer = append(ofIssuer, tokentest.DPoPNonces()), append(ofServer, verify.RequireDPoPNonce(nil))
			}
			s := newProvenServer(t, tokentest.New(t, ofIssuer...), ofServer...)
			target := s.listen(t)
			for name, conn := range map[string]*grpc.ClientConn{"HTTP": nil, "gRPC": s.issuer.Conn(t)} {
				source := s.source(conn)
				client := testgrpc.NewTestServiceClient(dial(t, target, attach.DialOptions(source, plaintext)...))
				for range 2 {
					if err := call(t, s, source, client); err != nil {
						t.Errorf("token over %s: %v", name, err)
					}
				}
				if got := must.Get(source.Token()); got.TokenType != "DPoP" {
					t.Errorf("got a token of the type %s", got.TokenType)
				}
				// Each of the two origins demands its nonce once.
				want := "map[]"
				if nonces {
					want = "map[use_dpop_nonce:2]"
				}
				if got := fmt.Sprint(s.take()); got != want {
					t.Errorf("token over %s: got the refusals %s, want %s", name, got, want)
				}
			}
		})
	}
}

// TestNonceOfStreams checks that the first call, whichever kind it is, is answered with a nonce.
func TestNonceOfStreams(t *testing.T) {
	s := newProvenServer(t, tokentest.New(t), verify.RequireDPoPNonce(nil))
	target := s.listen(t)
	client := func() testgrpc.TestServiceClient {
		return testgrpc.NewTestServiceClient(dial(t, target, attach.DialOptions(s.source(nil), plaintext)...))
	}
	for name, receive := range map[string]func(testgrpc.TestService_StreamingOutputCallClient) error{
		"Recv": func(stream testgrpc.TestService_StreamingOutputCallClient) error { _, err := stream.Recv(); return err },
		"Header": func(stream testgrpc.TestService_StreamingOutputCallClient) error {
			header, err := stream.Header()
			if err == nil && len(header) == 0 {
				err = errors.New("no header")
			}
			_, failure := stream.Recv()
			return errors.Join(err, failure)
		},
	} {
		stream, err := client().StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
		must.Succeed(t, err)
		if err := receive(stream); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := s.take(); got["use_dpop_nonce"] != 1 || len(got) != 1 {
			t.Errorf("%s: got the refusals %v", name, got)
		}
	}
	// The messages of a bidirectional stream are gone, but the next stream has the nonce.
	both := client()
	if _, err := exchange(t, both, 0); err != nil {
		t.Fatal(err)
	}
	failed := must.Get(both.FullDuplexCall(t.Context()))
	_ = failed.Send(&testgrpc.StreamingOutputCallRequest{})
	if _, err := failed.Recv(); err == nil {
		t.Error("got a stream without a nonce")
	}
	if _, err := exchange(t, both, 200*time.Millisecond); err != nil {
		t.Errorf("the second stream: %v", err)
	}
}

// TestDPoPTargets checks that the URL in a proof is the one that the server knows, whatever the target of a connection is.
func TestDPoPTargets(t *testing.T) {
	borrowed := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1 and example.com
	t.Cleanup(borrowed.Close)
	roots := x509.NewCertPool()
	roots.AddCert(borrowed.Certificate())
	s := newProvenServer(t, tokentest.New(t))
	source := s.source(nil)
	tcp := s.listen(t)
	_, port, _ := net.SplitHostPort(tcp)
	socket := filepath.Join(t.TempDir(), "s")
	s.serve(t, must.Get(net.Listen("unix", socket)))
	secure := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	s.serve(t, secure, grpc.Creds(credentials.NewServerTLSFromCert(&borrowed.TLS.Certificates[0])))
	dialTCP := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", tcp)
	})
	overTLS := grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, ""))
	for name, test := range map[string]struct {
		target  string
		options []grpc.DialOption
	}{
		"address":          {tcp, nil},
		"dns":              {"dns:///localhost:" + port, nil},
		"passthrough":      {"passthrough:///" + tcp, nil},
		"passthrough name": {"passthrough:///bufnet", []grpc.DialOption{dialTCP, grpc.WithDisableServiceConfig()}},
		"unix":             {"unix:" + socket, nil},
		"authority":        {tcp, []grpc.DialOption{grpc.WithAuthority("orders.example.com")}},
		"authority, port":  {tcp, []grpc.DialOption{grpc.WithAuthority("orders.example.com:443")}},
		"TLS":              {secure.Addr().String(), []grpc.DialOption{overTLS}},
		"TLS, authority":   {secure.Addr().String(), []grpc.DialOption{overTLS, grpc.WithAuthority("example.com")}},
	} {
		options := append([]grpc.DialOption{plaintext}, test.options...)
		if name == "passthrough name" {
			// Not a loopback target.
			source := s.source(nil, attach.AllowInsecurePlaintextToRemoteHosts())
			options = attach.DialOptions(source, options...)
		} else {
			options = attach.DialOptions(source, options...)
		}
		client := testgrpc.NewTestServiceClient(dial(t, test.target, options...))
		if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without the interceptors, and per call.
	conn := dial(t, secure.Addr().String(), overTLS, grpc.WithPerRPCCredentials(source.PerRPCCredentials()))
	for range 2 {
		if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
			t.Errorf("PerRPCCredentials: %v", err)
		}
	}
	if _, err := source.PerRPCCredentials().GetRequestMetadata(t.Context(), "https://orders.example.com/a"); err == nil {
		t.Error("got metadata for a call that gRPC does not name")
	}
}

// TestBoundStreamOutlivesItsTokens checks that the renewals of a stream have proofs.
func TestBoundStreamOutlivesItsTokens(t *testing.T) {
	s := newProvenServer(t, tokentest.New(t), verify.RequireDPoPNonce(nil))
	key := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	thumbprint := must.Get(jwks.NewKey(jwks.ES256, key.Public())).Thumbprint()
	tokens := &boundTokens{shortLived: shortLived{t: t, issuer: s.issuer, scopes: []string{"orders.read"}}, thumbprint: thumbprint}
	server := httptest.NewServer(tokens)
	t.Cleanup(server.Close)
	source := attach.ClientCredentials("", "billing", "secret", attach.TokenURL(server.URL), attach.DPoPKey(key))
	attach.RenewEarly(source)
	client := testgrpc.NewTestServiceClient(dial(t, s.listen(t), attach.DialOptions(source, plaintext)...))
	_, _ = client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}) // learns the nonce
	if _, err := exchange(t, client, 9*time.Second); err != nil {
		t.Errorf("got %v, want a stream of 9 s with tokens of 7 s", err)
	}
	if _, issued := tokens.last(); issued < 3 {
		t.Errorf("got %d tokens, want at least 3", issued)
	}
}

// boundTokens is a token endpoint that issues short-lived tokens that are bound to a key.
type boundTokens struct {
	shortLived

	thumbprint string
}

func (b *boundTokens) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	raw, lifetime := b.issue(map[string]any{"cnf": map[string]string{"jkt": b.thumbprint}})
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": raw, "token_type": "DPoP", "expires_in": lifetime.Seconds()})
}

// TestBoundCallAfterRevocation checks that a call which is repeated with another token has another proof.
func TestBoundCallAfterRevocation(t *testing.T) {
	s := newProvenServer(t, tokentest.New(t))
	target := s.listen(t)
	g := &guardedServer{issuer: s.issuer, verifier: s.verifier}
	var source *attach.Source
	var client testgrpc.TestServiceClient
	for _, again := range []func() error{
		func() error { _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); return err },
		func() error {
			stream := must.Get(client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{}))
			_, err := stream.Recv()
			return err
		},
		func() error {
			answer, err := (&http.Client{Transport: source}).Get(s.url)
			if err == nil {
				_ = answer.Body.Close()
				if answer.StatusCode != http.StatusOK {
					err = errors.New(answer.Status)
				}
			}
			return err
		},
	} {
		source = s.source(nil) // one that has dropped a token waits before it drops the next
		client = testgrpc.NewTestServiceClient(dial(t, target, attach.DialOptions(source, plaintext)...))
		if err := call(t, s, source, client); err != nil {
			t.Fatal(err)
		}
		raw := accessToken(t, source)
		g.revoke(t, raw)
		if err := again(); err != nil {
			t.Error(err)
		}
		if accessToken(t, source) == raw {
			t.Error("the revoked token is still there")
		}
		if got := s.take(); got["revoked"] != 1 || len(got) != 1 {
			t.Errorf("got the refusals %v, want one of a revoked token", got)
		}
	}
}

// TestStolenToken checks that a bound token is of no use without its key.
func TestStolenToken(t *testing.T) {
	s := newProvenServer(t, tokentest.New(t))
	stolen := accessToken(t, s.source(nil))
	thief := attach.ClientCredentials("", "thief", "secret", attach.TokenURL(stolenEndpoint(t, stolen)), attach.DPoP())
	client := testgrpc.NewTestServiceClient(dial(t, s.listen(t), attach.DialOptions(thief, plaintext)...))
	if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err == nil {
		t.Error("the thief's key was accepted")
	}
	if got := s.take(); got["wrong_proof"] == 0 || len(got) != 1 {
		t.Errorf("got the refusals %v, want wrong_proof alone", got)
	}
}

// stolenEndpoint returns the URL of a token endpoint that answers with the token.
func stolenEndpoint(t *testing.T, raw string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": raw, "token_type": "DPoP", "expires_in": 3600})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestDPoPAnswers checks what a source makes of an issuer that does not support DPoP, or demands nonces without end.
func TestDPoPAnswers(t *testing.T) {
	var requests, proofs atomic.Int32
	var answer func(w http.ResponseWriter)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if len(r.Header.Values("DPoP")) == 1 {
			proofs.Add(1)
		}
		answer(w)
	}))
	t.Cleanup(server.Close)
	for name, test := range map[string]struct {
		answer   func(w http.ResponseWriter)
		want     string
		requests int32
	}{
		"bearer token": {func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":60}`)
		}, `token_type is "Bearer", not DPoP`, 1},
		"nonce without end": {func(w http.ResponseWriter) {
			w.Header().Set("DPoP-Nonce", rand.Text())
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"use_dpop_nonce"}`)
		}, "use_dpop_nonce", 2},
		"no nonce": {func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"use_dpop_nonce"}`)
		}, "use_dpop_nonce", 1},
		"proof refused": {func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_dpop_proof"}`)
		}, "invalid_dpop_proof", 1},
	} {
		requests.Store(0)
		proofs.Store(0)
		answer = test.answer
		_, err := attach.ClientCredentials("", "billing", "secret", attach.TokenURL(server.URL), attach.AuthMethod(attach.ClientSecretPost), attach.DPoP()).Token()
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
		if requests.Load() != test.requests || proofs.Load() != test.requests {
			t.Errorf("%s: got %d requests, %d of them with a proof, want %d", name, requests.Load(), proofs.Load(), test.requests)
		}
	}
}

func TestDPoPMistakes(t *testing.T) {
	small := must.Get(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for name, options := range map[string][]attach.Option{
		"nil key":     {attach.DPoPKey(nil)},
		"nil pointer": {attach.DPoPKey((*ecdsa.PrivateKey)(nil))},
		"P-224":       {attach.DPoPKey(small)},
		"two keys":    {attach.DPoP(), attach.DPoP()},
	} {
		if _, err := attach.ClientCredentials("https://auth.internal", "billing", "secret", options...).Token(); err == nil || !strings.Contains(err.Error(), "DPoP: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	issuer := tokentest.New(t)
	issuer.AddClient(t, "billing", resource, "orders.read")
	public := jwstest.NewSigner(jwks.ES256).Private.Public()
	for name, signer := range map[string]crypto.Signer{"panics": faultySigner{public, true}, "fails": faultySigner{public, false}} {
		_, err := attach.ClientCredentials(issuer.URL, "billing", tokentest.Secret, attach.DPoPKey(signer)).Token()
		var failed *attach.Error
		if !errors.As(err, &failed) || failed.Code != "" {
			t.Errorf("a signer that %s: got %v", name, err)
		}
	}
}

// faultySigner is a private key that does not sign.
type faultySigner struct {
	public crypto.PublicKey
	panics bool
}

func (f faultySigner) Public() crypto.PublicKey { return f.public }

func (f faultySigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	if f.panics {
		panic("no key")
	}
	return nil, errors.New("no key")
}
