package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
)

// healthServer is a health service that requires a token. It stands for any service.
type healthServer struct {
	healthv1.UnimplementedHealthServer
}

func (healthServer) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	caller, ok := verify.CallerFrom(ctx)
	fmt.Println("called by", caller.ClientID, ok, caller.HasScope("orders.read"), caller.HasScope("orders.write"))
	return &healthv1.HealthCheckResponse{}, nil
}

func Example() {
	// The issuer's key and a token are made here so that the example is self-contained.
	signer := newSigner()
	accessToken := must.Get(signer.Sign(claims("https://auth.internal", "orders.read")))

	verifier, err := verify.New(context.Background(), "https://auth.internal",
		verify.Audience("https://orders.internal"), verify.Keys(jwks.NewSet(signer.Public())))
	if err != nil {
		fmt.Println(err)
		return
	}
	server := verify.NewServer(verifier, verify.Policy{
		"/grpc.health.v1.Health/Check": verify.Scopes("orders.read"),
	})
	healthv1.RegisterHealthServer(server, healthServer{})
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	conn := must.Get(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer func() { _ = conn.Close() }()
	client := healthv1.NewHealthClient(conn)
	_, err = client.Check(context.Background(), &healthv1.HealthCheckRequest{})
	fmt.Println(status.Code(err), status.Convert(err).Message())
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+accessToken)
	_, err = client.Check(ctx, &healthv1.HealthCheckRequest{})
	fmt.Println(status.Code(err))
	// Output:
	// Unauthenticated A bearer token is required.
	// called by billing true true false
	// OK
}

func ExampleServerOptions() {
	verifier := newVerifier(newSigner())
	policy := verify.Policy{"/grpc.health.v1.Health/check": verify.Public()}
	server := grpc.NewServer(verify.ServerOptions(verifier, policy)...)
	healthv1.RegisterHealthServer(server, health.NewServer())
	fmt.Println(policy.Check(server.GetServiceInfo()))
	// Output:
	// verify: rules for methods that the server does not have: "/grpc.health.v1.Health/check"
}

func ExampleHTTP() {
	signer := newSigner()
	guard := verify.HTTP(newVerifier(signer), verify.Scopes("orders.read"))
	handler := guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := verify.CallerFrom(r.Context())
		_, _ = io.WriteString(w, "hello "+caller.ClientID)
	}))

	for _, scope := range []string{"orders.read", "stock.read"} {
		request := httptest.NewRequest(http.MethodGet, "/orders", nil)
		request.Header.Set("Authorization", "Bearer "+must.Get(signer.Sign(claims(testIssuer, scope))))
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		fmt.Printf("%d %q\n", answer.Code, answer.Header().Get("WWW-Authenticate"))
		fmt.Println(strings.TrimSpace(answer.Body.String()))
	}
	// Output:
	// 200 ""
	// hello billing
	// 403 "Bearer error=\"insufficient_scope\", scope=\"orders.read\""
	// {"error":"insufficient_scope","error_description":"The access token lacks the scope: orders.read"}
}

// A client that knows the URL of the server alone finds its issuer.
func ExampleMetadataHandler() {
	verifier, err := verify.New(context.Background(), "https://auth.example.com", verify.Audience("https://orders.internal/mcp"),
		verify.DescribeResource(verify.ProtectedResource{Scopes: []string{"orders.read"}, Name: "Orders"}),
		verify.Keys(jwks.NewSet(newSigner().Public())))
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle(verify.MetadataHandler(verifier))
	mux.Handle("/mcp", verify.HTTP(verifier, verify.Scopes("orders.read"))(http.NotFoundHandler()))

	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/mcp", nil))
	fmt.Println(answer.Header().Get("WWW-Authenticate"))
	answer = httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/.well-known/oauth-protected-resource/mcp", nil))
	var document struct {
		Resource string   `json:"resource"`
		Issuers  []string `json:"authorization_servers"`
	}
	fmt.Println(json.NewDecoder(answer.Body).Decode(&document))
	fmt.Println(document.Resource, document.Issuers)
	// Output:
	// Bearer scope="orders.read", resource_metadata="https://orders.internal/.well-known/oauth-protected-resource/mcp"
	// <nil>
	// https://orders.internal/mcp [https://auth.example.com]
}
