package main

import (
	"context"
	"net/http"

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

// registerExtAuthz adds the service that Envoy's filter asks.
func registerExtAuthz(rpc *grpc.Server, _ *http.ServeMux, _, _ string) {
	var headers []*corev3.HeaderValueOption
	for name, value := range map[string]string{"x-grantor-client-id": "load", "x-grantor-scopes": "orders.read"} {
		headers = append(headers, &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	authv3.RegisterAuthorizationServer(rpc, &admitAll{answer: &authv3.CheckResponse{
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: headers}},
	}})
}
