// Package peercert determines the certificates of the client that a call comes from: those of its connection, or those that a
// proxy which ends TLS forwards in a header (RFC 9440, and the headers of Envoy, nginx and HAProxy). It verifies none of them.
//
// The certificates of a call are those in the [credentials.TLSInfo] of its peer, on both wires. What a proxy forwards takes the
// place of the proxy's own there, so that whatever reads the peer of a call sees its client.
package peercert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// FromContext returns the certificates of the client of a call, its own first; nil if it has none. They are not verified, except
// that the client, or the trusted proxy before it, has proven to have the private key of the first.
func FromContext(ctx context.Context) []*x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil
	}
	return info.State.PeerCertificates
}

// Source determines the certificates of calls. Its zero value knows those of connections alone.
type Source struct {
	// Proxies are the networks of the proxies whose Header counts.
	Proxies remoteaddr.Networks
	// Header is the header in which they forward the certificate of a client; the zero value is none.
	Header Header
}

// Resolve returns p, the peer of a call, with the certificates of the client of the call. end is the other end of the
// connection, and header returns all values of a header of the call. If end is a trusted proxy, the certificates are those in
// the header, and none without it: those of the proxy are not its client's. Without a Header, a trusted proxy is recognized by
// the X-Forwarded-For that it adds. A header of any other sender is ignored. Resolve does not change p.
func (s Source) Resolve(p *peer.Peer, end net.Addr, header func(name string) []string) (*peer.Peer, error) {
	named := s.Header.Name != ""
	if len(s.Proxies) == 0 || !s.Proxies.Contain(remoteaddr.Parse(end)) || !named && len(header("X-Forwarded-For")) == 0 {
		return p, nil
	}
	var chain []*x509.Certificate
	var err error
	if named {
		chain, err = s.Header.parse(header)
	}
	if err != nil {
		return nil, oauth.Errorf(oauth.InvalidRequest, "The client certificate that the proxy forwards is malformed.", "%s: %w", s.Header.Name, err)
	}
	resolved := *p
	info, overTLS := p.AuthInfo.(credentials.TLSInfo)
	if len(chain) == 0 && !overTLS {
		return p, nil
	}
	// A new state, because the handshake of the proxy says nothing of its client.
	info.State = tls.ConnectionState{HandshakeComplete: overTLS, PeerCertificates: chain}
	info.SPIFFEID = nil
	resolved.AuthInfo = info
	return &resolved, nil
}
