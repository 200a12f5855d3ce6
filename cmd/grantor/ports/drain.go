package ports

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Drain stops the servers without failing a call. First readiness turns false, over HTTP and gRPC, and nothing else
// changes for delay, so that load balancers and clients notice: calls are still accepted, and HTTP responses send their
// clients to another connection. Then the ports close, HTTP/2 connections get a GOAWAY (RFC 9113 §6.8), streams end,
// and calls in flight have until timeout. The operations port closes last, so that probes get an answer until the end.
func (p *Ports) Drain(delay, timeout time.Duration) error {
	p.Leave()
	<-time.After(delay)
	p.drainNow()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error { return p.httpServer.Shutdown(ctx) })
	group.Go(func() error {
		context.AfterFunc(ctx, p.grpcServer.Stop) // bounds GracefulStop
		p.grpcServer.GracefulStop()
		return ctx.Err()
	})
	err := group.Wait()
	if err != nil {
		_ = p.httpServer.Close()
		err = ErrDrain
	}
	return errors.Join(err, p.opsServer.Close())
}

// Leave reports to every probe that the server is about to stop.
func (p *Ports) Leave() {
	p.leaving.Store(true)
	p.health.Shutdown()
}

// ErrDrain means that calls in flight did not end in time.
var ErrDrain = errors.New("calls in flight did not end within shutdown-timeout and were cut off")

// endStreams ends streams when the server stops: a stream that watches would never end by itself. UNAVAILABLE makes the
// client continue at another replica.
func (p *Ports) endStreams(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(p.draining, cancel)()
	err := handler(srv, &streamWithContext{stream, ctx})
	if err != nil && p.draining.Err() != nil && stream.Context().Err() == nil {
		return status.Error(codes.Unavailable, "The server is stopping.")
	}
	return err
}

// streamWithContext is a stream with another context.
type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWithContext) Context() context.Context { return s.ctx }

// rebalance closes aged connections so that HTTP clients reconnect, perhaps to another replica; once the server is
// about to stop, it closes every connection. Over HTTP/1.1 the response is the last one of the connection (RFC 9112
// §9.6), over HTTP/2 a GOAWAY follows it.
func (p *Ports) rebalance(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		end, ok := r.Context().Value(connectionEnd{}).(time.Time)
		if p.leaving.Load() || ok && time.Now().After(end) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// connectionEnd is the context key of the time at which a connection is too old.
type connectionEnd struct{}

// withConnectionEnd sets when a new connection will be too old. The age varies by a tenth, as that of gRPC connections
// does, so that connections which a restart opened at once do not end at once.
func (p *Ports) withConnectionEnd(ctx context.Context, _ net.Conn) context.Context {
	age := p.config.ConnectionAge
	age += rand.N(age/5+1) - age/10 //nolint:gosec // only spreads load
	return context.WithValue(ctx, connectionEnd{}, time.Now().Add(age))
}
