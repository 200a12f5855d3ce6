package service

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/oauth"
)

// maxMessage bounds a request, in bytes: a full batch of tokens.
const maxMessage = 1 << 20

// UnaryInterceptor is the chain that every call runs through, from whichever wire it comes. Order is part of it: the
// measurement stands outside, so that a panic is measured as the failure it is.
func (s *Service) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		start := time.Now()
		answer, err := s.recovered(ctx, request, info, handler)
		s.events.Call(ctx, strings.TrimPrefix(info.FullMethod, "/"), status.Code(err).String(), time.Since(start))
		return answer, err
	}
}

// guarded lets through what the rules in the protos allow, nearest to the handlers: nothing stands between the two.
func (s *Service) guarded(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return s.unaryGuard(ctx, request, info, func(ctx context.Context, request any) (any, error) {
		return s.answered(ctx, request, info, handler)
	})
}

// recovered turns a panic into a server_error that tells the caller nothing and the log everything.
func (s *Service) recovered(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if p := recover(); p != nil {
			answer, err = nil, s.panicked(ctx, info.FullMethod, p)
		}
	}()
	return s.guarded(ctx, request, info, handler)
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
	s.config.Log.ErrorContext(ctx, "panic in a call", "method", method, "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	return toStatus(oauth.From(fmt.Errorf("panic of type %T", p)))
}

// ServerOptions are those of the issuer's gRPC server, transport security aside.
func (s *Service) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(s.UnaryInterceptor()),
		grpc.ChainStreamInterceptor(s.recoverStream, s.streamGuard),
		// Workers keep their grown stacks; a fresh goroutine would grow its own for each signature.
		grpc.NumStreamWorkers(64),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxConcurrentStreams(250),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 30 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second,
			// A call that is sent by half ends with its connection at the latest; and callers spread over new replicas.
			MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}
