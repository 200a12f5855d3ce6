package service

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// newLimiter makes what bounds callers.
func (s *Service) newLimiter(pepper []byte) (*limit.Limiter, error) {
	key, err := hkdf.Key(sha256.New, pepper, nil, "grantor limits", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key for limits: %w", err)
	}
	return limit.New(limit.Config{
		Limits: s.config.Limits, Key: key, Store: s.config.Store, Now: s.config.Now,
		Exceeded: func(client string) {
			s.config.Log.Warn("a client has had more tokens than tokens-per-client; it still gets them", "client_id", client)
		},
	}), nil
}

// SetLimits changes the limits at once.
func (s *Service) SetLimits(limits limit.Limits) { s.limits.SetLimits(limits) }

// Origin gives where a request came from, by the other end of its connection and the values of X-Forwarded-For. It is
// another address than that end's only behind a trusted proxy, and has no port then.
func (s *Service) Origin(end net.Addr, forwarded []string) net.Addr {
	if len(forwarded) == 0 || len(s.config.Proxies) == 0 {
		return end
	}
	address := remoteaddr.Parse(end)
	origin := s.config.Proxies.Origin(address, forwarded)
	if origin == address {
		return end
	}
	return &net.IPAddr{IP: origin.AsSlice()}
}

// located gives the context in which the peer is where the call came from. The REST face has done so already, and passes
// no header on.
func (s *Service) located(ctx context.Context) context.Context {
	if len(s.config.Proxies) == 0 {
		return ctx
	}
	p, ok := peer.FromContext(ctx)
	forwarded := metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")
	if !ok || len(forwarded) == 0 {
		return ctx
	}
	located := *p
	located.Addr = s.Origin(p.Addr, forwarded)
	return peer.NewContext(ctx, &located)
}

// sourceOf is the address that a call comes from; the zero address where that is not known.
func sourceOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	return remoteaddr.Parse(p.Addr)
}

// admit refuses a call of a source that makes too many, except to the health service: by that a load balancer or
// orchestrator would take a sound replica for a sick one.
func (s *Service) admit(ctx context.Context, method string) error {
	if ctx.Value(admittedKey{}) != nil {
		return nil
	}
	wait := s.limits.AllowRequest(sourceOf(ctx))
	if wait == 0 || strings.HasPrefix(method, "/grpc.health.v1.Health/") {
		return nil
	}
	return tooMany("Too many requests; try again later.", wait)
}

// admittedKey finds in the context of a request over REST that it has been counted.
type admittedKey struct{}

// Admit refuses a request over REST of a source that makes too many, before its body is read; ctx has the peer. The calls
// that are made for the request, in the context that is given back, do not count once more.
func (s *Service) Admit(ctx context.Context) (context.Context, error) {
	if err := s.admit(ctx, ""); err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, admittedKey{}, true), nil
}

func tooMany(text oauth.Text, wait time.Duration) error {
	return toStatus(&oauth.Error{
		Code: oauth.TemporarilyUnavailable, Reason: oauth.TooManyRequests, Limited: true, RetryAfter: wait, Text: text,
	})
}

// admitStream does for a stream what admitted does for a call, and bounds how many a source has open.
func (s *Service) admitStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := s.located(stream.Context())
	if err := s.admit(ctx, info.FullMethod); err != nil {
		return err
	}
	source := sourceOf(ctx)
	if !s.limits.EnterStream(source) {
		const pause = 5 * time.Second
		return tooMany("Too many streams are open; close one first.", pause)
	}
	defer s.limits.LeaveStream(source)
	if i, ok := ctx.Value(incomingKey{}).(*incoming); ok {
		stream = &arrivingStream{stream, i}
	}
	return handler(server, &locatedStream{stream, ctx})
}

// locatedStream is a stream whose context says where it came from.
type locatedStream struct {
	grpc.ServerStream

	ctx context.Context
}

// Context implements [grpc.ServerStream].
func (s *locatedStream) Context() context.Context { return s.ctx }
