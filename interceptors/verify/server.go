package verify

import (
	"context"
	"maps"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/service/instrument"
)

// Server is a gRPC server whose every method is guarded.
type Server struct {
	*grpc.Server

	policy Policy
	rules  map[string]Rule
}

// NewServer makes a server that verifier and policy guard. The guard stands before the interceptors that options
// chain: they see only calls that it let through. One set by [grpc.UnaryInterceptor] or [grpc.StreamInterceptor] stands
// before the guard.
func NewServer(verifier *Verifier, policy Policy, options ...grpc.ServerOption) *Server {
	g := newGuard(verifier, policy)
	server := grpc.NewServer(append(g.options(), options...)...)
	return &Server{server, maps.Clone(policy), g.rules}
}

// Serve does what [grpc.Server.Serve] does, if every registered method has a rule and the policy names no other; else
// the error says which do not fit.
func (s *Server) Serve(listener net.Listener) error {
	if err := check(s.policy, s.rules, s.GetServiceInfo()); err != nil {
		_ = listener.Close()
		return err
	}
	return s.Server.Serve(listener)
}

// ServerOptions gives the guard for a server that [grpc.NewServer] makes. Such a server starts with whatever is
// registered; a method without a rule is refused when it is called. [Policy.Check] finds it before.
func ServerOptions(verifier *Verifier, policy Policy) []grpc.ServerOption {
	return newGuard(verifier, policy).options()
}

// UnaryServerInterceptor gives the guard for unary calls by itself, for a chain that is built by hand.
func UnaryServerInterceptor(verifier *Verifier, policy Policy) grpc.UnaryServerInterceptor {
	return newGuard(verifier, policy).unary
}

// StreamServerInterceptor gives the guard for streams by itself, for a chain that is built by hand.
func StreamServerInterceptor(verifier *Verifier, policy Policy) grpc.StreamServerInterceptor {
	return newGuard(verifier, policy).stream
}

// guard is a verifier and what it lets through.
type guard struct {
	verifier *Verifier
	// rules has full method name → rule. It does not change.
	rules map[string]Rule
}

func newGuard(verifier *Verifier, policy Policy) *guard {
	return &guard{verifier, policy.complete()}
}

func (g *guard) options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(g.unary), grpc.ChainStreamInterceptor(g.stream)}
}

func (g *guard) admit(ctx context.Context, method string) (context.Context, *refusal) {
	admitted, refused := g.verifier.admit(ctx, g.rules[method], metadata.ValueFromIncomingContext(ctx, "authorization"))
	if refused != nil {
		g.verifier.report(ctx, method, refused)
	}
	return admitted, refused
}

// begin measures a call. It is counted by the name of its method where there is a rule for that.
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
	admitted, refused := g.admit(ctx, info.FullMethod)
	if refused != nil {
		// It fails only outside a server's call, and the status below says the same.
		_ = grpc.SetTrailer(ctx, refused.trailer())
		return nil, refused.status()
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
	admitted, refused := g.admit(ctx, info.FullMethod)
	if refused != nil {
		stream.SetTrailer(refused.trailer())
		return refused.status()
	}
	if _, ok := CallerFrom(admitted); !ok {
		return handler(server, &callerStream{ServerStream: stream, ctx: admitted})
	}
	return g.serve(info.FullMethod, &callerStream{ServerStream: stream, ctx: admitted},
		func(stream grpc.ServerStream) error { return handler(server, stream) })
}
