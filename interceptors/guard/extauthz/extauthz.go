// Package extauthz answers Envoy's questions about requests: it implements the gRPC service
// envoy.service.auth.v3.Authorization with a [guard.Guard].
package extauthz

import (
	"context"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/grantorhq/grantor/interceptors/guard"
)

// New returns a server that decides by g. Register it with [authv3.RegisterAuthorizationServer].
func New(g *guard.Guard, options ...Option) authv3.AuthorizationServer {
	return &server{guard: g}
}

// Option configures the server of [New].
type Option func(*server)

// LimitStreams ends each request when its token expires: Envoy's router gets the time that is left in the header
// x-envoy-upstream-stream-duration-ms. By default, a stream is authorized when it starts, and then runs on.
func LimitStreams() Option { return func(*server) {} }

type server struct {
	authv3.UnimplementedAuthorizationServer

	guard *guard.Guard
}

// Check implements [authv3.AuthorizationServer].
func (s *server) Check(ctx context.Context, m *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.UnimplementedAuthorizationServer.Check(ctx, m)
}
