package service

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/grantorhq/grantor/service/oauth"
)

// maxMessage bounds a request, in bytes: a full batch of tokens.
const maxMessage = 1 << 20

// UnaryInterceptor is the chain that every call runs through, from whichever wire it comes. Order is part of it: the
// measurement stands outside, so that a panic is measured as the failure it is.
func (s *Service) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, call := s.events.RPC.Start(ctx, info.FullMethod, s.methods[info.FullMethod])
		answer, err := s.recovered(ctx, request, info, handler)
		call.End(err)
		return answer, err
	}
}

// measureStream does for streams what stands outside in the other chain.
func (s *Service) measureStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, call := s.events.RPC.Start(stream.Context(), info.FullMethod, s.methods[info.FullMethod])
	err := handler(server, &tracedStream{stream, ctx})
	call.End(err)
	return err
}

// tracedStream is a stream whose context has the span.
type tracedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements [grpc.ServerStream].
func (s *tracedStream) Context() context.Context { return s.ctx }

// MeasureHTTP measures what next answers. route gives the route of a request, one of a fixed set or empty.
func (s *Service) MeasureHTTP(next http.Handler, route func(*http.Request) string) http.Handler {
	return s.events.HTTP.Handler(next, route)
}

// methodNames collects the full names of the methods that are registered with it.
type methodNames map[string]bool

// RegisterService implements [grpc.ServiceRegistrar].
func (n methodNames) RegisterService(desc *grpc.ServiceDesc, _ any) {
	for i := range desc.Methods {
		n["/"+desc.ServiceName+"/"+desc.Methods[i].MethodName] = true
	}
	for i := range desc.Streams {
		n["/"+desc.ServiceName+"/"+desc.Streams[i].StreamName] = true
	}
}

// guarded lets through what the rules in the protos allow, nearest to the handlers: nothing stands between the two.
func (s *Service) guarded(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return s.unaryGuard(ctx, request, info, func(ctx context.Context, request any) (any, error) {
		return s.answered(ctx, request, info, handler)
	})
}

// admitted notes where a call comes from, for all that follows, and lets it in if its source may make one more.
func (s *Service) admitted(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	arrived(ctx)
	ctx = s.located(ctx)
	if err := s.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return s.guarded(ctx, request, info, handler)
}

// recovered turns a panic into a server_error that tells the caller nothing and the log everything.
func (s *Service) recovered(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if p := recover(); p != nil {
			answer, err = nil, s.panicked(ctx, info.FullMethod, p)
		}
	}()
	return s.admitted(ctx, request, info, handler)
}

// recoverStream does the same for a stream.
func (s *Service) recoverStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(stream.Context(), info.FullMethod, p)
		}
	}()
	return handler(server, stream)
}

// panicked logs a panic and gives what the caller gets. The panic's value could quote a secret; where it happened cannot.
func (s *Service) panicked(ctx context.Context, method string, p any) error {
	s.events.Fault(ctx, "panic in a call", strings.TrimPrefix(method, "/"), slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
	return toStatus(oauth.From(fmt.Errorf("panic of type %T", p)))
}

// defaultConnectionAge is how long a connection of the gRPC port is used.
const defaultConnectionAge = 10 * time.Minute

// ServerOptions are those of the issuer's gRPC server, transport security aside.
func (s *Service) ServerOptions() []grpc.ServerOption {
	age := s.config.ConnectionAge
	if age == 0 {
		age = defaultConnectionAge
	}
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(s.UnaryInterceptor()),
		grpc.ChainStreamInterceptor(s.measureStream, s.recoverStream, s.admitStream, s.streamGuard),
		grpc.InTapHandle(s.arrivals.begin),
		// Each connection keeps a buffer, an idle one too; 8 KiB hold some twenty requests.
		grpc.ReadBufferSize(8 << 10),
		// Workers keep their grown stacks; a fresh goroutine would grow its own for each signature.
		grpc.NumStreamWorkers(64),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxConcurrentStreams(250),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 30 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second,
			// Callers spread over new replicas.
			MaxConnectionAge: age, MaxConnectionAgeGrace: time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}
