package main

import (
	"net"
	"sync"
	"testing"
)

// wire is a connection to a port that a test can cut. Its address exists before the server behind it runs.
type wire struct {
	address  string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	target string
	// state is the state of new connections; links are the existing ones.
	state state
	links map[*link]bool
}

type state int

const (
	whole state = iota
	// torn resets connections, as a host does whose process has ended.
	torn
	// silent drops every byte, as a firewall does that has lost its table. A connection that was open then stays dead, even
	// once the wire is whole.
	silent
)

// link is one connection. far is nil if the wire was silent when it was opened.
type link struct {
	near, far net.Conn
	dead      bool
}

func newWire(t testing.TB) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return &wire{address: listener.Addr().String(), listener: listener, links: make(map[*link]bool)}
}

// connect forwards to a port until the test ends. It ends before the server, so that nothing waits for its connections.
func (w *wire) connect(t testing.TB, target string) {
	w.target = target
	w.running.Go(func() {
		for {
			near, err := w.listener.Accept()
			if err != nil {
				return
			}
			w.running.Go(func() { w.accept(near) })
		}
	})
	t.Cleanup(func() {
		_ = w.listener.Close()
		w.become(torn)
		w.running.Wait()
	})
}

// become changes the state of the wire and of its open connections.
func (w *wire) become(s state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	for l := range w.links {
		l.dead = l.dead || s == silent
		if s == torn {
			l.reset()
		}
	}
}

func (l *link) reset() {
	for _, conn := range []net.Conn{l.near, l.far} {
		if conn, ok := conn.(*net.TCPConn); ok {
			_ = conn.SetLinger(0) // makes Close send RST
			_ = conn.Close()
		}
	}
}

// accept serves one connection.
func (w *wire) accept(near net.Conn) {
	l := &link{near: near}
	w.mu.Lock()
	s := w.state
	w.mu.Unlock()
	if s == whole {
		l.far, _ = net.Dial("tcp", w.target)
	}
	w.mu.Lock()
	l.dead = w.state == silent
	refused := w.state == torn || (l.far == nil && !l.dead)
	if refused {
		l.reset()
	} else {
		w.links[l] = true
	}
	w.mu.Unlock()
	if refused {
		return
	}
	var ways sync.WaitGroup
	if l.far != nil {
		ways.Go(func() { w.pass(l, near, l.far) })
	}
	w.pass(l, l.far, near)
	ways.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.links, l)
	l.reset()
}

// pass forwards bytes in one direction. If the link is dead, neither end learns that the other has closed.
func (w *wire) pass(l *link, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		w.mu.Lock()
		dead := l.dead
		w.mu.Unlock()
		if !dead && n > 0 {
			_, _ = to.Write(buffer[:n])
		}
		if err != nil {
			if !dead {
				_ = to.Close()
			}
			return
		}
	}
}
