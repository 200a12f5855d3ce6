package attach_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/must"
)

// newCertificate returns a self-signed certificate for 127.0.0.1 and for client authentication.
func newCertificate(uris ...string) tls.Certificate {
	private := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "orders"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{{127, 0, 0, 1}},
	}
	for _, uri := range uris {
		template.URIs = append(template.URIs, must.Get(url.Parse(uri)))
	}
	der := must.Get(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: must.Get(x509.ParseCertificate(der))}
}

// thumbprint returns the hash of the certificate that a peer presented.
func thumbprint(state *tls.ConnectionState) string {
	if state == nil || len(state.PeerCertificates) == 0 {
		return "none"
	}
	hash := sha256.Sum256(state.PeerCertificates[0].Raw)
	return hex.EncodeToString(hash[:4])
}

// certifiedIssuer is an issuer of tokens that are bound to the certificate of the request, and servers that check that.
type certifiedIssuer struct {
	url    string
	client *http.Client // trusts the issuer and the servers
	roots  *x509.CertPool
	server tls.Certificate

	mu      sync.Mutex
	forms   []url.Values
	down    bool
	expired map[string]bool // certificates with which no more tokens are issued, by thumbprint
	// lifetime of the tokens, in seconds.
	lifetime int
}

func newCertifiedIssuer(t *testing.T) *certifiedIssuer {
	t.Helper()
	i := &certifiedIssuer{server: newCertificate(), roots: x509.NewCertPool(), expired: make(map[string]bool), lifetime: 3600}
	i.roots.AddCert(i.server.Leaf)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: i.roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	i.client = &http.Client{Transport: transport}
	i.url = i.serve(t, i.answer).URL
	return i
}

func (i *certifiedIssuer) config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{i.server}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
}

func (i *certifiedIssuer) serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = i.config()
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func (i *certifiedIssuer) answer(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = r.ParseForm()
	i.forms = append(i.forms, r.PostForm)
	hash := thumbprint(r.TLS)
	switch {
	case i.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case i.expired[hash]:
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprint(w, `{"error":"invalid_client"}`)
	default:
		_, _ = fmt.Fprintf(w, `{"access_token":"%s.%d","token_type":"Bearer","expires_in":%d}`, hash, len(i.forms), i.lifetime)
	}
}

func (i *certifiedIssuer) change(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

// check reports whether a token is bound to the certificate of a connection.
func check(header string, state *tls.ConnectionState) bool {
	bound, _, _ := strings.Cut(strings.TrimPrefix(header, "Bearer "), ".")
	return bound == thumbprint(state)
}

// guarded is a gRPC server that refuses tokens that are bound to another certificate than the connection's.
func (i *certifiedIssuer) guarded(t *testing.T) (target string, wrong *atomic.Int64) {
	t.Helper()
	wrong = new(atomic.Int64)
	verify := func(ctx context.Context) error {
		p, _ := peer.FromContext(ctx)
		info, _ := p.AuthInfo.(credentials.TLSInfo)
		if check(strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ","), &info.State) {
			return nil
		}
		wrong.Add(1)
		return status.Error(codes.Unauthenticated, "bound to another certificate")
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(i.config())),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := verify(ctx); err != nil {
				return nil, err
			}
			return handler(ctx, request)
		}),
		grpc.StreamInterceptor(func(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := verify(stream.Context()); err != nil {
				return err
			}
			return handler(service, stream)
		}))
	testgrpc.RegisterTestServiceServer(server, &orders{})
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return listener.Addr().String(), wrong
}

// dial returns a client of the server, whose calls carry the source's tokens.
func (i *certifiedIssuer) dial(t *testing.T, target string, source *attach.Source) testgrpc.TestServiceClient {
	t.Helper()
	security := attach.TransportCredentials(source, &tls.Config{RootCAs: i.roots, MinVersion: tls.VersionTLS12})
	return testgrpc.NewTestServiceClient(dial(t, target, attach.DialOptions(source, grpc.WithTransportCredentials(security))...))
}

// callBoth makes a unary call and a stream.
func callBoth(t *testing.T, client testgrpc.TestServiceClient) {
	t.Helper()
	_, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{Payload: hello})
	must.Succeed(t, err)
	stream, err := client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{Payload: hello})
	must.Succeed(t, err)
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatalf("the stream ended with %v", err)
	}
}

// rotating is a certificate that can be replaced.
type rotating struct {
	current atomic.Pointer[tls.Certificate]
}

func newRotating() *rotating {
	r := &rotating{}
	r.rotate()
	return r
}

func (r *rotating) rotate() *tls.Certificate {
	next := newCertificate()
	r.current.Store(&next)
	return &next
}

func (r *rotating) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return r.current.Load(), nil
}

func hashOf(c *tls.Certificate) string {
	hash := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(hash[:4])
}

// A request with a certificate has the client's ID alone, on a connection that presents the certificate.
func TestCertificate(t *testing.T) {
	issuer := newCertifiedIssuer(t)
	own := newCertificate()
	spiffe := newCertificate("spiffe://prod.example.com/shop/orders")
	path := filepath.Join(t.TempDir(), "both.pem")
	writeCertificate(t, path, own)
	for name, test := range map[string]struct {
		id     string
		option attach.Option
		want   string
		hash   string
	}{
		"given":     {"orders", attach.Certificate(own), "orders", hashOf(&own)},
		"files":     {"orders", attach.CertificateFiles(path, path), "orders", hashOf(&own)},
		"SPIFFE ID": {"", attach.Certificate(spiffe), "spiffe://prod.example.com/shop/orders", hashOf(&spiffe)},
	} {
		t.Run(name, func(t *testing.T) {
			issuer.change(func() { issuer.forms = nil })
			source := attach.ClientCredentials("ignored", test.id, "", test.option, attach.TokenURL(issuer.url), attach.HTTPClient(issuer.client))
			if got := accessToken(t, source); got != test.hash+".1" {
				t.Errorf("got the token %q, want one for %s", got, test.hash)
			}
			want := url.Values{"grant_type": {"client_credentials"}, "client_id": {test.want}}.Encode()
			if got := issuer.forms[0].Encode(); got != want {
				t.Errorf("got the form %s, want %s", got, want)
			}
		})
	}
}

// writeCertificate writes a certificate and its key to one file.
func writeCertificate(t *testing.T, path string, c tls.Certificate) {
	t.Helper()
	var text bytes.Buffer
	must.Succeed(t, pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
	must.Succeed(t, pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: must.Get(x509.MarshalPKCS8PrivateKey(c.PrivateKey))}))
	must.Succeed(t, os.WriteFile(path+".new", text.Bytes(), 0o600))
	must.Succeed(t, os.Rename(path+".new", path))
}

func TestCertificateMistakes(t *testing.T) {
	issuer := newCertifiedIssuer(t)
	own := attach.Certificate(newCertificate())
	dir := t.TempDir()
	must.Succeed(t, os.WriteFile(filepath.Join(dir, "bad"), []byte("c2VjcmV0"), 0o600))
	fails := func(f func() (*tls.Certificate, error)) attach.Option {
		return attach.CertificateFunc(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f() })
	}
	for name, test := range map[string]struct {
		id, secret string
		options    []attach.Option
		want       string
	}{
		"and a secret":      {"orders", "s", []attach.Option{own}, "a certificate and a secret"},
		"and a token":       {"orders", "", []attach.Option{own, attach.TokenFile("x")}, "a certificate and a token in a file"},
		"with a method":     {"orders", "", []attach.Option{own, attach.AuthMethod(attach.ClientSecretPost)}, "AuthMethod"},
		"no client":         {"", "", []attach.Option{own}, "client id is empty"},
		"nil":               {"orders", "", []attach.Option{attach.CertificateFunc(nil)}, "nil"},
		"none":              {"orders", "", []attach.Option{fails(func() (*tls.Certificate, error) { return nil, nil })}, "no certificate"},
		"fails":             {"orders", "", []attach.Option{fails(func() (*tls.Certificate, error) { return nil, errors.New("no slot") })}, "no slot"},
		"panics":            {"orders", "", []attach.Option{fails(func() (*tls.Certificate, error) { panic("hidden") })}, "panicked"},
		"no file":           {"orders", "", []attach.Option{attach.CertificateFiles("/nonexistent/c", "/nonexistent/k")}, "/nonexistent/c"},
		"no PEM":            {"orders", "", []attach.Option{attach.CertificateFiles(filepath.Join(dir, "bad"), filepath.Join(dir, "bad"))}, "bad"},
		"another transport": {"orders", "", []attach.Option{own, attach.HTTPClient(&http.Client{Transport: http.NewFileTransport(http.Dir("."))})}, "HTTPClient"},
	} {
		t.Run(name, func(t *testing.T) {
			options := append([]attach.Option{attach.TokenURL(issuer.url), attach.HTTPClient(issuer.client)}, test.options...)
			_, err := attach.ClientCredentials("", test.id, test.secret, options...).Token()
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

// While the certificate changes, no call over HTTP fails, on whatever connection it is.
func TestCertificateRotationHTTP(t *testing.T) {
	issuer, own := newCertifiedIssuer(t), newRotating()
	var wrong atomic.Int64
	server := issuer.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !check(r.Header.Get("Authorization"), r.TLS) {
			wrong.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	source := attach.ClientCredentials("", "orders", "", attach.CertificateFunc(own.get), attach.TokenURL(issuer.url), attach.HTTPClient(issuer.client))
	client := &http.Client{Transport: source.Transport(issuer.client.Transport)}
	call := func() {
		answer, err := client.Post(server.URL, "text/plain", strings.NewReader("x"))
		must.Succeed(t, err)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("got %s", answer.Status)
		}
	}
	call()
	next := own.rotate()
	issuer.change(func() { issuer.down = true })
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		call() // with the earlier certificate, because there is no token for the new one
	}
	issuer.change(func() { issuer.down = false })
	must.Eventually(t, "a token for the new certificate", func() bool { call(); return strings.HasPrefix(accessToken(t, source), hashOf(next)) })
	for range 20 {
		call()
	}
	if wrong.Load() != 0 {
		t.Errorf("%d requests had a token for another certificate than their connection's", wrong.Load())
	}
}

// Calls on a gRPC connection carry the token for the certificate that the connection presented, however long it lives, and
// those on a new connection the new one.
func TestCertificateRotationGRPC(t *testing.T) {
	issuer, own := newCertifiedIssuer(t), newRotating()
	target, wrong := issuer.guarded(t)
	source := attach.ClientCredentials("", "orders", "", attach.CertificateFunc(own.get), attach.TokenURL(issuer.url), attach.HTTPClient(issuer.client))
	old := issuer.dial(t, target, source)
	callBoth(t, old)
	next := own.rotate()
	must.Eventually(t, "a token for the new certificate", func() bool { callBoth(t, old); return strings.HasPrefix(accessToken(t, source), hashOf(next)) })
	renewed := issuer.dial(t, target, source)
	for range 10 {
		callBoth(t, old)
		callBoth(t, renewed)
	}
	if wrong.Load() != 0 {
		t.Errorf("%d calls had a token for another certificate than their connection's", wrong.Load())
	}
}

// A connection that outlives its certificate and the last token for it is replaced, and the calls go on.
func TestCertificateEndedConnection(t *testing.T) {
	issuer, own := newCertifiedIssuer(t), newRotating()
	issuer.lifetime = 2
	target, wrong := issuer.guarded(t)
	first := own.current.Load()
	source := attach.ClientCredentials("", "orders", "", attach.CertificateFunc(own.get), attach.TokenURL(issuer.url), attach.HTTPClient(issuer.client))
	client := issuer.dial(t, target, source)
	callBoth(t, client)
	next := own.rotate()
	issuer.change(func() { issuer.expired[hashOf(first)] = true })
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		callBoth(t, client)
	}
	if got := accessToken(t, source); !strings.HasPrefix(got, hashOf(next)) {
		t.Errorf("got %s, want a token for %s", got, hashOf(next))
	}
	if wrong.Load() != 0 {
		t.Errorf("%d calls had a token for another certificate than their connection's", wrong.Load())
	}
}

// A program that slept past the end of its certificate uses the new one at once.
func TestCertificateAfterSleep(t *testing.T) {
	issuer, own := newCertifiedIssuer(t), newRotating()
	issuer.lifetime = 1
	source := attach.ClientCredentials("", "orders", "", attach.CertificateFunc(own.get), attach.TokenURL(issuer.url), attach.HTTPClient(issuer.client))
	first := own.current.Load()
	if got := accessToken(t, source); !strings.HasPrefix(got, hashOf(first)) {
		t.Fatalf("got %s", got)
	}
	issuer.change(func() { issuer.expired[hashOf(first)] = true })
	next := own.rotate()
	<-time.After(1100 * time.Millisecond)
	if got := accessToken(t, source); !strings.HasPrefix(got, hashOf(next)) {
		t.Errorf("got %s, want a token for %s", got, hashOf(next))
	}
}

// Files that are replaced one after the other never belong together in between.
func TestCertificateFilesReplaced(t *testing.T) {
	issuer := newCertifiedIssuer(t)
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	first, next := newCertificate(), newCertificate()
	writeCertificate(t, certificate, first)
	writeCertificate(t, key, first)
	source := attach.ClientCredentials("", "orders", "", attach.CertificateFiles(certificate, key), attach.TokenURL(issuer.url), attach.HTTPClient(issuer.client))
	accessToken(t, source)
	must.Succeed(t, os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: next.Certificate[0]}), 0o600))
	for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got := accessToken(t, source); !strings.HasPrefix(got, hashOf(&first)) {
			t.Fatalf("got %s", got)
		}
	}
	writeCertificate(t, key, next)
	must.Eventually(t, "a token for the new certificate", func() bool { return strings.HasPrefix(accessToken(t, source), hashOf(&next)) })
}

// Over gRPC the connection is the program's, and the request has the client's ID alone.
func TestCertificateOverGRPC(t *testing.T) {
	g := &grantor{}
	source := attach.ClientCredentials("", "orders", "", attach.Certificate(newCertificate()), attach.OverGRPC(tokenService(t, g)))
	accessToken(t, source)
	if g.got.GetClientId() != "orders" || g.got.GetClientSecret() != "" || g.got.GetClientAssertion() != "" {
		t.Errorf("got the request %v, want client_id alone", g.got)
	}
}
