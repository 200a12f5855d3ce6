package verify

import (
	"context"
	"maps"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/service/instrument"
)

// Server is a [grpc.Server] whose methods are all guarded.
type Server struct {
	*grpc.Server

	policy Policy
	rules  map[string]Rule
}

// NewServer returns a gRPC server guarded by verifier and policy. The guard runs before the interceptors that options
// chain, so they see only calls that it admitted. An interceptor set by [grpc.UnaryInterceptor] or
// [grpc.StreamInterceptor] runs before the guard.
func NewServer(verifier *Verifier, policy Policy, options ...grpc.ServerOption) *Server {
	g := newGuard(verifier, policy)
	server := grpc.NewServer(append(g.options(), options...)...)
	return &Server{server, maps.Clone(policy), g.rules}
}

// Serve calls [grpc.Server.Serve] if every registered method has a valid rule and the policy names no other method.
// Otherwise it closes the listener and returns the error of [Policy.Check].
func (s *Server) Serve(listener net.Listener) error {
	if err := check(s.policy, s.rules, s.GetServiceInfo()); err != nil {
		_ = listener.Close()
		return err
	}
	return s.Server.Serve(listener)
}

// ServerOptions returns the guard as options for [grpc.NewServer]. Such a server starts with any methods; a method
// without a rule is refused when it is called. Call [Policy.Check] to find such methods earlier.
func ServerOptions(verifier *Verifier, policy Policy) []grpc.ServerOption {
	return newGuard(verifier, policy).options()
}

// UnaryServerInterceptor returns the guard for unary calls alone, for a hand-built chain.
func UnaryServerInterceptor(verifier *Verifier, policy Policy) grpc.UnaryServerInterceptor {
	return newGuard(verifier, policy).unary
}

// StreamServerInterceptor returns the guard for streams alone, for a hand-built chain.
func StreamServerInterceptor(verifier *Verifier, policy Policy) grpc.StreamServerInterceptor {
	return newGuard(verifier, policy).stream
}

// guard is a verifier with the rules that it applies.
type guard struct {
	verifier *Verifier
	// rules is keyed by full method name. It is not modified.
	rules map[string]Rule
}

func newGuard(verifier *Verifier, policy Policy) *guard {
	return &guard{orZero(verifier), policy.complete()}
}

// orZero returns verifier, or the zero Verifier if it is nil.
func orZero(verifier *Verifier) *Verifier {
	if verifier == nil {
		return new(Verifier)
	}
	return verifier
}

func (g *guard) options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(g.unary), grpc.ChainStreamInterceptor(g.stream)}
}

// admit decides whether a call may proceed. header is the metadata for a caller that is admitted, or nil.
func (g *guard) admit(ctx context.Context, method string) (_ context.Context, header metadata.MD, _ *Refusal) {
	rule, r := g.rules[method], request{method: method}
	if rule.kind != public {
		r.authorization = metadata.ValueFromIncomingContext(ctx, "authorization") // which copies it
	}
	admitted, refused := g.verifier.admit(ctx, rule, &r)
	if refused != nil {
		g.verifier.report(ctx, method, refused)
		return nil, nil, refused
	}
	if r.nonce != "" {
		header = metadata.Pairs(dpopNonceHeader, r.nonce)
	}
	return admitted, header, nil
}

// begin starts measuring a call. The method is a metric label only if it has a rule, so that callers cannot invent
// labels.
func (g *guard) begin(ctx context.Context, method string) (context.Context, instrument.Call) {
	_, known := g.rules[method]
	return g.verifier.instruments.rpc.Start(ctx, method, known)
}

func (g *guard) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (answer any, err error) {
	if g.verifier.instruments != nil {
		var call instrument.Call
		ctx, call = g.begin(ctx, info.FullMethod)
		err = errPanicked
		defer func() { call.End(err) }()
	}
	admitted, header, refused := g.admit(ctx, info.FullMethod)
	if refused != nil {
		// SetTrailer fails only outside a server's call, and the status below says the same.
		_ = grpc.SetTrailer(ctx, refused.trailer())
		return nil, refused.GRPCStatus().Err()
	}
	if header != nil {
		_ = grpc.SetHeader(ctx, header) // without it the caller is asked to repeat a later call
	}
	return handler(admitted, request)
}

func (g *guard) stream(
	server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) (err error) {
	ctx := stream.Context()
	if g.verifier.instruments != nil {
		var call instrument.Call
		ctx, call = g.begin(ctx, info.FullMethod)
		err = errPanicked
		defer func() { call.End(err) }()
	}
	admitted, header, refused := g.admit(ctx, info.FullMethod)
	if refused != nil {
		stream.SetTrailer(refused.trailer())
		return refused.GRPCStatus().Err()
	}
	if header != nil {
		_ = stream.SetHeader(header)
	}
	if g.rules[info.FullMethod].kind == public { // the context may have a caller that another guard admitted
		return handler(server, &callerStream{ServerStream: stream, ctx: admitted})
	}
	return g.serve(info.FullMethod, &callerStream{ServerStream: stream, ctx: admitted},
		func(stream grpc.ServerStream) error { return handler(server, stream) })
}
