package ports_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

// newH2C returns a client that speaks HTTP/2 in plaintext without asking first.
func newH2C(t *testing.T) *http.Client {
	t.Helper()
	transport := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestH2C calls the REST port by HTTP/2 in plaintext: with the setting it answers, and HTTP/1.1 as before; without it the
// connection ends.
func TestH2C(t *testing.T) {
	on, off := servetest.Dev(t, "--http-h2c"), servetest.Dev(t)
	answer, err := newH2C(t).Get(on.URL("/.well-known/jwks.json"))
	must.Succeed(t, err)
	if servetest.ReadBody(t, answer); answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
		t.Errorf("got %s over %s, want 200 over HTTP/2", answer.Status, answer.Proto)
	}
	if answer, err := newH2C(t).Get(off.URL("/.well-known/jwks.json")); err == nil {
		t.Errorf("without the setting: got %s over %s", answer.Status, answer.Proto)
		_ = answer.Body.Close()
	}
	if answer, err := newH2C(t).Get("http://" + on.OpsAddr() + "/healthz"); err == nil {
		t.Errorf("the operations port: got %s over %s", answer.Status, answer.Proto)
		_ = answer.Body.Close()
	}
	on.Token(t)
	for _, client := range []*http.Client{newH2C(t), http.DefaultClient} {
		head := must.Get(client.Head(on.URL("/.well-known/jwks.json")))
		if servetest.ReadBody(t, head); head.StatusCode != http.StatusOK || head.ContentLength <= 0 {
			t.Errorf("HEAD over %s: got %s with %d bytes, want those of GET", head.Proto, head.Status, head.ContentLength)
		}
	}
	// A server may ignore an upgrade (RFC 9110 §7.8), which RFC 9113 has removed.
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, on.URL("/.well-known/jwks.json"), http.NoBody))
	request.Header = http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABkAAQAAP__"}}
	answer, err = http.DefaultClient.Do(request)
	must.Succeed(t, err)
	if servetest.ReadBody(t, answer); answer.StatusCode != http.StatusOK || answer.ProtoMajor != 1 {
		t.Errorf("an upgrade: got %s over %s, want 200 over HTTP/1.1", answer.Status, answer.Proto)
	}
}

// TestH2CWithTLS expects an error at the start: with TLS, the port negotiates HTTP/2.
func TestH2CWithTLS(t *testing.T) {
	cert, key := servetest.NewAuthority(t).WriteLeaf(t, t.TempDir(), 2)
	_, err := servetest.Try(t, "--dev", "--http-h2c", "--tls-cert-file="+cert, "--tls-key-file="+key)
	if err == nil || !strings.HasPrefix(err.Error(), "http-h2c: ") {
		t.Errorf("got %v, want an error that names http-h2c", err)
	}
}

// TestHTTP2Settings reads what the server announces to a connection, in plaintext as with TLS.
func TestHTTP2Settings(t *testing.T) {
	authority := servetest.NewAuthority(t)
	cert, key := authority.WriteLeaf(t, t.TempDir(), 2)
	plain, secure := servetest.Dev(t, "--http-h2c"), servetest.Dev(t, "--tls-cert-file="+cert, "--tls-key-file="+key)
	config := &tls.Config{RootCAs: authority.Pool(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	for name, conn := range map[string]net.Conn{
		"plaintext": must.Get(net.Dial("tcp", plain.HTTPAddr())), "TLS": must.Get(tls.Dial("tcp", secure.HTTPAddr(), config)),
	} {
		t.Cleanup(func() { _ = conn.Close() })
		must.Succeed(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		must.Get(io.WriteString(conn, http2.ClientPreface))
		framer := http2.NewFramer(conn, conn)
		must.Succeed(t, framer.WriteSettings())
		settings, ok := must.Get(framer.ReadFrame()).(*http2.SettingsFrame)
		if !ok {
			t.Fatalf("%s: the first frame is no SETTINGS", name)
		}
		for id, want := range map[http2.SettingID]uint32{
			http2.SettingMaxConcurrentStreams: 100, http2.SettingMaxFrameSize: 16 << 10, http2.SettingInitialWindowSize: 64 << 10,
		} {
			if got, ok := settings.Value(id); !ok || got != want {
				t.Errorf("%s: got %s %d, want %d", name, id, got, want)
			}
		}
	}
}

// TestH2CBounds expects the bounds of connections and times to hold for HTTP/2 in plaintext.
func TestH2CBounds(t *testing.T) {
	r := servetest.Dev(t, "--http-h2c", "--connections-per-source=2", "--http-idle-timeout=1s")
	open := func() (net.Conn, bool) {
		conn := dialFrom(t, "127.0.0.5", r.HTTPAddr())
		_, _ = io.WriteString(conn, http2.ClientPreface)
		framer := http2.NewFramer(conn, conn)
		_ = framer.WriteSettings()
		_, err := framer.ReadFrame()
		return conn, err == nil
	}
	first, ok := open()
	if _, second := open(); !ok || !second {
		t.Fatal("a connection within the bounds is refused")
	}
	if _, third := open(); third {
		t.Error("one source has more than 2 connections")
	}
	began := time.Now()
	_, _ = io.Copy(io.Discard, first) // until the server ends it
	if idle := time.Since(began); idle > 10*time.Second {
		t.Errorf("an idle connection ended after %s, want 1s", idle)
	}
	// Half a preface gets no more time than half a header.
	half := dialFrom(t, "127.0.0.6", r.HTTPAddr())
	must.Get(io.WriteString(half, http2.ClientPreface[:15]))
	began = time.Now()
	_, _ = io.Copy(io.Discard, half)
	if waited := time.Since(began); waited < time.Second || waited > 15*time.Second {
		t.Errorf("half a preface ended the connection after %s, want 5s", waited)
	}
}

// TestH2CBehindProxy connects as a proxy that sends a PROXY protocol header first.
func TestH2CBehindProxy(t *testing.T) {
	r := servetest.Dev(t, "--http-h2c", "--trusted-proxies=127.0.0.7/32", "--proxy-protocol", "--apply="+servetest.WriteFile(t, "clients.yaml", boundClient))
	for sent, want := range map[string]int{header: http.StatusOK, strings.Replace(header, ".113.9", ".114.9", 1): http.StatusUnauthorized} {
		conn := dialFrom(t, trustedProxy, r.HTTPAddr())
		must.Get(io.WriteString(conn, sent))
		client := must.Get((&http2.Transport{AllowHTTP: true}).NewClientConn(conn))
		form := "grant_type=client_credentials&client_id=bound&client_secret=a-secret-of-the-bound-client"
		request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL("/connect/token"), strings.NewReader(form)))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer := must.Get(client.RoundTrip(request))
		if text := servetest.ReadBody(t, answer); answer.StatusCode != want {
			t.Errorf("%q: got %s %s, want %d", sent, answer.Status, text, want)
		}
	}
}

// TestH2CDrain expects a stopping server to answer a call in flight, and to end a connection with GOAWAY.
func TestH2CDrain(t *testing.T) {
	r := servetest.Dev(t, "--http-h2c")
	client := newH2C(t)
	servetest.ReadBody(t, must.Get(client.Get(r.URL("/.well-known/jwks.json"))))
	body, half := io.Pipe()
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL("/connect/token"), body))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answered := make(chan *http.Response, 1)
	go func() {
		defer close(answered)
		answer, err := client.Do(request)
		if err != nil {
			t.Logf("the call in flight: %v", err)
			return
		}
		answered <- answer
	}()
	must.Get(io.WriteString(half, "grant_type=client_credentials&client_id=background-service&"))
	const arrives = 200 * time.Millisecond
	time.Sleep(arrives)
	r.Stop()
	time.Sleep(arrives)
	_, _ = io.WriteString(half, "client_secret=service-secret-here")
	_ = half.Close()
	answer := <-answered
	if answer == nil {
		t.Fatal("the call in flight failed")
	}
	if text := servetest.ReadBody(t, answer); answer.StatusCode != http.StatusOK {
		t.Errorf("got %s %s, want a token", answer.Status, text)
	}
	<-r.Ended
}

// TestIdleTimeout leaves connections of HTTP/1.1 idle: each ends after the time of the setting, and not before.
func TestIdleTimeout(t *testing.T) {
	r := servetest.Dev(t, "--http-idle-timeout=2s")
	conn := dialFrom(t, "127.0.0.5", r.HTTPAddr())
	reader := bufio.NewReader(conn)
	for range 2 { // the second request is on a connection that was idle
		must.Get(io.WriteString(conn, "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n"))
		answer := must.Get(http.ReadResponse(reader, nil))
		servetest.ReadBody(t, answer)
		if answer.Close {
			t.Error("the server ends the connection with the answer")
		}
		time.Sleep(time.Second)
	}
	began := time.Now()
	if _, err := reader.ReadByte(); err == nil {
		t.Error("got a byte without a request")
	}
	if waited := time.Since(began); waited > 10*time.Second {
		t.Errorf("an idle connection ended after another %s, want 1s", waited)
	}
}
