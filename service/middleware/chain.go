// Package middleware is what every call passes before its handler: the calls of the gRPC port, and those that the REST
// handler makes in process.
package middleware

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/peercert"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/token"
)

// Config is what a chain works with. Every field is required but Proxies and CertificateHeader.
type Config struct {
	Events  *telemetry.Recorder
	Limiter *limit.Limiter
	// Proxies are the networks whose X-Forwarded-For is trusted.
	Proxies remoteaddr.Networks
	// CertificateHeader is the header in which those proxies forward the certificate of a client. Default none.
	CertificateHeader peercert.Header
	// Methods are the methods that can be called.
	Methods Methods
	// Issuer, Keys and Denied verify the access tokens of administrative calls. The issuer has its keys and revocations in
	// memory, so that verifying needs no network.
	Issuer oauth.Issuer
	Keys   token.KeySource
	Denied *revocation.List
	Now    func() time.Time
}

// Chain is the middleware of one issuer. It is safe for concurrent use by multiple goroutines.
type Chain struct {
	measure  measure
	recovery recovery
	arrivals *arrivals
	address  clientAddr
	// certificates determines the client certificates of calls.
	certificates peercert.Source
	limits       rateLimit
	authorize    authorize
	errors       mapErrors
	events       *telemetry.Recorder
}

// New returns the chain for an issuer.
func New(ctx context.Context, config Config) (*Chain, error) {
	authorize, err := newAuthorize(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Chain{
		measure: measure{config.Events.RPC, config.Methods}, recovery: recovery{config.Events}, arrivals: newArrivals(config.Methods, &config.Limiter.Intake),
		address: clientAddr{config.Proxies}, certificates: peercert.Source{Proxies: config.Proxies, Header: config.CertificateHeader}, limits: rateLimit{config.Limiter}, authorize: authorize,
		errors: mapErrors{config.Events}, events: config.Events,
	}, nil
}

// UnaryInterceptor returns the chain for unary calls.
func (c *Chain) UnaryInterceptor() grpc.UnaryServerInterceptor { return c.unary }

// ServerOptions returns the options that put the chain into a gRPC server.
func (c *Chain) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(c.unary), grpc.ChainStreamInterceptor(c.stream), grpc.InTapHandle(c.arrivals.begin),
	}
}

// The two functions below are the chain. The steps are called one after the other rather than composed of interceptors,
// because a closure for each step of each call would cost a tenth of an introspection. Their order matters:
//
//   - measure: outermost, so that a panic is measured as the failure that it is
//   - recovery: outside all steps that could panic
//   - arrivals: before any step that takes time, which is not part of receiving the request
//   - address: before the steps that need the address of the client
//   - limits: before a token is verified, which costs more than counting the call
//   - certificate: before the steps and handlers that need the certificate of the client, and after the limits, because
//     certificates take time to parse
//   - authorize: next to the handler, so that no later step can let a call through
//   - errors: innermost, so that it maps errors of handlers alone, and knows the caller

// unary runs the steps and then the handler of a unary call.
func (c *Chain) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
	ctx, call := c.measure.start(ctx, info.FullMethod)
	defer func() { call.End(err) }()
	defer c.recovery.recover(ctx, info.FullMethod, &err)
	pending := pending(ctx)
	c.arrivals.arrived(pending)
	ctx = c.address.resolve(ctx, pending)
	if err := c.limits.allow(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if ctx, err = c.certificate(ctx); err != nil {
		return nil, err
	}
	return c.authorize.unary(ctx, request, info, func(ctx context.Context, request any) (any, error) {
		response, err := handler(ctx, request)
		if err != nil {
			return nil, c.errors.convert(ctx, info.FullMethod, err)
		}
		return response, nil
	})
}

// stream runs the steps and then the handler of a stream.
func (c *Chain) stream(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, call := c.measure.start(s.Context(), info.FullMethod)
	defer func() { call.End(err) }()
	defer c.recovery.recover(ctx, info.FullMethod, &err)
	pending := pending(ctx)
	s = c.arrivals.bound(s, pending)
	ctx = c.address.resolve(ctx, pending)
	if err := c.limits.allow(ctx, info.FullMethod); err != nil {
		return err
	}
	leave, err := c.limits.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if ctx, err = c.certificate(ctx); err != nil {
		return err
	}
	return c.authorize.stream(server, &stream{s, ctx}, info, func(server any, s grpc.ServerStream) error {
		if err := handler(server, s); err != nil {
			return c.errors.convert(s.Context(), info.FullMethod, err)
		}
		return nil
	})
}

// stream is a stream with another context.
type stream struct {
	grpc.ServerStream

	ctx context.Context
}

// Context implements [grpc.ServerStream].
func (s *stream) Context() context.Context { return s.ctx }
