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

// Drain stops the server without a failed call. Readiness turns first, over HTTP and gRPC, and for as long as delay
// nothing else changes, so that load balancers and callers learn of it: calls are still taken, and answers over REST
// send their callers to another connection. Then the ports close, HTTP/2 gets a GOAWAY (RFC 9113 §6.8), streams end,
// and calls in flight have until timeout. The operations port goes last, so that whoever asks is told.
func (p *Ports) Drain(delay, timeout time.Duration) error {
	p.Leave()
	<-time.After(delay)
	p.drainNow()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error { return p.httpServer.Shutdown(ctx) })
	group.Go(func() error {
		context.AfterFunc(ctx, p.grpcServer.Stop) // cuts GracefulStop short
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

// Leave tells whoever asks that the server is about to stop.
func (p *Ports) Leave() {
	p.leaving.Store(true)
	p.health.Shutdown()
}

// ErrDrain says that calls in flight did not end in time.
var ErrDrain = errors.New("calls in flight did not end within shutdown-timeout and were cut off")

// endWithServer ends streams when the server stops. They watch something and would never end by themselves. UNAVAILABLE
// tells whoever follows to go on elsewhere.
func (p *Ports) endWithServer(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(p.draining, cancel)()
	err := handler(srv, &endingStream{stream, ctx})
	if err != nil && p.draining.Err() != nil && stream.Context().Err() == nil {
		return status.Error(codes.Unavailable, "The server is stopping.")
	}
	return err
}

// endingStream is a stream with another context.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *endingStream) Context() context.Context { return s.ctx }

// spread sends callers over REST to another connection, and so perhaps to another replica: when theirs has reached its
// age, and when the server is about to stop. Over HTTP/1.1 the answer is the connection's last one (RFC 9112 §9.6),
// over HTTP/2 a GOAWAY follows it.
func (p *Ports) spread(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		end, aging := r.Context().Value(connectionEnd{}).(time.Time)
		if p.leaving.Load() || aging && time.Now().After(end) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// connectionEnd is the key under which a connection's context has the time from which it is too old.
type connectionEnd struct{}

// aging notes when a new connection will be too old: by chance a tenth earlier or later, as of gRPC's, so that those
// which a restart has made at once do not end at once.
func (p *Ports) aging(ctx context.Context, _ net.Conn) context.Context {
	age := p.config.ConnectionAge
	age += rand.N(age/5+1) - age/10 //nolint:gosec // it only spreads load
	return context.WithValue(ctx, connectionEnd{}, time.Now().Add(age))
}
