package verify_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthgrpc "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// bound returns a change that binds a token to a certificate.
func bound(c tls.Certificate) func(*token.Claims) {
	return func(claims *token.Claims) { claims.Confirmation.CertificateThumbprint = certificate.Thumbprint(c.Leaf) }
}

// sign returns a token with the claims.
func sign(signer *token.Signer, change ...func(*token.Claims)) string {
	return must.Get(signer.Sign(claims(testIssuer, "orders.read", change...)))
}

// withMember returns a token that is bound by a member of cnf.
func withMember(signer *token.Signer, member string) string {
	now := time.Now()
	return must.Get(signer.SignUnchecked([]byte(`{"iss":"` + testIssuer + `","sub":"billing","client_id":"billing","aud":"` + orders +
		`","scope":"orders.read","jti":"x","iat":` + unix(now) + `,"exp":` + unix(now.Add(time.Hour)) + `,"cnf":{` + member + `}}`)))
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// mutual are the two sides of connections on which the server asks for certificates and verifies none.
type mutual struct {
	server  *tls.Config
	trusted *x509.CertPool
}

func newMutual() mutual {
	root := certtest.NewAuthority()
	return mutual{
		&tls.Config{Certificates: []tls.Certificate{root.Sign()}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}, root.Pool(),
	}
}

// client returns the settings of a client with the certificates.
func (m mutual) client(certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: m.trusted, ServerName: "localhost", Certificates: certificates, MinVersion: tls.VersionTLS12}
}

// caller calls a guarded server over one of the wires with a client certificate, or none, and returns the outcome, such as "OK"
// or "401".
type caller func(raw string, certificates ...tls.Certificate) string

// overGRPC returns a caller of a gRPC server.
func overGRPC(t *testing.T, m mutual, verifier *verify.Verifier, handle func(verify.Caller)) caller {
	server := grpc.NewServer(append(verify.ServerOptions(verifier, verify.Policy{healthpb.Health_Check_FullMethodName: verify.Scopes("orders.read")}),
		grpc.Creds(credentials.NewTLS(m.server)), grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			got, _ := verify.CallerFrom(ctx)
			handle(got)
			return next(ctx, request)
		}))...)
	healthpb.RegisterHealthServer(server, healthgrpc.NewServer())
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return func(raw string, certificates ...tls.Certificate) string {
		conn := must.Get(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(m.client(certificates...)))))
		defer func() { _ = conn.Close() }()
		var trailer metadata.MD
		_, err := healthpb.NewHealthClient(conn).Check(outgoing(t.Context(), "Bearer "+raw), &healthpb.HealthCheckRequest{}, grpc.Trailer(&trailer))
		return outcome(err, trailer)
	}
}

// overHTTP returns a caller of an HTTP server.
func overHTTP(t *testing.T, m mutual, verifier *verify.Verifier, handle func(verify.Caller)) caller {
	server := httptest.NewUnstartedServer(verify.HTTP(verifier, verify.Scopes("orders.read"))(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, _ := verify.CallerFrom(r.Context())
		handle(got)
	})))
	server.TLS = m.server.Clone()
	server.StartTLS()
	t.Cleanup(server.Close)
	return func(raw string, certificates ...tls.Certificate) string {
		transport := &http.Transport{TLSClientConfig: m.client(certificates...)}
		defer transport.CloseIdleConnections()
		request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody))
		request.Header.Set("Authorization", "Bearer "+raw)
		answer := must.Get(transport.RoundTrip(request))
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode == http.StatusOK {
			return "OK"
		}
		return status.New(map[int]codes.Code{http.StatusUnauthorized: codes.Unauthenticated}[answer.StatusCode], "").Code().String() +
			" invalid_token <" + answer.Header.Get("WWW-Authenticate") + ">"
	}
}

// overCheck returns a caller of a proxy that vouches for client certificates.
func overCheck(t *testing.T, _ mutual, verifier *verify.Verifier, handle func(verify.Caller)) caller {
	return func(raw string, certificates ...tls.Certificate) string {
		request := &verify.Request{Authorization: []string{"Bearer " + raw}, Method: http.MethodGet, Path: "/"}
		if len(certificates) > 0 {
			request.Certificate = certificates[0].Leaf
		}
		caller, refused := verifier.Check(t.Context(), verify.Scopes("orders.read"), request)
		if refused != nil {
			return outcome(refused.GRPCStatus().Err(), metadata.MD{"www-authenticate": refused.Challenges})
		}
		handle(caller)
		return "OK"
	}
}

// TestBoundTokens sends tokens that are bound to a certificate over connections with that one, another one and none, on both
// wires.
func TestBoundTokens(t *testing.T) {
	const refused = `Unauthenticated invalid_token <Bearer error="invalid_token">`
	signer, m := newSigner(), newMutual()
	mine, other := certtest.SelfSigned(), certtest.SelfSigned()
	bearer, toMine := sign(signer), sign(signer, bound(mine))
	var causes []string
	observe := verify.OnRefusal(func(_ context.Context, _ string, err error) { causes = append(causes, verify.Reason(err)) })
	for wire, serve := range map[string]func(*testing.T, mutual, *verify.Verifier, func(verify.Caller)) caller{"gRPC": overGRPC, "HTTP": overHTTP, "Check": overCheck} {
		t.Run(wire, func(t *testing.T) {
			var got verify.Caller
			handle := func(c verify.Caller) { got = c }
			call := serve(t, m, newVerifier(signer, observe), handle)
			strict := serve(t, m, newVerifier(signer, observe, verify.RequireBoundTokens()), handle)
			several := serve(t, m, must.Get(verify.Issuers(newVerifier(signer, observe, verify.RequireBoundTokens()))), handle)
			for name, test := range map[string]struct {
				call  caller
				raw   string
				certs []tls.Certificate
				want  string
				proof verify.Proof
			}{
				"its certificate":             {call, toMine, []tls.Certificate{mine}, "OK", verify.ProofCertificate},
				"no certificate":              {call, toMine, nil, refused, ""},
				"another certificate":         {call, toMine, []tls.Certificate{other}, refused, ""},
				"a bearer token":              {call, bearer, nil, "OK", verify.NoProof},
				"a bearer token, certificate": {call, bearer, []tls.Certificate{mine}, "OK", verify.NoProof},
				"an unknown member":           {call, withMember(signer, `"kid":"x"`), []tls.Certificate{mine}, refused, ""},
				"its and an unknown member":   {call, withMember(signer, `"x5t#S256":"`+certificate.Thumbprint(mine.Leaf)+`","x5t#S512":"x"`), []tls.Certificate{mine}, refused, ""},
				"a key that is not proven":    {call, sign(signer, bound(mine), func(c *token.Claims) { c.Confirmation.KeyThumbprint = "x" }), []tls.Certificate{mine}, refused, ""},
				"a shorter thumbprint":        {call, withMember(signer, `"x5t#S256":"x"`), []tls.Certificate{mine}, refused, ""},
				"required, bound":             {strict, toMine, []tls.Certificate{mine}, "OK", verify.ProofCertificate},
				"required, another":           {strict, toMine, []tls.Certificate{other}, refused, ""},
				"required, bearer":            {strict, bearer, []tls.Certificate{mine}, refused, ""},
				"of several, bound":           {several, toMine, []tls.Certificate{mine}, "OK", verify.ProofCertificate},
				"of several, another":         {several, toMine, []tls.Certificate{other}, refused, ""},
				"of several, bearer":          {several, bearer, nil, refused, ""},
			} {
				for range 2 { // also from the caches
					causes, got = nil, verify.Caller{}
					if outcome := test.call(test.raw, test.certs...); outcome != test.want {
						t.Errorf("%s: got %s, want %s", name, outcome, test.want)
					}
					if test.want == refused && (len(causes) != 1 || causes[0] != "wrong_proof") {
						t.Errorf("%s: observed %q", name, causes)
					}
					if got.Proof != test.proof || (got.Certificate != nil) != (test.proof == verify.ProofCertificate) {
						t.Errorf("%s: the caller has the proof %q and %v", name, got.Proof, got.Certificate)
					}
					if got.Certificate != nil && !got.Certificate.Equal(mine.Leaf) {
						t.Errorf("%s: the caller has another certificate", name)
					}
				}
			}
		})
	}
}

// TestBoundRenewal renews streams whose token is bound: by a token that is bound as well, and by one that is not.
func TestBoundRenewal(t *testing.T) {
	signer, m := newSigner(), newMutual()
	mine, stolen := certtest.SelfSigned(), certtest.SelfSigned()
	verifier := newVerifier(signer)
	server := grpc.NewServer(append(verify.ServerOptions(verifier, verify.Policy{healthpb.Health_Watch_FullMethodName: verify.Scopes("orders.read")}),
		grpc.Creds(credentials.NewTLS(m.server)))...)
	healthpb.RegisterHealthServer(server, healthgrpc.NewServer())
	verify.RegisterStreamRenewal(server, verifier)
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connect := func(certificates ...tls.Certificate) *grpc.ClientConn {
		conn := must.Get(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(m.client(certificates...)))))
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	for name, test := range map[string]struct {
		raw  string
		by   *grpc.ClientConn
		want codes.Code
		ends bool
	}{
		"bound to its certificate": {sign(signer, bound(mine)), connect(mine), codes.OK, false},
		"bound, another sends it":  {sign(signer, bound(mine)), connect(stolen), codes.Unauthenticated, false},
		"a bearer token":           {sign(signer), connect(mine), codes.PermissionDenied, true},
	} {
		id := rand.Text()
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(outgoing(t.Context(), "Bearer "+sign(signer, bound(mine))), "grantor-stream", id))
		stream := must.Get(healthpb.NewHealthClient(connect(mine)).Watch(ctx, &healthpb.HealthCheckRequest{}))
		must.Get(stream.Recv())
		_, err := grantorv1.NewStreamServiceClient(test.by).RenewStream(outgoing(t.Context(), "Bearer "+test.raw), &grantorv1.RenewStreamRequest{Stream: id})
		if got := status.Code(err); got != test.want {
			t.Errorf("%s: got %v", name, err)
		}
		if test.ends {
			if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s: the stream ended with %v", name, err)
			}
		}
		cancel()
	}
}

// overTLS returns the context of a call over a connection with the client certificate.
func overTLS(ctx context.Context, c *x509.Certificate) context.Context {
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}}})
}

// BenchmarkBound guards calls with a token that was seen before, bound to the certificate of the connection and not.
func BenchmarkBound(b *testing.B) {
	signer, mine := newSigner(), certtest.NewAuthority().Sign()
	for _, test := range []struct{ name, raw string }{
		{"seen/floor", newToken(signer)},
		{"seen/grantor", sign(signer, bound(mine), func(c *token.Claims) { c.ID = token.NewID().String() })},
	} {
		b.Run(test.name, func(b *testing.B) {
			benchmarkCalls(b, unaryInterceptor(b, newVerifier(signer)), overTLS(incoming(test.raw), mine.Leaf))
		})
	}
}
