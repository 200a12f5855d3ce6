package middleware

import (
	"context"
	"net"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/status"
)

// certificate returns a context whose peer has the certificates of the client of a call. Those of a call over REST are there
// already: the REST handler has resolved them ([Chain.Certificates]).
func (c *Chain) certificate(ctx context.Context) (context.Context, error) {
	if ctx.Value(admittedKey{}) != nil {
		return ctx, nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, nil
	}
	resolved, err := c.certificates.Resolve(p, p.Addr, func(name string) []string { return metadata.ValueFromIncomingContext(ctx, name) })
	switch {
	case err != nil:
		return ctx, status.From(err)
	case resolved == p:
		return ctx, nil
	}
	return peer.NewContext(ctx, resolved), nil
}

// Certificates returns the peer of a request over REST with the certificates of the client that the request comes from. end is
// the other end of its connection, and header returns the values of a header. The error is an [oauth.Error].
func (c *Chain) Certificates(p *peer.Peer, end net.Addr, header func(name string) []string) (*peer.Peer, error) {
	return c.certificates.Resolve(p, end, header)
}
