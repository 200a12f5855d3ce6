package verify_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
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

// issuer is an HTTP issuer that can be taken down and brought back.
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

// claims returns the claims of a valid token, altered by change.
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

// startVerifier returns a verifier that is closed when the test ends.
func startVerifier(ctx context.Context, t testing.TB, issuer string, options ...verify.Option) *verify.Verifier {
	t.Helper()
	verifier := must.Get(verify.New(ctx, issuer, append([]verify.Option{verify.Audience(orders)}, options...)...))
	t.Cleanup(verifier.Close)
	return verifier
}

// shortContext returns a context for New while the issuer is down, so that the test does not wait 5 s.
func shortContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// newVerifier returns a verifier with a fixed key. It follows no feed and need not be closed.
func newVerifier(signer *token.Signer, options ...verify.Option) *verify.Verifier {
	options = append([]verify.Option{verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public()))}, options...)
	return must.Get(verify.New(context.Background(), testIssuer, options...))
}

// listen serves on a free port until the test ends, and returns a connection to it.
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

// outgoing returns a context that sends the Authorization values.
func outgoing(ctx context.Context, authorization ...string) context.Context {
	md := metadata.MD{}
	md.Append("authorization", authorization...)
	return metadata.NewOutgoingContext(ctx, md)
}

// outcome describes a response as the caller sees it: "OK", or "Code reason <challenge>".
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
		if strings.HasPrefix(challenge, "DPoP ") { // the further challenge of each call without a valid token
			continue
		}
		text += " <" + challenge + ">"
	}
	return text
}

// jsonAnswer returns a response with a document.
func jsonAnswer(document any) *http.Response {
	body := io.NopCloser(bytes.NewReader(must.Get(json.Marshal(document))))
	return &http.Response{StatusCode: http.StatusOK, Body: body, Header: http.Header{}}
}

// running returns the number of goroutines whose stack contains the text.
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

// proxy forwards connections, and can cut them all.
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
			for _, direction := range [][2]net.Conn{{near, far}, {far, near}} {
				group.Go(func() {
					_, _ = io.Copy(direction[0], direction[1])
					_, _ = direction[0].Close(), direction[1].Close()
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

// scriptedFeed is a feed without a network, so that it runs in the time of a synctest bubble. Each attempt to follow it
// calls watch, which sends answers and ends the attempt by returning.
type scriptedFeed struct {
	watch func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error

	mu      sync.Mutex
	cursors []string
	times   []time.Time
	// intervals are the heartbeat intervals that were requested, in milliseconds.
	intervals []int32
}

func (s *scriptedFeed) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return status.Error(codes.Unimplemented, "")
}

func (s *scriptedFeed) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &scriptedStream{feed: s, ctx: ctx, answers: make(chan *grantorv1.WatchRevocationsResponse), end: make(chan error, 1)}, nil
}

func (s *scriptedFeed) attempts() ([]string, []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursors, s.times
}

type scriptedStream struct {
	grpc.ClientStream

	feed    *scriptedFeed
	ctx     context.Context
	answers chan *grantorv1.WatchRevocationsResponse
	end     chan error
}

func (s *scriptedStream) SendMsg(m any) error {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.feed.cursors = append(s.feed.cursors, m.(*grantorv1.WatchRevocationsRequest).GetCursor())
	s.feed.times = append(s.feed.times, time.Now())
	s.feed.intervals = append(s.feed.intervals, m.(*grantorv1.WatchRevocationsRequest).GetHeartbeatIntervalMs())
	attempt := len(s.feed.cursors)
	go func() {
		s.end <- s.feed.watch(s.ctx, attempt, func(answer *grantorv1.WatchRevocationsResponse) {
			select {
			case s.answers <- answer:
			case <-s.ctx.Done():
			}
		})
	}()
	return nil
}

func (s *scriptedStream) CloseSend() error { return nil }

func (s *scriptedStream) RecvMsg(m any) error {
	select {
	case answer := <-s.answers:
		proto.Merge(m.(proto.Message), answer)
		return nil
	case err := <-s.end:
		return err
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// sendEverySecond sends answer once a second until the attempt ends or d has passed.
func sendEverySecond(ctx context.Context, send func(*grantorv1.WatchRevocationsResponse), answer *grantorv1.WatchRevocationsResponse, d time.Duration) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	end := time.After(d)
	for {
		send(answer)
		select {
		case <-ticker.C:
		case <-end:
			return status.Error(codes.Unavailable, "gone")
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

const forever = math.MaxInt64

var complete = &grantorv1.WatchRevocationsResponse{Complete: true}

// runInBubble runs a test in a bubble, with a verifier of signer's tokens that follows the feed.
func runInBubble(t *testing.T, s *scriptedFeed, test func(t *testing.T, verifier *verify.Verifier, signer *token.Signer), options ...verify.Option) {
	t.Helper()
	signer := newSigner()
	synctest.Test(t, func(t *testing.T) {
		options = append([]verify.Option{
			verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())), verify.OverGRPC(s),
		}, options...)
		verifier := must.Get(verify.New(t.Context(), testIssuer, options...))
		defer verifier.Close()
		test(t, verifier, signer)
	})
}

// advance advances the bubble's clock.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// statusFor returns the HTTP status of a request with the token.
func statusFor(verifier *verify.Verifier, raw string) int {
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Authorization", "Bearer "+raw)
	return serve(verify.HTTP(verifier, verify.Authenticated())(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), request).StatusCode
}

func revoked(ids ...string) (tokens []*grantorv1.RevokedToken) {
	for _, id := range ids {
		tokens = append(tokens, &grantorv1.RevokedToken{Jti: id, Exp: time.Now().Add(time.Hour).Unix()})
	}
	return tokens
}
