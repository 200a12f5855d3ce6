package main

import (
	"context"
	"fmt"
	"net"
	"os"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
)

// admitAll answers each question of Envoy's filter ext_authz as the guard answers one about a valid token, without
// reading it.
type admitAll struct {
	authv3.UnimplementedAuthorizationServer

	answer *authv3.CheckResponse
}

// Check implements [authv3.AuthorizationServer].
func (a *admitAll) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return a.answer, nil
}

// serveExtAuthz listens on a free port of loopback, prints its URL and address, and serves until the listener fails.
func serveExtAuthz() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // until the process ends
	if err != nil {
		return err
	}
	var headers []*corev3.HeaderValueOption
	for name, value := range map[string]string{"x-grantor-client-id": "load", "x-grantor-scopes": "orders.read"} {
		headers = append(headers, &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	server := grpc.NewServer(grpc.NumStreamWorkers(64)) // as in Grantor
	authv3.RegisterAuthorizationServer(server, &admitAll{answer: &authv3.CheckResponse{
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: headers}},
	}})
	if _, err := fmt.Fprintln(os.Stdout, "http://localhost:"+port(listener), "localhost:"+port(listener)); err != nil {
		return err
	}
	return server.Serve(listener)
}
