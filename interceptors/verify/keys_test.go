package verify_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

func TestNewRefuses(t *testing.T) {
	i := newIssuer(t)
	keys := verify.Keys(jwks.NewSet(i.Public()))
	tests := map[string]struct {
		issuer  string
		options []verify.Option
		want    string
	}{
		"no audience":       {i.url, []verify.Option{keys}, "audience is missing"},
		"empty audience":    {i.url, []verify.Option{keys, verify.Audience(orders, "")}, "audience is missing"},
		"no issuer":         {"", []verify.Option{keys, verify.Audience(orders)}, "issuer is missing"},
		"plain http issuer": {"http://auth.internal", []verify.Option{verify.Audience(orders)}, "neither https nor loopback"},
		"no URL":            {"auth.internal", []verify.Option{verify.Audience(orders)}, "not a URL"},
		"no cache":          {i.url, []verify.Option{keys, verify.Audience(orders), verify.CacheSize(0)}, "cache of 0 tokens"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			verifier, err := verify.New(t.Context(), test.issuer, test.options...)
			if verifier != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v, want an error with %q", verifier, err, test.want)
			}
		})
	}
}

func TestNewOtherIssuer(t *testing.T) {
	i := newIssuer(t)
	i.name = "https://auth.elsewhere"
	_, err := verify.New(t.Context(), i.url, verify.Audience(orders), verify.HTTPClient(i.client))
	if !errors.Is(err, oauth.ErrOtherIssuer) {
		t.Errorf("got %v, want %v", err, oauth.ErrOtherIssuer)
	}
}

// New has fetched the keys when it returns: the first call fetches nothing.
func TestNewFetches(t *testing.T) {
	i := newIssuer(t)
	verifier := startVerifier(t.Context(), t, i.url, verify.HTTPClient(i.client))
	i.down.Store(true)
	server := verify.NewServer(verifier, nil)
	server.RegisterService(protoService, nil)
	conn := listen(t, server)
	bearer := "Bearer " + must.Get(i.Sign(claims(i.url, "orders.read")))
	if got := call(conn, "/test.v1.Proto/Read", false, bearer); got != "OK" {
		t.Errorf("got %s, want OK", got)
	}
	if got := i.fetches.Load(); got != 1 {
		t.Errorf("%d fetches, want 1", got)
	}
}

type clock struct{ offset atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

const unavailable = "Unavailable temporarily_unavailable"

// While the issuer is down, calls fail with UNAVAILABLE. When it is back, they are admitted without a restart.
func TestIssuerAway(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	var now clock
	verifier := startVerifier(shortContext(t), t, i.url, verify.HTTPClient(i.client),
		verify.Now(now.Now), verify.MaxStaleKeys(time.Hour))
	server := verify.NewServer(verifier, nil)
	server.RegisterService(protoService, nil)
	conn := listen(t, server)
	bearer := func() string {
		return "Bearer " + must.Get(i.Sign(claims(i.url, "orders.read", func(c *token.Claims) {
			c.IssuedAt = now.Now()
			c.ExpiresAt = now.Now().Add(4 * time.Hour)
		})))
	}
	old := bearer()
	steps := []struct {
		name   string
		change func()
		token  string
		want   string
	}{
		{"down at the start", func() {}, old, unavailable},
		{"garbage in the meantime", func() {}, "Bearer garbage", refusedToken},
		{"back, but within the minimum interval", func() { i.down.Store(false) }, old, unavailable},
		{"back", func() { now.advance(6 * time.Second) }, old, "OK"},
		{"down again: the last keys are used", func() { i.down.Store(true); now.advance(50 * time.Minute) }, bearer(), "OK"},
		{"down too long, also for a cached token", func() { now.advance(time.Hour) }, old, unavailable},
		{"back again", func() { i.down.Store(false); now.advance(6 * time.Second) }, old, "OK"},
	}
	for _, step := range steps {
		step.change()
		if got := call(conn, "/test.v1.Proto/Read", false, step.token); got != step.want {
			t.Errorf("%s: got %s, want %s", step.name, got, step.want)
		}
	}
}

// A call that waits for the keys ends at its own deadline, and New waits no longer than its context.
func TestIssuerHangs(t *testing.T) {
	release := make(chan struct{})
	client := &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		<-release
		return nil, errors.New("released")
	})}
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	verifier := startVerifier(ctx, t, testIssuer, verify.HTTPClient(client))
	called := false
	handler := verify.HTTP(verifier, verify.Authenticated())(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	request := must.Get(http.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	request.Header.Set("Authorization", "Bearer "+must.Get(newSigner().Sign(claims(testIssuer, ""))))
	answer := serve(handler, request)
	if answer.StatusCode != http.StatusServiceUnavailable || called {
		t.Errorf("got %s, handler called %v, want 503 and no call", answer.Status, called)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// keyService is the part of an issuer that a verifier calls.
type keyService struct {
	grantorv1.UnimplementedTokenServiceServer

	issuer string
	public jwks.Key
	down   atomic.Bool
}

func (s *keyService) GetServerMetadata(context.Context, *grantorv1.GetServerMetadataRequest) (*grantorv1.GetServerMetadataResponse, error) {
	if s.down.Load() {
		return nil, status.Error(codes.Unavailable, "down")
	}
	return &grantorv1.GetServerMetadataResponse{Issuer: s.issuer}, nil
}

func (s *keyService) GetKeySet(context.Context, *grantorv1.GetKeySetRequest) (*grantorv1.GetKeySetResponse, error) {
	k := must.Get(s.public.JWK())
	return &grantorv1.GetKeySetResponse{MaxAge: 60, Keys: []*grantorv1.JsonWebKey{{
		Kty: k.KeyType, Use: k.Use, Alg: k.Algorithm, Kid: k.ID, Crv: k.Curve, X: k.X, Y: k.Y, N: k.N, E: k.E,
	}}}, nil
}

func TestOverGRPC(t *testing.T) {
	signer := newSigner()
	keys := &keyService{issuer: testIssuer, public: signer.Public()}
	issuerServer := grpc.NewServer()
	grantorv1.RegisterTokenServiceServer(issuerServer, keys)
	issuerConn := listen(t, issuerServer)
	if _, err := verify.New(t.Context(), "https://auth.elsewhere", verify.Audience(orders), verify.OverGRPC(issuerConn)); !errors.Is(err, oauth.ErrOtherIssuer) {
		t.Errorf("another issuer: got %v, want %v", err, oauth.ErrOtherIssuer)
	}

	keys.down.Store(true)
	var now clock
	verifier := startVerifier(t.Context(), t, testIssuer, verify.OverGRPC(issuerConn), verify.Now(now.Now))
	server := verify.NewServer(verifier, nil)
	server.RegisterService(protoService, nil)
	conn := listen(t, server)
	bearer := "Bearer " + must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	if got := call(conn, "/test.v1.Proto/Read", false, bearer); got != unavailable {
		t.Errorf("issuer away: got %s, want %s", got, unavailable)
	}
	keys.down.Store(false)
	now.advance(6 * time.Second)
	if got := call(conn, "/test.v1.Proto/Read", false, bearer); got != "OK" {
		t.Errorf("issuer back: got %s, want OK", got)
	}
	if got := call(conn, "/test.v1.Proto/Read", true, "Bearer "+must.Get(newSigner().Sign(claims(testIssuer, "orders.read")))); got != refusedToken {
		t.Errorf("foreign key: got %s, want %s", got, refusedToken)
	}
}

// The options about time reach the verifier.
func TestTimes(t *testing.T) {
	signer := newSigner()
	ahead := must.Get(signer.Sign(claims(testIssuer, "", func(c *token.Claims) { c.IssuedAt = c.IssuedAt.Add(20 * time.Second) })))
	for name, test := range map[string]struct {
		options []verify.Option
		want    int
	}{
		"default leeway": {nil, http.StatusOK},
		"less leeway":    {[]verify.Option{verify.Leeway(10 * time.Second)}, http.StatusUnauthorized},
		"later":          {[]verify.Option{verify.Now(func() time.Time { return time.Now().Add(2 * time.Hour) })}, http.StatusUnauthorized},
	} {
		handler := verify.HTTP(newVerifier(signer, test.options...), verify.Authenticated())(
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		request := must.Get(http.NewRequest(http.MethodGet, "/", nil))
		request.Header.Set("Authorization", "Bearer "+ahead)
		if got := serve(handler, request).StatusCode; got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}
