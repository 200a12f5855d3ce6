// Package remoteaddr determines the address that a request originates from, and the key that limits count it by.
//
// It depends on the standard library alone, so that the domain can name networks without knowing a transport. The
// middleware, which knows it, puts the address into the context of a request with [NewContext].
package remoteaddr

import (
	"net"
	"net/netip"
	"strings"
)

// RateLimitKey returns the address that requests from addr are counted by. That is an IPv4 address itself, also where it
// is mapped into IPv6, and the /64 network of an IPv6 address, all of which one host usually controls (RFC 4291 §2.5.4).
// The key of the zero Addr is the zero Addr.
func RateLimitKey(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	network, _ := addr.Prefix(64) // cannot fail for 64 of 128 bits
	return network.Addr()
}

// Parse returns the IP address of one end of a connection, or the zero Addr if it has none.
func Parse(end net.Addr) netip.Addr {
	var addr netip.Addr
	switch end := end.(type) {
	case nil:
	case *net.TCPAddr:
		addr = end.AddrPort().Addr()
	case *textAddr:
		return end.ip
	default:
		return ParseString(end.String())
	}
	return addr.Unmap().WithZone("")
}

// textAddr is one end of a TCP connection, in the form of [net/http.Request.RemoteAddr], host:port, and its IP address.
type textAddr struct {
	text string
	ip   netip.Addr
}

// FromText returns the end of a TCP connection whose address is text. [Parse] need not parse it each time.
func FromText(text string) net.Addr {
	if addr, err := netip.ParseAddrPort(text); err == nil {
		return &textAddr{text, addr.Addr().Unmap().WithZone("")}
	}
	return &textAddr{text, ParseString(text)}
}

// Network implements [net.Addr].
func (*textAddr) Network() string { return "tcp" }

// String implements [net.Addr].
func (a *textAddr) String() string { return a.text }

// ParseString returns the IP address in text, which may have a port, or the zero Addr if there is none.
func ParseString(text string) netip.Addr {
	addr, _ := parseText(text)
	return addr
}

// Networks is a set of networks. IPv4 networks are held with IPv4 addresses, never mapped into IPv6.
type Networks []netip.Prefix

// Contain reports whether one of the networks contains addr.
func (n Networks) Contain(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, network := range n {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// maxForwarded is the maximum number of addresses that Origin considers in X-Forwarded-For.
const maxForwarded = 32

// Origin returns the address that a request originates from, given the peer of its connection and the values of its
// X-Forwarded-For headers. The networks are those of trusted proxies, each of which appends the address that it received
// the request from.
//
// If peer is a trusted proxy, the origin is the last address that is not one: everything to the left of it was written by
// the caller, who can write anything. If an address on the way does not parse, the origin is peer.
func (n Networks) Origin(peer netip.Addr, forwarded []string) netip.Addr {
	if len(forwarded) == 0 || !n.Contain(peer) {
		return peer
	}
	rest := strings.Join(forwarded, ",")
	for range maxForwarded {
		last := rest
		i := strings.LastIndexByte(rest, ',')
		if i >= 0 {
			rest, last = rest[:i], rest[i+1:]
		}
		addr, ok := parseText(strings.Trim(last, " \t"))
		if !ok {
			return peer
		}
		if i < 0 || !n.Contain(addr) {
			return addr
		}
	}
	return peer
}

// parseText parses an address with or without a port: some proxies append one.
func parseText(text string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Unmap().WithZone(""), true
	}
	addrPort, err := netip.ParseAddrPort(text)
	return addrPort.Addr().Unmap().WithZone(""), err == nil
}
