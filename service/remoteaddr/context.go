package remoteaddr

import (
	"context"
	"net"
	"net/netip"
)

// Client is the address that a request originates from. The zero Client is an unknown one.
type Client struct{ addr net.Addr }

// String returns the address as audit events name it: with a port, unless a trusted proxy reported the address. It
// returns "" for the zero Client.
func (c Client) String() string {
	switch addr := c.addr.(type) {
	case nil:
		return ""
	case *net.TCPAddr: // as its own method has it, with one allocation instead of four
		if ap := addr.AddrPort(); ap.IsValid() {
			return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
		}
	}
	return c.addr.String()
}

// IP returns the IP address, or the zero Addr if it is unknown or the connection has none.
func (c Client) IP() netip.Addr { return Parse(c.addr) }

// ContextKey is the key of the address in a context. A context of a type of its own answers it with a [net.Addr], or nil.
type ContextKey struct{}

// NewContext returns a context for a request that originates from addr.
func NewContext(ctx context.Context, addr net.Addr) context.Context {
	return context.WithValue(ctx, ContextKey{}, addr)
}

// FromContext returns the client that [NewContext] noted, or the zero Client.
func FromContext(ctx context.Context) Client {
	addr, _ := ctx.Value(ContextKey{}).(net.Addr)
	return Client{addr}
}

// Resolve is like [Networks.Origin] for [net.Addr]: it returns end, or, if end is a trusted proxy that reports another
// address, that address without a port.
func (n Networks) Resolve(end net.Addr, forwarded []string) net.Addr {
	if len(forwarded) == 0 || len(n) == 0 {
		return end
	}
	address := Parse(end)
	origin := n.Origin(address, forwarded)
	if origin == address {
		return end
	}
	return &net.IPAddr{IP: origin.AsSlice()}
}
