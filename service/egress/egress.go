// Package egress has the HTTP client for URLs that clients and administrators register, such as the jwks_uri of a client.
// Whoever registers one must not get the issuer to send requests into the network behind it (server-side request forgery),
// so the client connects to public addresses only, unless an operator allows more.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

const (
	// timeout bounds one request, its answer included.
	timeout = 5 * time.Second
	// maxHeader is the maximum size of the header of an answer, in bytes.
	maxHeader = 16 << 10
	// maxRequests is the maximum number of requests at once.
	maxRequests = 32
)

// Config configures a client.
type Config struct {
	// Allowed are networks to which the client connects although they are not public.
	Allowed remoteaddr.Networks
	// Roots are the certificate authorities of the servers. Default: those of the system.
	Roots *x509.CertPool
}

// NewClient returns a client that connects to public addresses and to the allowed networks, whatever name was resolved to
// them. It follows no redirect, uses no proxy, and ends each request after 5 seconds. At most 32 requests are made at once;
// others wait for them within their own contexts.
func NewClient(c Config) *http.Client {
	dialer := &net.Dialer{Timeout: timeout, Control: func(_, address string, _ syscall.RawConn) error { return c.check(address) }}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    timeout,
		MaxResponseHeaderBytes: maxHeader,
		// The requests are minutes apart. A connection that stays open would be one that the issuer pays for.
		DisableKeepAlives: true,
	}
	return &http.Client{
		Transport:     &bounded{transport, make(chan struct{}, maxRequests)},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
	}
}

var errRedirect = errors.New("the server redirects, which is not followed")

// check returns an error if no connection may be made to the address, an IP address with a port. It is called after names
// were resolved, so that a name that resolves to another address a moment later does not pass.
func (c Config) check(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("no address: %w", err)
	}
	if addr := to.Addr().Unmap(); !c.Allowed.Contain(addr.WithZone("")) && !public(addr) {
		return fmt.Errorf("%s is not a public address, and not in fetch-networks", addr)
	}
	return nil
}

// reserved are the networks that [netip.Addr] has no method for and that are not public, by the registries of special-purpose
// addresses (RFC 6890). Those that contain the address of an IPv4 host are among them, since that host may be private.
var reserved = remoteaddr.Networks{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("3fff::/20"),
}

// global is the one network of IPv6 from which public addresses are assigned (RFC 4291 §2.4). Others are in use by private
// networks, such as 200::/7, and translate to IPv4, such as ::ffff:0:0:0/96.
var global = netip.MustParsePrefix("2000::/3")

// public reports whether an address is one of the public Internet.
func public(addr netip.Addr) bool {
	return addr.Zone() == "" && addr.IsGlobalUnicast() && !addr.IsPrivate() && (addr.Is4() || global.Contains(addr)) && !reserved.Contain(addr)
}

// bounded bounds the number of requests at once.
type bounded struct {
	http.RoundTripper

	slots chan struct{}
}

// RoundTrip implements [http.RoundTripper].
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case b.slots <- struct{}{}:
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
	// The slot is released with the header of the answer: the body is small, and bounded by the timeout.
	defer func() { <-b.slots }()
	return b.RoundTripper.RoundTrip(r)
}
