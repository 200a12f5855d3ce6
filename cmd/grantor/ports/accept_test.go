package ports_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
)

// dialFrom opens a connection from a loopback address.
func dialFrom(t *testing.T, source, target string) net.Conn {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// serves reports whether the server answers on the connection instead of closing it.
func serves(t *testing.T, conn net.Conn) bool {
	t.Helper()
	if _, err := io.WriteString(conn, "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return false
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is neither served nor closed")
	}
	if err != nil {
		return false
	}
	servetest.ReadBody(t, answer)
	return true
}

func TestConnectionsAreBounded(t *testing.T) {
	const a, b, proxy = "127.0.0.5", "127.0.0.6", "127.0.0.7"
	for name, test := range map[string]struct {
		args []string
		// sources are the sources of the connections, in order; refused are those that are closed at once.
		sources []string
		refused []bool
	}{
		"per source": {
			[]string{"--connections-per-source=2", "--trusted-proxies=127.0.0.7/32"},
			[]string{a, a, a, b, b, b, proxy, proxy, proxy}, []bool{false, false, true, false, false, true, false, false, false},
		},
		"all":      {[]string{"--max-connections=2"}, []string{a, b, proxy}, []bool{false, false, true}},
		"no bound": {[]string{"--max-connections=0", "--connections-per-source=0"}, []string{a, a, a}, []bool{false, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			r := servetest.Dev(t, test.args...)
			target := r.HTTPAddr()
			var conns []net.Conn
			for i, source := range test.sources {
				conns = append(conns, dialFrom(t, source, target))
				if refused := !serves(t, conns[i]); refused != test.refused[i] {
					t.Errorf("connection %d, from %s: refused is %t", i+1, source, refused)
				}
			}
			_ = conns[0].Close()
			must.Eventually(t, "taking another", func() bool {
				conn := dialFrom(t, test.sources[0], target)
				defer func() { _ = conn.Close() }()
				return serves(t, conn)
			})
			_, metrics := servetest.Get(t, "http://"+r.OpsAddr()+"/metrics")
			for _, name := range []string{"grantor_connections_open", "grantor_connections_refused_total"} {
				if !strings.Contains(metrics, name) {
					t.Errorf("there is no metric %s", name)
				}
			}
		})
	}
}

// The operations port has its own bounds.
func TestOperationsAreBounded(t *testing.T) {
	const a, b = "127.0.0.5", "127.0.0.6"
	r := servetest.Dev(t, "--max-connections=1")
	target := r.OpsAddr()
	for range ports.MaxOperationsPerSource {
		if !serves(t, dialFrom(t, a, target)) {
			t.Fatal("a connection within the bounds is refused")
		}
	}
	if serves(t, dialFrom(t, a, target)) {
		t.Errorf("one address has more than %d connections", ports.MaxOperationsPerSource)
	}
	if !serves(t, dialFrom(t, b, target)) {
		t.Error("another address is refused")
	}
}

// A connection of a proxy counts for the source in its header, not for the proxy.
func TestProxiedConnectionsAreBounded(t *testing.T) {
	r := servetest.Dev(t, "--connections-per-source=2", "--trusted-proxies=127.0.0.7/32", "--proxy-protocol")
	open := func(header string) net.Conn {
		conn := dialFrom(t, trustedProxy, r.HTTPAddr())
		_, _ = io.WriteString(conn, header)
		return conn
	}
	other := strings.Replace(header, "203.0.113.9", "203.0.113.10", 1)
	first := open(header)
	if !serves(t, first) || !serves(t, open(header)) || !serves(t, open(other)) {
		t.Fatal("a connection within the bounds is refused")
	}
	if serves(t, open(header)) {
		t.Error("one source has more than 2 connections")
	}
	for range 3 {
		if !serves(t, open("PROXY UNKNOWN\r\n")) {
			t.Error("a connection of the proxy's own is refused")
		}
	}
	_ = first.Close()
	must.Eventually(t, "taking another", func() bool {
		conn := open(header)
		defer func() { _ = conn.Close() }()
		return serves(t, conn)
	})
}

// boundClient may only connect from 203.0.113.0/24.
const boundClient = `
clients:
  - client_id: bound
    client_secret: a-secret-of-the-bound-client
    scopes: [api1]
    allowed_networks: [203.0.113.0/24]
`

// askOn requests a token on a connection and returns the status, or zero if the connection is closed.
func askOn(t *testing.T, conn net.Conn, header http.Header) int {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"bound"}, "client_secret": {"a-secret-of-the-bound-client"}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header.Clone()
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if err := request.Write(conn); err != nil {
		return 0
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return 0
	}
	_ = answer.Body.Close() // a server that could not read a header may reset the connection behind its answer
	return answer.StatusCode
}

const (
	trustedProxy, stranger = "127.0.0.7", "127.0.0.8"
	header                 = "PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n"
)

func TestForwardedFor(t *testing.T) {
	r := servetest.Dev(t, "--apply="+servetest.WriteFile(t, "clients.yaml", boundClient), "--trusted-proxies=127.0.0.7/32,10.0.0.0/8")
	for name, test := range map[string]struct {
		source    string
		forwarded []string
		want      int
	}{
		"from the proxy":              {trustedProxy, []string{"203.0.113.9"}, http.StatusOK},
		"through two proxies":         {trustedProxy, []string{"203.0.113.9, 10.1.2.3"}, http.StatusOK},
		"from elsewhere":              {trustedProxy, []string{"198.51.100.1"}, http.StatusUnauthorized},
		"from elsewhere, with a lie":  {trustedProxy, []string{"203.0.113.9, 198.51.100.1"}, http.StatusUnauthorized},
		"malformed":                   {trustedProxy, []string{"203.0.113.9, x"}, http.StatusUnauthorized},
		"not from the proxy":          {stranger, []string{"203.0.113.9"}, http.StatusUnauthorized},
		"from the proxy without word": {trustedProxy, nil, http.StatusUnauthorized},
	} {
		conn := dialFrom(t, test.source, r.HTTPAddr())
		if got := askOn(t, conn, http.Header{"X-Forwarded-For": test.forwarded}); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

func TestProxyProtocol(t *testing.T) {
	ours := servetest.NewAuthority(t)
	cert, key := ours.WriteLeaf(t, t.TempDir(), 2)
	args := []string{"--apply=" + servetest.WriteFile(t, "clients.yaml", boundClient), "--trusted-proxies=127.0.0.7/32", "--proxy-protocol"}
	plain := servetest.Dev(t, args...)
	secure := servetest.Dev(t, append(args, "--tls-cert-file="+cert, "--tls-key-file="+key)...)
	for name, test := range map[string]struct {
		source, header string
		want           int
	}{
		"from the proxy":                            {trustedProxy, header, http.StatusOK},
		"from the proxy, for another":               {trustedProxy, strings.Replace(header, "203.0.113.9", "198.51.100.1", 1), http.StatusUnauthorized},
		"from the proxy, without a header":          {trustedProxy, "", 0},
		"from the proxy, malformed":                 {trustedProxy, "PROXY nonsense\r\n", 0},
		"directly":                                  {stranger, "", http.StatusUnauthorized},
		"from a stranger with its header":           {stranger, header, http.StatusBadRequest},
		"without an address, as health checks have": {trustedProxy, "PROXY UNKNOWN\r\n", http.StatusUnauthorized},
	} {
		conn := dialFrom(t, test.source, plain.HTTPAddr())
		_, _ = io.WriteString(conn, test.header)
		if got := askOn(t, conn, http.Header{}); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
		conn = dialFrom(t, test.source, secure.HTTPAddr())
		_, _ = io.WriteString(conn, test.header)
		got := askOn(t, tls.Client(conn, &tls.Config{RootCAs: ours.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13}), http.Header{})
		if want := test.want; got != want && (want != http.StatusBadRequest || got != 0) { // its header is no beginning of TLS
			t.Errorf("%s, over TLS: got %d, want %d", name, got, want)
		}
	}
	for sent, want := range map[string]codes.Code{header: codes.OK, strings.Replace(header, ".113.9", ".114.9", 1): codes.Unauthenticated} {
		conn, err := grpc.NewClient("passthrough:///"+plain.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(_ context.Context, address string) (net.Conn, error) {
				conn := dialFrom(t, trustedProxy, address)
				_, err := io.WriteString(conn, sent)
				return conn, err
			}))
		if err != nil {
			t.Fatal(err)
		}
		_, err = grantorv1.NewTokenServiceClient(conn).IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
			GrantType: "client_credentials", ClientId: "bound", ClientSecret: "a-secret-of-the-bound-client",
		})
		if status.Code(err) != want {
			t.Errorf("gRPC with %q: got %v, want %s", sent, err, want)
		}
		_ = conn.Close()
	}
}
