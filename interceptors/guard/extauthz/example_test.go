package extauthz_test

import (
	"context"
	"fmt"
	"net"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/guard/extauthz"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
)

func Example() {
	table, err := guard.NewTable([]guard.Route{{Path: "/orders/{id}", Methods: []string{"GET"}, Rule: verify.Scopes("orders.read")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	// The verifier is made for the example: a program calls verify.New.
	g, err := guard.New(newVerifier(), table, guard.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, extauthz.New(g))
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	// What Envoy asks about a request of its client.
	conn := must.Get(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer func() { _ = conn.Close() }()
	answer := must.Get(authv3.NewAuthorizationClient(conn).Check(context.Background(), &authv3.CheckRequest{
		Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Scheme: "https", Host: "orders.example.com", Path: "/orders/7",
			Headers: map[string]string{"authorization": "Bearer " + newToken("orders.read"), "x-grantor-client-id": "root"},
		}}},
	}))
	for _, h := range answer.GetOkResponse().GetHeaders() {
		fmt.Println(h.GetHeader().GetKey(), h.GetHeader().GetValue())
	}
	// Output:
	// x-grantor-client-id billing
	// x-grantor-scopes orders.read
}
