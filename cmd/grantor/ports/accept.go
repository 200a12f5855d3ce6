package ports

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// proxyHeaderTimeout bounds the time in which a proxy must send the PROXY protocol header.
const proxyHeaderTimeout = 5 * time.Second

// connections bounds the open connections, in total and per source address.
type connections struct {
	// max and maxPerSource are the bounds; zero is no bound.
	max, maxPerSource int
	// proxies carry connections of many sources, so the bound per source does not apply to them.
	proxies remoteaddr.Networks
	// protocol reports whether the proxies send a PROXY protocol header.
	protocol bool

	sources       limit.Concurrency
	open, refused atomic.Int64
}

// The bounds of the operations port. They are separate, so that clients cannot keep monitoring out.
const (
	maxOperations          = 200
	maxOperationsPerSource = 50
)

// ConnectionLimits bounds the connections to the HTTP and gRPC ports. Zero is no bound.
type ConnectionLimits struct {
	Max, MaxPerSource int
	// Proxies are the trusted proxies, which carry connections of many sources.
	Proxies remoteaddr.Networks
	// ProxyProtocol reports whether the proxies begin their connections with a PROXY protocol header.
	ProxyProtocol bool
}

func newConnections(l ConnectionLimits) *connections {
	return &connections{max: l.Max, maxPerSource: l.MaxPerSource, proxies: l.Proxies, protocol: l.ProxyProtocol}
}

// bound returns a listener that closes connections beyond the bounds at once, and reads the headers of proxies.
func (c *connections) bound(l net.Listener) net.Listener {
	if tcp, ok := l.(*net.TCPListener); ok {
		l = &boundedListener{tcp, c}
	}
	if !c.protocol {
		return l
	}
	return &sourceListener{&proxyproto.Listener{
		Listener: l, ReadHeaderTimeout: proxyHeaderTimeout,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if c.proxies.Contain(remoteaddr.Parse(o.Upstream)) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil // a header from any other address is neither TLS nor HTTP, and ends the connection
		},
	}, c}
}

// enter counts a connection and reports whether it is within the bounds.
func (c *connections) enter(source netip.Addr) bool {
	maxPerSource := c.maxPerSource
	if c.proxies.Contain(source) {
		maxPerSource = 0
	}
	if open := c.open.Add(1); (c.max > 0 && open > int64(c.max)) || !c.sources.Enter(source, maxPerSource) {
		c.open.Add(-1)
		c.refused.Add(1)
		return false
	}
	return true
}

func (c *connections) leave(source netip.Addr) {
	c.sources.Leave(source)
	c.open.Add(-1)
}

// boundedListener counts the connections that it accepts.
type boundedListener struct {
	*net.TCPListener

	connections *connections
}

// Accept implements [net.Listener].
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		source := remoteaddr.Parse(conn.RemoteAddr())
		if l.connections.enter(source) {
			return &countedConn{TCPConn: conn, leave: sync.OnceFunc(func() { l.connections.leave(source) })}, nil
		}
		_ = conn.Close()
	}
}

// countedConn is counted until it is closed.
type countedConn struct {
	*net.TCPConn

	leave func()
}

// Close implements [net.Conn].
func (c *countedConn) Close() error {
	defer c.leave()
	return c.TCPConn.Close()
}

// sourceListener counts the connections of proxies by the sources that their headers name.
type sourceListener struct {
	net.Listener

	connections *connections
}

// Accept implements [net.Listener].
func (l *sourceListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if _, ok := conn.(*proxyproto.Conn); err != nil || !ok {
		return conn, err
	}
	return &proxiedConn{Conn: conn, connections: l.connections}, nil
}

// proxiedConn is a connection of a proxy. It is counted for the source in its header until it is closed. The first Read
// reads the header, so that Accept does not wait for it.
type proxiedConn struct {
	net.Conn

	connections *connections
	read        sync.Once
	refused     bool

	mu              sync.Mutex
	source          netip.Addr
	entered, closed bool
}

// Read implements [net.Conn]. A connection beyond the bound reads as ended: the server could respond to any other
// error.
func (c *proxiedConn) Read(b []byte) (int, error) {
	c.read.Do(func() { c.refused = !c.enter() })
	if c.refused {
		return 0, io.EOF
	}
	return c.Conn.Read(b)
}

// enter reports whether the source may have the connection. Without a header, or with one of a health check, the source
// is the proxy, which has no bound.
func (c *proxiedConn) enter() bool {
	source := remoteaddr.Parse(c.RemoteAddr())
	if c.connections.proxies.Contain(source) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if !c.connections.sources.Enter(source, c.connections.maxPerSource) {
		c.connections.refused.Add(1)
		return false
	}
	c.source, c.entered = source, true
	return true
}

// Close implements [net.Conn].
func (c *proxiedConn) Close() error {
	c.mu.Lock()
	if c.entered && !c.closed {
		c.connections.sources.Leave(c.source)
	}
	c.closed = true
	c.mu.Unlock()
	return c.Conn.Close()
}
