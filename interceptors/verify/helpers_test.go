package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/must"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

const (
	orders     = "https://orders.internal"
	testIssuer = "https://auth.internal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSigner() *token.Signer {
	return must.Get(token.NewSigner(jwks.ES256, must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))))
}

// issuer is an issuer over HTTP that can go away and come back.
type issuer struct {
	*token.Signer

	url     string
	client  *http.Client
	down    atomic.Bool
	name    string
	grpc    string // the gRPC endpoint, if the issuer has one
	fetches atomic.Int32
}

func newIssuer(t testing.TB) *issuer {
	i := &issuer{Signer: newSigner()}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	i.url, i.name, i.client = server.URL, server.URL, server.Client()
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if i.down.Load() {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	var answer any
	switch r.URL.Path {
	case oauth.WellKnownServer:
		answer = oauth.Metadata{Issuer: i.name, TokenEndpoint: i.url + "/connect/token", JWKSURI: i.url + "/.well-known/jwks.json", GRPCEndpoint: i.grpc}
	case "/.well-known/jwks.json":
		i.fetches.Add(1)
		answer = map[string]any{"keys": []jwks.JWK{must.Get(i.Public().JWK())}}
	default:
		http.NotFound(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// claims are those of a good token; change alters them.
func claims(issuer string, scope string, change ...func(*token.Claims)) *token.Claims {
	now := time.Now().Truncate(time.Second)
	c := &token.Claims{
		Issuer: issuer, Subject: "billing", ClientID: "billing", Audience: []string{orders}, Scope: must.Get(oauth.ParseScopes(scope)),
		IssuedAt: now, ExpiresAt: now.Add(time.Hour), ID: rand.Text(),
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// startVerifier makes a verifier that is closed when the test ends.
func startVerifier(ctx context.Context, t testing.TB, issuer string, options ...verify.Option) *verify.Verifier {
	t.Helper()
	verifier := must.Get(verify.New(ctx, issuer, append([]verify.Option{verify.Audience(orders)}, options...)...))
	t.Cleanup(verifier.Close)
	return verifier
}

// soon gives a context for New where the issuer is away: it need not be waited for.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// newVerifier makes a verifier with a fixed key, which follows no feed and so needs no closing.
func newVerifier(signer *token.Signer, options ...verify.Option) *verify.Verifier {
	options = append([]verify.Option{verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public()))}, options...)
	return must.Get(verify.New(context.Background(), testIssuer, options...))
}

// listen serves on a free port until the test ends and gives a connection to it.
func listen(t testing.TB, server interface {
	Serve(net.Listener) error
	Stop()
},
) *grpc.ClientConn {
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn := dial(t, listener.Addr().String())
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return conn
}

func dial(t testing.TB, address string) *grpc.ClientConn {
	conn := must.Get(grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// sending gives a context that sends the authorization values.
func sending(ctx context.Context, authorization ...string) context.Context {
	md := metadata.MD{}
	md.Append("authorization", authorization...)
	return metadata.NewOutgoingContext(ctx, md)
}

// outcome is an answer as a caller sees it: "OK", or "Code reason challenge".
func outcome(err error, trailer metadata.MD) string {
	if err == nil {
		return "OK"
	}
	s := status.Convert(err)
	text := s.Code().String()
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "grantor" {
			text += " " + info.GetReason()
		}
	}
	for _, challenge := range trailer.Get("www-authenticate") {
		text += " <" + challenge + ">"
	}
	return text
}

// running counts the goroutines that have the text in their stack.
func running(text string) int {
	stacks := make([]byte, 1<<20)
	count := 0
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(stack, text) && !strings.Contains(stack, "testing.tRunner(") {
			count++
		}
	}
	return count
}

// proxy passes connections on, and can cut them all.
type proxy struct {
	address string

	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t testing.TB, target string) *proxy {
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	p := &proxy{address: listener.Addr().String()}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				_ = near.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, near, far)
			p.mu.Unlock()
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				group.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_, _ = way[0].Close(), way[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
		group.Wait()
	})
	return p
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
}
