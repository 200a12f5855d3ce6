package limit

import (
	"net"
	"net/netip"
	"strings"
	"sync"
)

// SourceOf gives the address by which one is counted: an IPv4 address as it is, also where it is mapped into IPv6, and of
// an IPv6 address the network of 64 bits, which one host has to itself (RFC 4291 §2.5.4). The zero address stays.
func SourceOf(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	network, _ := addr.Prefix(64) // it fails for none of 128 bits
	return network.Addr()
}

// AddressOf gives the IP address of one end of a connection; the zero address where it has none.
func AddressOf(end net.Addr) netip.Addr {
	var addr netip.Addr
	switch end := end.(type) {
	case nil:
	case *net.TCPAddr:
		addr = end.AddrPort().Addr()
	default:
		addr, _ = parseAddress(end.String())
	}
	return addr.Unmap().WithZone("")
}

// Networks are networks of addresses. Those of IPv4 have IPv4 addresses.
type Networks []netip.Prefix

// Contain reports whether the address is in one of the networks.
func (n Networks) Contain(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, network := range n {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// mostForwarded bounds the addresses that are looked at in what proxies say.
const mostForwarded = 32

// Origin gives the address that a request came from. peer is the other end of the connection, forwarded the values of
// X-Forwarded-For, where each proxy adds at the end whom it got the request from.
//
// Where the peer is one of the networks, which are those of trusted proxies, the last address counts that is none of
// them: what stands left of it was written by the caller, who can write what it likes. What does not parse counts for
// nothing; then it is the peer.
func (n Networks) Origin(peer netip.Addr, forwarded []string) netip.Addr {
	if len(forwarded) == 0 || !n.Contain(peer) {
		return peer
	}
	rest := strings.Join(forwarded, ",")
	for range mostForwarded {
		last := rest
		i := strings.LastIndexByte(rest, ',')
		if i >= 0 {
			rest, last = rest[:i], rest[i+1:]
		}
		addr, ok := parseAddress(strings.TrimSpace(last))
		if !ok {
			return peer
		}
		if i < 0 || !n.Contain(addr) {
			return addr
		}
	}
	return peer
}

// parseAddress reads an address, with a port or without: some proxies add one.
func parseAddress(text string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Unmap().WithZone(""), true
	}
	with, err := netip.ParseAddrPort(text)
	return with.Addr().Unmap().WithZone(""), err == nil
}

// Gauge counts what sources have open at once. It may be used by several goroutines; its zero value is ready.
type Gauge struct {
	mu   sync.Mutex
	open map[netip.Addr]int
}

// Enter reports whether the source may open one more, where it may have so many; zero is no bound. Who may calls
// [Gauge.Leave] when it is closed.
func (g *Gauge) Enter(source netip.Addr, most int) bool {
	source = SourceOf(source)
	g.mu.Lock()
	defer g.mu.Unlock()
	if most > 0 && g.open[source] >= most && source.IsValid() {
		return false
	}
	if g.open == nil {
		g.open = make(map[netip.Addr]int)
	}
	g.open[source]++
	return true
}

// Leave says that the source has closed one.
func (g *Gauge) Leave(source netip.Addr) {
	source = SourceOf(source)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open[source]--; g.open[source] <= 0 {
		delete(g.open, source)
	}
}
