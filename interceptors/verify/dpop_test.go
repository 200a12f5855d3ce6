package verify_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// proofServer answers every call.
type proofServer struct {
	testgrpc.UnimplementedTestServiceServer
}

func (proofServer) UnaryCall(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{}, nil
}

func (proofServer) StreamingOutputCall(_ *testgrpc.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	return stream.Send(&testgrpc.StreamingOutputCallResponse{})
}

// proofWire makes calls with proofs, and knows the method and the URL of its target.
type proofWire struct {
	method, url string
	call        func(authorization string, proofs ...string) proofAnswer
}

// proofAnswer is the answer to a call.
type proofAnswer struct {
	// reason is "OK" or the error code.
	reason     string
	challenges []string
	nonce      string
}

// refusals records the errors of a verifier.
type refusals struct {
	mu   sync.Mutex
	last error
}

func (r *refusals) observe(_ context.Context, _ string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = err
}

func (r *refusals) take() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.last
	r.last = nil
	return err
}

// proofWires returns servers on all wires that a verifier guards.
func proofWires(t *testing.T, verifier *verify.Verifier) map[string]proofWire {
	t.Helper()
	rule := verify.Scopes("orders.read")
	policy := verify.Policy{}
	for _, method := range testgrpc.TestService_ServiceDesc.Methods {
		policy["/grpc.testing.TestService/"+method.MethodName] = rule
	}
	for _, stream := range testgrpc.TestService_ServiceDesc.Streams {
		policy["/grpc.testing.TestService/"+stream.StreamName] = rule
	}
	server := verify.NewServer(verifier, policy)
	testgrpc.RegisterTestServiceServer(server, proofServer{})
	conn := listen(t, server)
	client := testgrpc.NewTestServiceClient(conn)
	web := httptest.NewServer(verify.HTTP(verifier, rule)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	t.Cleanup(web.Close)
	context := func(authorization string, proofs []string) context.Context {
		return metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": {authorization}, "dpop": proofs})
	}
	return map[string]proofWire{
		"HTTP": {http.MethodGet, web.URL + "/orders/1", func(authorization string, proofs ...string) proofAnswer {
			request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, web.URL+"/orders/1?page=2", nil))
			request.Header = http.Header{"Authorization": {authorization}, "Dpop": proofs}
			answer := must.Get(web.Client().Do(request))
			body := struct {
				Error string `json:"error"`
			}{"OK"}
			if answer.StatusCode != http.StatusOK {
				must.Succeed(t, json.NewDecoder(answer.Body).Decode(&body))
			}
			_ = answer.Body.Close()
			return proofAnswer{body.Error, answer.Header.Values("WWW-Authenticate"), answer.Header.Get("DPoP-Nonce")}
		}},
		"Check": {http.MethodGet, "https://shop.example.com/orders/1", func(authorization string, proofs ...string) proofAnswer {
			request := &verify.Request{
				Authorization: []string{authorization}, DPoP: proofs, Method: http.MethodGet, Host: "shop.example.com", Path: "/orders/1?page=2", Secure: true,
			}
			_, refused := verifier.Check(t.Context(), rule, request)
			if refused == nil {
				return proofAnswer{"OK", nil, request.NextNonce}
			}
			if refused.Nonce != request.NextNonce {
				t.Errorf("the refusal has the nonce %q, the request %q", refused.Nonce, request.NextNonce)
			}
			return proofAnswer{string(refused.Reason), refused.Challenges, refused.Nonce}
		}},
		"unary gRPC": {http.MethodPost, "https://" + conn.CanonicalTarget()[len("dns:///"):] + "/grpc.testing.TestService/UnaryCall",
			func(authorization string, proofs ...string) proofAnswer {
				var header, trailer metadata.MD
				_, err := client.UnaryCall(context(authorization, proofs), &testgrpc.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
				return answerOf(err, header, trailer)
			}},
		"streaming gRPC": {http.MethodPost, "https://" + conn.CanonicalTarget()[len("dns:///"):] + "/grpc.testing.TestService/StreamingOutputCall",
			func(authorization string, proofs ...string) proofAnswer {
				stream, err := client.StreamingOutputCall(context(authorization, proofs), &testgrpc.StreamingOutputCallRequest{})
				must.Succeed(t, err)
				for err == nil {
					_, err = stream.Recv()
				}
				if errors.Is(err, io.EOF) {
					err = nil
				}
				header, _ := stream.Header()
				return answerOf(err, header, stream.Trailer())
			}},
	}
}

func answerOf(err error, header, trailer metadata.MD) proofAnswer {
	a := proofAnswer{"OK", trailer.Get("www-authenticate"), strings.Join(append(header.Get("dpop-nonce"), trailer.Get("dpop-nonce")...), "")}
	if err != nil {
		_, a.reason, _ = strings.Cut(outcome(err, nil), " ")
		if status.Code(err) != codes.Unauthenticated && status.Code(err) != codes.PermissionDenied {
			a.reason += " " + status.Code(err).String()
		}
	}
	return a
}

// boundToken returns a token that is bound to the key with the thumbprint.
func boundToken(signer *token.Signer, thumbprint string) string {
	return must.Get(signer.Sign(claims(testIssuer, "orders.read", func(c *token.Claims) { c.Confirmation.KeyThumbprint = thumbprint })))
}

// TestProofs tests tokens that are bound to a key, with and without a proof of it, on all wires.
func TestProofs(t *testing.T) {
	signer, seen := newSigner(), &refusals{}
	key, other := jwstest.NewSigner(jwks.ES256), jwstest.NewSigner(jwks.ES256)
	bound, unbound := boundToken(signer, key.Key().Thumbprint()), must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	foreign := boundToken(signer, other.Key().Thumbprint())
	unknown := must.Get(signer.SignUnchecked(must.Get(json.Marshal(map[string]any{
		"iss": testIssuer, "sub": "a", "client_id": "a", "aud": orders, "scope": "orders.read", "iat": time.Now().Unix(),
		"exp": time.Now().Add(time.Hour).Unix(), "jti": rand.Text(), "cnf": map[string]string{"x": "y"},
	}))))
	for name, wire := range proofWires(t, newVerifier(signer, verify.OnRefusal(seen.observe))) {
		public := jwstest.Object{"kty": key.JWK().KeyType, "crv": key.JWK().Curve, "x": key.JWK().X, "y": key.JWK().Y}
		sign := func(header, payload jwstest.Object) string {
			return key.Sign(jwstest.Object{"typ": "dpop+jwt", "alg": "ES256", "jwk": public}.With(header), jwstest.Object{
				"jti": rand.Text(), "htm": wire.method, "htu": wire.url, "iat": time.Now().Unix(), "ath": hash(bound),
			}.With(payload))
		}
		scheme, rest, _ := strings.Cut(wire.url, "://")
		authority, path, _ := strings.Cut(rest, "/")
		host, port, _ := strings.Cut(authority, ":")
		used := sign(nil, nil)
		for _, test := range []struct {
			name, authorization string
			proofs              []string
			want                string
		}{
			{"a proof", "DPoP " + bound, []string{used}, "OK"},
			{"scheme in lower case", "dpop " + bound, []string{sign(nil, nil)}, "OK"},
			{"htu with the query", "DPoP " + bound, []string{sign(nil, jwstest.Object{"htu": wire.url + "?page=2"})}, "OK"},
			{"htu, host and scheme in upper case", "DPoP " + bound, []string{sign(nil, jwstest.Object{"htu": strings.ToUpper(scheme) + "://" + rest})}, "OK"},
			{"unbound token", "Bearer " + unbound, nil, "OK"},
			{"unbound token with a proof of nothing", "Bearer " + unbound, []string{"x"}, "OK"},

			{"without its proof", "DPoP " + bound, nil, "invalid_token"},
			{"as a bearer token", "Bearer " + bound, nil, "invalid_token"},
			{"as a bearer token with a proof", "Bearer " + bound, []string{sign(nil, nil)}, "invalid_token"},
			{"unbound token with the scheme DPoP", "DPoP " + unbound, []string{sign(nil, jwstest.Object{"ath": hash(unbound)})}, "invalid_token"},
			{"sent by another key", "DPoP " + foreign, []string{sign(nil, jwstest.Object{"ath": hash(foreign)})}, "invalid_token"},
			{"bound in an unknown way", "Bearer " + unknown, nil, "invalid_token"},
			{"no token", "DPoP ", []string{sign(nil, nil)}, "invalid_token"},
			{"garbage as token", "DPoP x.y.z", []string{sign(nil, nil)}, "invalid_token"},

			{"replayed", "DPoP " + bound, []string{used}, "invalid_dpop_proof"},
			{"two proofs", "DPoP " + bound, []string{sign(nil, nil), sign(nil, nil)}, "invalid_dpop_proof"},
			{"an empty proof", "DPoP " + bound, []string{""}, "invalid_dpop_proof"},
			{"garbage", "DPoP " + bound, []string{"x.y.z"}, "invalid_dpop_proof"},
			{"for another token", "DPoP " + bound, []string{sign(nil, jwstest.Object{"ath": hash(unbound)})}, "invalid_dpop_proof"},
			{"without ath", "DPoP " + bound, []string{sign(nil, jwstest.Object{"ath": nil})}, "invalid_dpop_proof"},
			{"for another method", "DPoP " + bound, []string{sign(nil, jwstest.Object{"htm": "PUT"})}, "invalid_dpop_proof"},
			{"htu, path in other letter case", "DPoP " + bound, []string{sign(nil, jwstest.Object{"htu": scheme + "://" + authority + "/" + strings.ToUpper(path)})}, "invalid_dpop_proof"},
			{"htu, another path", "DPoP " + bound, []string{sign(nil, jwstest.Object{"htu": wire.url + "2"})}, "invalid_dpop_proof"},
			{"htu, another port", "DPoP " + bound, []string{sign(nil, jwstest.Object{"htu": scheme + "://" + host + ":1" + port + "/" + path})}, "invalid_dpop_proof"},
			{"htu, another host", "DPoP " + bound, []string{sign(nil, jwstest.Object{"htu": scheme + "://evil.example:" + port + "/" + path})}, "invalid_dpop_proof"},
			{"5 minutes old", "DPoP " + bound, []string{sign(nil, jwstest.Object{"iat": time.Now().Add(-5 * time.Minute).Unix()})}, "invalid_dpop_proof"},
			{"from the future", "DPoP " + bound, []string{sign(nil, jwstest.Object{"iat": time.Now().Add(5 * time.Minute).Unix()})}, "invalid_dpop_proof"},
			{"symmetric jwk", "DPoP " + bound, []string{sign(jwstest.Object{"alg": "HS256", "jwk": jwstest.Object{"kty": "oct", "k": "c2VjcmV0"}}, nil)}, "invalid_dpop_proof"},
			{"private jwk", "DPoP " + bound, []string{sign(jwstest.Object{"jwk": public.With(jwstest.Object{"d": public["x"]})}, nil)}, "invalid_dpop_proof"},
			{"the token itself", "DPoP " + bound, []string{bound}, "invalid_dpop_proof"},
		} {
			got := wire.call(test.authorization, test.proofs...)
			if got.reason != test.want {
				t.Errorf("%s: %s: got %s, want %s", name, test.name, got.reason, test.want)
			}
			checkChallenges(t, name+": "+test.name, strings.HasPrefix(strings.ToLower(test.authorization), "dpop"), got)
			refused := seen.take()
			ours := test.want != "OK" && test.name != "no token" && test.name != "garbage as token"
			if errors.Is(refused, token.ErrProof) != ours || ours && verify.Reason(refused) != "wrong_proof" {
				t.Errorf("%s: %s: got the error %v", name, test.name, refused)
			}
		}
	}
}

// hash returns the "ath" of a token (RFC 9449 §4.2).
func hash(raw string) string {
	sum := sha256.Sum256([]byte(raw))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// checkChallenges checks that a refused call is challenged for the scheme that it used, or for both.
func checkChallenges(t *testing.T, name string, usedDPoP bool, got proofAnswer) {
	t.Helper()
	if got.reason == "OK" {
		if got.challenges != nil {
			t.Errorf("%s: got the challenges %q", name, got.challenges)
		}
		return
	}
	algs := `DPoP algs="` + strings.Join(dpop.Algorithms(), " ") + `"`
	want := []string{`Bearer error="` + got.reason + `"`, algs}
	if usedDPoP {
		want = []string{algs + `, error="` + got.reason + `"`}
	}
	if strings.HasSuffix(name, ": no token") {
		want = []string{algs}
	}
	if !slices.Equal(got.challenges, want) {
		t.Errorf("%s: got the challenges %q, want %q", name, got.challenges, want)
	}
}

func TestScopeOfBoundToken(t *testing.T) {
	signer, key := newSigner(), jwstest.NewSigner(jwks.ES256)
	prover := must.Get(dpop.NewSigner(key.Private))
	raw := must.Get(signer.Sign(claims(testIssuer, "other", func(c *token.Claims) { c.Confirmation.KeyThumbprint = prover.Thumbprint() })))
	for name, wire := range proofWires(t, newVerifier(signer)) {
		got := wire.call("DPoP "+raw, must.Get(prover.Sign(dpop.Claims{Method: wire.method, URL: wire.url, Token: raw, Time: time.Now()})))
		want := `DPoP algs="` + strings.Join(dpop.Algorithms(), " ") + `", error="insufficient_scope", scope="orders.read"`
		if got.reason != "insufficient_scope" || !slices.Equal(got.challenges, []string{want}) {
			t.Errorf("%s: got %+v, want %s", name, got, want)
		}
	}
}

func TestRequireDPoPNonce(t *testing.T) {
	signer, seen := newSigner(), &refusals{}
	prover := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	bound := boundToken(signer, prover.Thumbprint())
	var clock sync.Mutex
	now := time.Now()
	at := func() time.Time { clock.Lock(); defer clock.Unlock(); return now }
	verifier := newVerifier(signer, verify.RequireDPoPNonce([]byte("shared by all replicas")), verify.Now(at), verify.OnRefusal(seen.observe))
	replica := newVerifier(signer, verify.RequireDPoPNonce([]byte("shared by all replicas")), verify.Now(at))
	alone := newVerifier(signer, verify.RequireDPoPNonce(nil), verify.Now(at))
	replicas, others := proofWires(t, replica), proofWires(t, alone)
	for name, wire := range proofWires(t, verifier) {
		sign := func(nonce, url string) string {
			return must.Get(prover.Sign(dpop.Claims{Method: wire.method, URL: url, Token: bound, Nonce: nonce, Time: at()}))
		}
		refused := wire.call("DPoP "+bound, sign("", wire.url))
		if err := seen.take(); !errors.Is(err, verify.ErrNonce) || errors.Is(err, token.ErrProof) || verify.Reason(err) != "use_dpop_nonce" {
			t.Errorf("%s: got the error %v", name, err)
		}
		if refused.reason != "use_dpop_nonce" || refused.nonce == "" {
			t.Fatalf("%s: got %+v, want use_dpop_nonce with a nonce", name, refused)
		}
		checkChallenges(t, name, true, refused)
		if got := wire.call("DPoP "+bound, sign(refused.nonce, wire.url)); got.reason != "OK" || got.nonce != "" {
			t.Errorf("%s: with the nonce: got %+v", name, got)
		}
		if got := replicas[name].call("DPoP "+bound, sign(refused.nonce, replicas[name].url)); got.reason != "OK" {
			t.Errorf("%s: with the nonce at another replica: got %+v", name, got)
		}
		if got := others[name].call("DPoP "+bound, sign(refused.nonce, others[name].url)); got.reason != "use_dpop_nonce" {
			t.Errorf("%s: with the nonce at a server with another key: got %+v", name, got)
		}
		clock.Lock()
		now = now.Add(2 * time.Minute)
		clock.Unlock()
		if got := wire.call("DPoP "+bound, sign(refused.nonce, wire.url)); got.reason != "OK" || got.nonce == "" || got.nonce == refused.nonce {
			t.Errorf("%s: with the nonce two minutes later: got %+v, want the next one", name, got)
		}
	}
}

func TestDPoPOrigin(t *testing.T) {
	signer := newSigner()
	prover := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	bound := boundToken(signer, prover.Thumbprint())
	verifier := newVerifier(signer, verify.DPoPOrigin("https://orders.example.com", "https://orders.internal:8443"))
	for name, wire := range proofWires(t, verifier) {
		_, rest, _ := strings.Cut(wire.url, "://")
		_, path, _ := strings.Cut(rest, "/")
		for origin, want := range map[string]string{
			"https://orders.example.com": "OK", "https://orders.internal:8443": "OK", "https://orders.example.com:443": "OK",
			"https://orders.internal": "invalid_dpop_proof", strings.TrimSuffix(wire.url, "/"+path): "invalid_dpop_proof",
		} {
			proof := must.Get(prover.Sign(dpop.Claims{Method: wire.method, URL: origin + "/" + path, Token: bound, Time: time.Now()}))
			if got := wire.call("DPoP "+bound, proof); got.reason != want {
				t.Errorf("%s: %s: got %+v, want %s", name, origin, got, want)
			}
		}
	}
	for _, wrong := range []string{"orders.example.com", "https://", "https://orders.example.com/", "https://a@b", "ftp://a"} {
		if _, err := verify.New(t.Context(), testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())), verify.DPoPOrigin(wrong)); err == nil {
			t.Errorf("DPoPOrigin(%q): got no error", wrong)
		}
	}
	if _, err := verify.New(t.Context(), testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())), verify.DPoPReplays(0)); err == nil {
		t.Error("DPoPReplays(0): got no error")
	}
}

// TestEmptyNonceKey has the key that a variable which is not set would be.
func TestEmptyNonceKey(t *testing.T) {
	for _, key := range [][]byte{{}, []byte(""), make([]byte, 0, 32)} {
		_, err := verify.New(t.Context(), testIssuer, verify.Audience(orders), verify.Keys(jwks.NewSet(newSigner().Public())), verify.RequireDPoPNonce(key))
		if err == nil || !strings.Contains(err.Error(), "RequireDPoPNonce: the key is empty") {
			t.Errorf("got %v, want an error about the empty key", err)
		}
	}
}
