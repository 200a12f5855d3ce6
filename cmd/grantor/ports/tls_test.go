package ports_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// TestTLS calls both ports over TLS, with and without a client certificate, and with and without the requirement of
// one.
func TestTLS(t *testing.T) {
	ours, strangers := servetest.NewAuthority(t), servetest.NewAuthority(t)
	serverCert, serverKey := ours.WriteLeaf(t, t.TempDir(), 2)
	load := func(a *servetest.Authority) []tls.Certificate {
		pair, err := tls.LoadX509KeyPair(a.WriteLeaf(t, t.TempDir(), 3))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{pair}
	}
	clientCA := servetest.WriteFile(t, "ca.pem", string(ours.PEM))
	for _, c := range []struct {
		name   string
		args   []string
		caller []tls.Certificate
		want   bool
	}{
		{"TLS", nil, nil, true},
		{"mutual TLS", []string{"--tls-client-ca-file=" + clientCA}, load(ours), true},
		{"mutual TLS without a certificate", []string{"--tls-client-ca-file=" + clientCA}, nil, false},
		{"mutual TLS with a stranger's certificate", []string{"--tls-client-ca-file=" + clientCA}, load(strangers), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := servetest.Dev(t, append(c.args, "--tls-cert-file="+serverCert, "--tls-key-file="+serverKey)...)
			config := &tls.Config{RootCAs: ours.Pool(), Certificates: c.caller, MinVersion: tls.VersionTLS12}
			if err := servetest.GetKeySet(t, servetest.DialTLS(t, r.GRPCAddr(), config)); (err == nil) != c.want {
				t.Errorf("gRPC: got %v, want success=%t", err, c.want)
			}
			transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			answer, err := (&http.Client{Transport: transport}).Get("https://" + r.HTTPAddr() + "/.well-known/jwks.json")
			if (err == nil) != c.want {
				t.Fatalf("REST: got %v, want success=%t", err, c.want)
			}
			if err == nil {
				servetest.ReadBody(t, answer)
			}
		})
	}
}

// later advances the modification time of a file, like a change in a later second.
func later(t *testing.T, path string, seconds int) {
	t.Helper()
	when := time.Now().Add(time.Duration(seconds) * time.Second)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
}

// TestTLSReloadKeepsConnections changes the certificate between two calls on one connection.
func TestTLSReloadKeepsConnections(t *testing.T) {
	ours := servetest.NewAuthority(t)
	dir := t.TempDir()
	certFile, keyFile := ours.WriteLeaf(t, dir, 2)
	r := servetest.Dev(t, "--tls-cert-file="+certFile, "--tls-key-file="+keyFile)
	handshakes := 0
	config := &tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS12, VerifyConnection: func(tls.ConnectionState) error {
		handshakes++
		return nil
	}}
	conn := servetest.DialTLS(t, r.GRPCAddr(), config)
	for range 2 {
		if err := servetest.GetKeySet(t, conn); err != nil {
			t.Fatal(err)
		}
		ours.WriteLeaf(t, dir, 3)
		later(t, certFile, 1)
	}
	if handshakes != 1 {
		t.Errorf("got %d handshakes, want the one connection to stay", handshakes)
	}
	plain := servetest.Dial(t, r.GRPCAddr())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := grantorv1.NewTokenServiceClient(plain).GetKeySet(ctx, &grantorv1.GetKeySetRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("plaintext to a TLS port: got %v, want %v", err, codes.Unavailable)
	}
}

// TestTLSResumes connects to both ports twice: a client that kept the session needs no full handshake the second time,
// also with a certificate.
func TestTLSResumes(t *testing.T) {
	ours := servetest.NewAuthority(t)
	certFile, keyFile := ours.WriteLeaf(t, t.TempDir(), 2)
	caller, err := tls.LoadX509KeyPair(ours.WriteLeaf(t, t.TempDir(), 3))
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"TLS": nil, "mutual TLS": {"--tls-client-ca-file=" + servetest.WriteFile(t, "ca.pem", string(ours.PEM))}} {
		r := servetest.Dev(t, append(args, "--tls-cert-file="+certFile, "--tls-key-file="+keyFile)...)
		for port, address := range map[string]string{"REST": r.HTTPAddr(), "gRPC": r.GRPCAddr()} {
			config := &tls.Config{
				RootCAs: ours.Pool(), Certificates: []tls.Certificate{caller}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
				ClientSessionCache: tls.NewLRUClientSessionCache(1),
			}
			for _, want := range []bool{false, true} {
				conn, err := tls.Dial("tcp", address, config)
				if err != nil {
					t.Fatal(err)
				}
				// The ticket precedes the first byte of HTTP/2, which the server sends.
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				if got := conn.ConnectionState().DidResume; got != want {
					t.Errorf("%s, %s: resumed %t, want %t", name, port, got, want)
				}
				_ = conn.Close()
			}
		}
	}
}

// BenchmarkTLS connects to a port like that of REST over loopback with TLS 1.3: with a full handshake, and with a
// resumed session.
func BenchmarkTLS(b *testing.B) {
	ours := servetest.NewAuthority(b)
	certFile, keyFile := ours.WriteLeaf(b, b.TempDir(), 2)
	files, err := tlsfiles.New(tlsfiles.Paths{Certificate: tlsfiles.File{Path: certFile}, Key: tlsfiles.File{Path: keyFile}}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	address := greetTLS(b, files.ServerConfig("h2", "http/1.1"))
	for _, way := range []struct {
		name     string
		sessions tls.ClientSessionCache
	}{{"handshake", nil}, {"resumed", tls.NewLRUClientSessionCache(1)}} {
		config := &tls.Config{
			RootCAs: ours.Pool(), MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ClientSessionCache: way.sessions,
		}
		b.Run(way.name, func(b *testing.B) {
			connectTLS(b, address, config) // from here on there is a session
			b.ReportAllocs()
			for b.Loop() {
				if connectTLS(b, address, config) != (way.sessions != nil) {
					b.Fatal("the wrong handshake")
				}
			}
		})
	}
}

// greetTLS sends a byte to each client that connects, until the benchmark ends.
func greetTLS(b *testing.B, config *tls.Config) (address string) {
	b.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		b.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				_, _ = conn.Write([]byte{0})
				_, _ = io.Copy(io.Discard, conn) // until the client has gone
				_ = conn.Close()
			})
		}
	})
	b.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// connectTLS connects and reports whether the session was resumed. It reads the byte of the server, which follows the
// ticket of the next session.
func connectTLS(b *testing.B, address string, config *tls.Config) bool {
	b.Helper()
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	inner := conn.NetConn().(*net.TCPConn)
	_ = inner.SetLinger(0) // otherwise the ports of closed connections would run out
	_ = inner.Close()
	return conn.ConnectionState().DidResume
}
