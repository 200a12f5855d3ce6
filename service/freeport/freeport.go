// Package freeport reserves TCP ports of this machine for servers that tests and tools start.
//
// A server that listens on port 0 needs no reservation. One whose address is part of its configuration, or that restarts at
// the same address, does: a port that was merely free when it was chosen is lost if an outgoing connection of any process
// gets it as its ephemeral port, or a listener on port 0. On Linux, a reserved port is assigned to neither until its release;
// a server that names it listens on it as if there were no reservation, on all addresses or one of them, provided that it
// sets SO_REUSEADDR, as the net package, redis-server, Envoy and the JVM do. On other systems, the port was free when it was
// reserved, and no more.
package freeport

import (
	"net"
	"strconv"
	"testing"
)

// Reserve reserves a port until release is called.
func Reserve() (port int, release func(), err error) { return reserve() }

// New reserves a port until the test ends.
func New(t testing.TB) int {
	t.Helper()
	port, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}

// Address reserves a port until the test ends, and returns it as 127.0.0.1:PORT.
func Address(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(New(t)))
}
