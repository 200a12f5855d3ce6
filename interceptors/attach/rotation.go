package attach

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// certificateInterval is how often a client's certificate is asked for.
const certificateInterval = time.Second

// rotation makes a Source follow its client's certificate. A token may be bound to the certificate with which it was
// requested (RFC 8705 §3), and is refused on a connection that presented another one. Therefore each certificate has a
// source of its own, called a generation, and each connection belongs to the generation whose certificate it presented. A
// generation becomes the current one, for new connections, when it has a token. Earlier ones live until their connections
// end.
type rotation struct {
	certificate func(context.Context) (*tls.Certificate, error)
	// generation returns a source of tokens for the certificate.
	generation func(*tls.Certificate) (*Source, error)

	current atomic.Pointer[Source] // nil before the first certificate
	// began is the start of the time of due, from which on the certificate is asked for again.
	began time.Time
	due   atomic.Int64

	mu     sync.Mutex
	flight *check // the check in flight, or nil

	next *Source // the generation that is to become the current one, or nil; used only by the check in flight
}

// check asks for the certificate once. Its result is set before done is closed.
type check struct {
	done chan struct{}
	err  error
}

// source returns the current generation. While that has a usable token, no caller waits for another one.
func (r *rotation) source(ctx context.Context) (*Source, error) {
	g := r.current.Load()
	if g != nil && int64(time.Since(r.began)) < r.due.Load() {
		return g, nil
	}
	c := r.check()
	if g != nil && g.usable() {
		return g, nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	timeout := time.NewTimer(requestTimeout)
	defer timeout.Stop()
	err := error(unavailable(context.DeadlineExceeded))
	select {
	case <-c.done:
		err = c.err
	case <-timeout.C:
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	if g = r.current.Load(); g != nil { // which may still serve if there is an error
		return g, nil
	}
	return nil, err
}

// check joins or starts a check.
func (r *rotation) check() *check {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight != nil {
		return r.flight
	}
	c := &check{done: make(chan struct{}), err: misuse("the function for the certificate ended its goroutine")}
	r.flight = c
	go func() {
		defer func() {
			r.due.Store(int64(time.Since(r.began) + certificateInterval))
			r.mu.Lock()
			r.flight = nil
			r.mu.Unlock()
			close(c.done)
		}()
		c.err = r.follow()
	}()
	return c
}

// follow makes a generation for the client's present certificate the current one. While the current one has a usable token,
// that waits until the new one has a token too.
func (r *rotation) follow() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	certificate, err := guard("the function for the certificate", func() (*tls.Certificate, error) { return r.certificate(ctx) })
	if err != nil {
		return unavailable(err)
	}
	g := r.current.Load()
	if g != nil && sameCertificate(g.certificate, certificate) {
		r.next = nil
		return nil
	}
	if r.next == nil || !sameCertificate(r.next.certificate, certificate) {
		if r.next, err = r.generation(certificate); err != nil {
			return err
		}
	}
	if g != nil && g.usable() {
		if _, err := r.next.get(ctx); err != nil {
			return err
		}
	}
	r.current.Store(r.next)
	r.next = nil
	if g != nil {
		g.closeIdle()
	}
	return nil
}

// usable reports whether the source has a token that can be sent without waiting for another one.
func (s *Source) usable() bool {
	e := s.cached.Load()
	return e != nil && time.Now().Before(e.sendUntil)
}

// held returns the token that the source has, or nil.
func (s *Source) held() *entry {
	if s.rotation == nil {
		return s.cached.Load()
	}
	if g := s.rotation.current.Load(); g != nil {
		return g.cached.Load()
	}
	return nil
}

// TransportCredentials returns TLS credentials for connections that carry the source's tokens, and that present the
// certificate of a source with [Certificate], [CertificateFunc] or [CertificateFiles] to servers that ask for one. They are
// needed where the servers' certificates are not under the system's authorities; [DialOptions] has them otherwise. A nil
// configuration stands for the default.
//
//	grpc.NewClient("orders.internal:443", attach.DialOptions(source,
//		grpc.WithTransportCredentials(attach.TransportCredentials(source, &tls.Config{RootCAs: roots})))...)
func TransportCredentials(source *Source, config *tls.Config) credentials.TransportCredentials {
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	plain := credentials.NewTLS(config)
	if source == nil || source.rotation == nil {
		return plain
	}
	return &certified{plain, source.rotation, config.Clone()}
}

// certified is the credentials of connections that present a client's certificate.
type certified struct {
	credentials.TransportCredentials

	rotation *rotation
	config   *tls.Config
}

// certifiedInfo is the [credentials.AuthInfo] of a connection, with the generation whose certificate it presented.
type certifiedInfo struct {
	credentials.TLSInfo

	source *Source
	conn   net.Conn
}

// ClientHandshake implements [credentials.TransportCredentials].
func (c *certified) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	generation, err := c.rotation.source(ctx)
	if err != nil {
		return nil, nil, err
	}
	secure, info, err := credentials.NewTLS(presenting(generation.certificate, c.config)).ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	if known, ok := info.(credentials.TLSInfo); ok {
		info = certifiedInfo{known, generation, secure}
	}
	return secure, info, nil
}

// Clone implements [credentials.TransportCredentials].
func (c *certified) Clone() credentials.TransportCredentials {
	return &certified{c.TransportCredentials.Clone(), c.rotation, c.config.Clone()}
}

// chosen is the credential of one call over gRPC for a client with a certificate or with DPoP. The token is that of the
// connection on which the call is sent.
type chosen struct {
	secure bool
	// entry is the token that was sent; before that, the one for a connection that belongs to no generation.
	entry atomic.Pointer[entry]
	// ended reports that the connection's certificate and its last token have ended, so that the call was not sent.
	ended atomic.Bool
	// proven makes the DPoP proofs of the call; nil for a bearer token.
	proven *provenCredential
}

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (c *chosen) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	e, err := forConnection(ctx, c.entry.Load())
	if err != nil {
		c.ended.Store(true)
		return nil, err
	}
	c.entry.Store(e)
	if c.proven != nil {
		return c.proven.prove(ctx, e.token, e.metadata, uri)
	}
	return e.metadata, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (c *chosen) RequireTransportSecurity() bool { return c.secure }

// forConnection returns the token for the connection in ctx, which is e unless the connection belongs to another generation.
// A connection of a generation that gets no token any more is of no use: it is closed, and gRPC makes another one.
func forConnection(ctx context.Context, e *entry) (*entry, error) {
	request, _ := credentials.RequestInfoFromContext(ctx)
	info, ok := request.AuthInfo.(certifiedInfo)
	if !ok || info.source == e.source {
		return e, nil
	}
	own, err := info.source.get(ctx)
	if err != nil && ctx.Err() == nil {
		_ = info.conn.Close()
		return nil, status.Errorf(codes.Unavailable, "attach: the connection presented a certificate for which there is no token any more: %v", err)
	}
	return own, err
}
