package freeport_test

import (
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"

	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
)

// TestServersGetTheirPort restarts a server at a reserved port, as the net package listens, while a connection to its
// predecessor is still there.
func TestServersGetTheirPort(t *testing.T) {
	for _, host := range []string{"", "localhost", "127.0.0.1", "0.0.0.0", "[::1]", "[::]"} {
		t.Run(host, func(t *testing.T) {
			address := host + ":" + strconv.Itoa(freeport.New(t))
			if conn, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("got %v, %v before there is a server, want connection refused", conn, err)
			}
			for range 3 {
				listener := must.Get(net.Listen("tcp", address))
				defer func() { _ = listener.Close() }()
				conn := must.Get(net.Dial("tcp", address))
				defer func() { _ = conn.Close() }()
				accepted := must.Get(listener.Accept())
				if second, err := net.Listen("tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
					t.Fatalf("a second server: got %v, %v, want address already in use", second, err)
				}
				must.Succeed(t, listener.Close())
				must.Succeed(t, accepted.Close()) // before the client's side, so that TIME_WAIT is at the server's port
				if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Fatalf("got %v, want EOF", err)
				}
			}
		})
	}
}

// TestReserved limits the ports from which the kernel chooses to the reserved one.
func TestReserved(t *testing.T) {
	there := must.Get(net.Listen("tcp", "localhost:0"))
	defer func() { _ = there.Close() }()
	for _, c := range []struct {
		name string
		want error
		try  func(only func(network, address string, c syscall.RawConn) error) (io.Closer, error)
	}{
		{"connection", syscall.EADDRNOTAVAIL, func(only func(string, string, syscall.RawConn) error) (io.Closer, error) {
			return (&net.Dialer{Control: only}).Dial("tcp", there.Addr().String())
		}},
		{"listener on 127.0.0.1:0", syscall.EADDRINUSE, func(only func(string, string, syscall.RawConn) error) (io.Closer, error) {
			return (&net.ListenConfig{Control: only}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		}},
		{"listener on [::1]:0", syscall.EADDRINUSE, func(only func(string, string, syscall.RawConn) error) (io.Closer, error) {
			return (&net.ListenConfig{Control: only}).Listen(t.Context(), "tcp", "[::1]:0")
		}},
		{"listener on :0", syscall.EADDRINUSE, func(only func(string, string, syscall.RawConn) error) (io.Closer, error) {
			return (&net.ListenConfig{Control: only}).Listen(t.Context(), "tcp", ":0")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, release, err := freeport.Reserve()
			must.Succeed(t, err)
			if closer, err := c.try(only(port)); !errors.Is(err, c.want) {
				t.Errorf("got %v, %v while the port is reserved, want %v", closer, err, c.want)
			}
			release()
			closer, err := c.try(only(port)) // or the above would fail for another reason
			must.Succeed(t, err)
			must.Succeed(t, closer.Close())
		})
	}
}

// only returns a Control function that leaves the kernel one port to choose.
func only(port int) func(network, address string, c syscall.RawConn) error {
	const ipLocalPortRange = 51 // IP_LOCAL_PORT_RANGE of Linux 6.3; the highest port is in the upper half, the lowest in the lower
	return func(_, _ string, c syscall.RawConn) error {
		var setErr error
		err := c.Control(func(fd uintptr) {
			setErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipLocalPortRange, port<<16|port)
		})
		return errors.Join(err, setErr)
	}
}

// TestWithoutReuse documents what a server has to do: one that does not set SO_REUSEADDR does not get the port.
func TestWithoutReuse(t *testing.T) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var setErr error
		err := c.Control(func(fd uintptr) { setErr = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0) })
		return errors.Join(err, setErr)
	}}
	if listener, err := config.Listen(t.Context(), "tcp", freeport.Address(t)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, %v, want address already in use", listener, err)
	}
}
