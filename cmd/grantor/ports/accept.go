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

// proxyHeaderTimeout is how long a proxy may take for the PROXY protocol header.
const proxyHeaderTimeout = 5 * time.Second

// connections bounds those that are open to the ports, together and per source.
type connections struct {
	// most and mostPerSource are the bounds; zero is none.
	most, mostPerSource int
	// proxies carry connections of many sources, and are not bounded as one.
	proxies remoteaddr.Networks
	// protocol says that they begin with a PROXY protocol header.
	protocol bool

	sources       limit.Concurrency
	open, refused atomic.Int64
}

// The bounds of the operations port, which are its own: callers cannot take it away from those who watch the issuer.
const (
	mostOperations          = 200
	mostOperationsPerSource = 50
)

// ConnectionLimits bounds the connections to the ports; zero is no bound.
type ConnectionLimits struct {
	Max, MaxPerSource int
	// Proxies carry connections of many sources.
	Proxies remoteaddr.Networks
	// ProxyProtocol says that they begin with a PROXY protocol header.
	ProxyProtocol bool
}

func newConnections(l ConnectionLimits) *connections {
	return &connections{most: l.Max, mostPerSource: l.MaxPerSource, proxies: l.Proxies, protocol: l.ProxyProtocol}
}

// bound gives a listener that closes what is beyond the bounds at once, and reads the headers of proxies.
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
			return proxyproto.SKIP, nil // a header from anybody else is no beginning of TLS or HTTP, and ends the connection
		},
	}, c}
}

// enter reports whether one more connection may be open.
func (c *connections) enter(source netip.Addr) bool {
	most := c.mostPerSource
	if c.proxies.Contain(source) {
		most = 0
	}
	if open := c.open.Add(1); (c.most > 0 && open > int64(c.most)) || !c.sources.Enter(source, most) {
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

// countedConn is a connection that counts until it is closed.
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

// proxiedConn is the connection of a proxy, which counts for the source in its header until it is closed. The header is
// read when the connection is, not by who accepts it.
type proxiedConn struct {
	net.Conn

	connections *connections
	read        sync.Once
	refused     bool

	mu              sync.Mutex
	source          netip.Addr
	entered, closed bool
}

// Read implements [net.Conn]. To who reads it, a connection beyond the bound has ended: any other error could be answered.
func (c *proxiedConn) Read(b []byte) (int, error) {
	c.read.Do(func() { c.refused = !c.enter() })
	if c.refused {
		return 0, io.EOF
	}
	return c.Conn.Read(b)
}

// enter reports whether the source may have the connection. Without a header, or with one of a health check, the source is
// the proxy, which has no bound.
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
	if !c.connections.sources.Enter(source, c.connections.mostPerSource) {
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
