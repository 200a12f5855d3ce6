package verify_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

// TestNestedGuards checks that a guard accepts the proof that a guard around it has accepted for the same request, and no proof that
// was used in another one.
func TestNestedGuards(t *testing.T) {
	const method = "/grpc.testing.TestService/UnaryCall"
	signer := newSigner()
	prover := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	bound := boundToken(signer, prover.Thumbprint())
	verifier := newVerifier(signer)
	outer, inner := verify.HTTP(verifier, verify.Authenticated()), verify.HTTP(verifier, verify.Scopes("orders.read"))
	web := httptest.NewServer(outer(inner(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))))
	t.Cleanup(web.Close)
	proof := must.Get(prover.Sign(dpop.Claims{Method: http.MethodGet, URL: web.URL + "/", Token: bound, Time: time.Now()}))
	for _, want := range []int{http.StatusOK, http.StatusUnauthorized} {
		request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, web.URL+"/", nil))
		request.Header = http.Header{"Authorization": {"DPoP " + bound}, "Dpop": {proof}}
		answer := must.Get(web.Client().Do(request))
		_ = answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("HTTP: got %s, want %d", answer.Status, want)
		}
	}
	options := verify.ServerOptions(verifier, verify.Policy{method: verify.Scopes("orders.read")})
	server := grpc.NewServer(append(options, options...)...)
	testgrpc.RegisterTestServiceServer(server, proofServer{})
	conn := listen(t, server)
	proof = must.Get(prover.Sign(dpop.Claims{Method: http.MethodPost, URL: "https://" + conn.CanonicalTarget()[len("dns:///"):] + method, Token: bound, Time: time.Now()}))
	ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs("authorization", "DPoP "+bound, "dpop", proof))
	client := testgrpc.NewTestServiceClient(conn)
	if _, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{}); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	if _, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{}); err == nil {
		t.Error("gRPC: a proof was used twice")
	}
}
