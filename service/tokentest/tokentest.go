// Package tokentest runs an issuer inside a test: REST and gRPC servers on loopback, an embedded Redis, and a clock
// that the test controls.
//
//	func TestOrders(t *testing.T) {
//		issuer := tokentest.New(t)
//		issuer.AddClient(t, "background-service", "https://orders.internal", "orders.read")
//		verifier, err := verify.New(t.Context(), issuer.URL,
//			verify.Audience("https://orders.internal"), verify.Now(issuer.Now))
//		...
//		token := issuer.Token(t, "background-service", "https://orders.internal", "orders.read")
//		...
//	}
//
// [Issuer.Sign] returns tokens with arbitrary claims, [Issuer.Forge] tokens with a foreign signature. A function that
// takes a [testing.TB] ends the test if it fails.
package tokentest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/rest"
	"github.com/grantorhq/grantor/service/token"
)

// Secret is the secret of every client that [Issuer.AddClient] registers.
const Secret = "tokentest-secret"

// Issuer is a running issuer. It stops when its test ends. It is safe for concurrent use by multiple goroutines.
type Issuer struct {
	// URL is the issuer identifier and the base of the REST endpoints, and of calls by Connect and gRPC-Web:
	// http://127.0.0.1:PORT, or https for [TLS], with the path of [Path]. HTTP/2 is served too, without TLS as well.
	URL string
	// GRPCTarget is the address of the gRPC port, for grpc.NewClient with insecure credentials unless there is [TLS].
	GRPCTarget string

	certificate *tls.Certificate
	service     *service.Service
	ring        *keys.Ring
	store       *redisstore.Store

	mu       sync.Mutex
	offset   time.Duration
	manifest registry.Manifest
}

// Option configures an issuer.
type Option func(*options)

type options struct {
	path        string
	certificate *tls.Certificate
	authorities *x509.CertPool
	directories []string
	nonces      bool
	origins     []string
}

// Path sets the path of the issuer's URL, such as "/tenant1". Default none.
func Path(path string) Option {
	return func(o *options) { o.path = path }
}

// TLS makes both ports serve TLS with the certificate, which must be for 127.0.0.1. Clients may present certificates
// there, and authenticate by them with self_signed_tls_client_auth (RFC 8705 §2.2), or with tls_client_auth if there are
// [ClientAuthorities]. Default plaintext.
func TLS(certificate tls.Certificate) Option {
	return func(o *options) { o.certificate = &certificate }
}

// ClientAuthorities sets the authorities that vouch for the certificates of clients with tls_client_auth (RFC 8705
// §2.1). It needs [TLS]. Default none.
func ClientAuthorities(authorities *x509.CertPool) Option {
	return func(o *options) { o.authorities = authorities }
}

// clientCertificates configures how clients authenticate by their certificates.
func (o *options) clientCertificates(config *service.Config) {
	if o.certificate == nil {
		return
	}
	config.CertificateMethods = []string{oauth.SelfSignedTLSClientAuth}
	if o.authorities != nil {
		config.CertificateMethods = append(config.CertificateMethods, oauth.TLSClientAuth)
		config.Authorities = func() []*x509.CertPool { return []*x509.CertPool{o.authorities} }
	}
}

// TrustDirectories lets trusted issuers name files below the directories. Default none.
func TrustDirectories(directories ...string) Option {
	return func(o *options) { o.directories = directories }
}

// DPoPNonces makes the issuer require its nonces in the DPoP proofs of token requests (RFC 9449 §8). Default: it does not.
func DPoPNonces() Option {
	return func(o *options) { o.nonces = true }
}

// CORSOrigins lets web pages of the origins, such as "http://127.0.0.1:3000", read the responses of the token endpoint
// and of calls by Connect and gRPC-Web. Default none.
func CORSOrigins(origins ...string) Option {
	return func(o *options) { o.origins = origins }
}

// New starts an issuer without clients. Access tokens live one hour. It fetches key sets from loopback too.
func New(t testing.TB, opts ...Option) *Issuer {
	t.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	i := &Issuer{store: newStore(t), certificate: o.certificate}
	httpListener, grpcListener := listen(t), listen(t)
	scheme := "http://"
	if o.certificate != nil {
		scheme = "https://"
		config := serverTLS(*o.certificate)
		config.NextProtos = []string{"h2", "http/1.1"}
		httpListener = tls.NewListener(httpListener, config)
	}
	i.URL, i.GRPCTarget = scheme+httpListener.Addr().String()+o.path, grpcListener.Addr().String()
	name, err := oauth.ParseIssuer(i.URL)
	must.Succeed(t, err)
	sealer, err := keys.NewSealer(keys.NewKEK())
	must.Succeed(t, err)
	config := service.Config{
		Issuer: name, Store: i.store, Sealer: sealer, Log: slog.New(slog.DiscardHandler),
		Meter:               noop.NewMeterProvider().Meter(""),
		Algorithms:          []jwks.Algorithm{jwks.ES256, jwks.RS256, jwks.EdDSA, jwks.PS256},
		AccessTokenLifetime: time.Hour, KeyRotation: 30 * 24 * time.Hour, JWKSMaxAge: 5 * time.Minute,
		MaxStaleness: time.Minute, CachedClients: 10_000, CachedTokens: 10_000, GRPCEndpoint: i.GRPCTarget, Now: i.Now,
		FetchNetworks:    remoteaddr.Networks{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		TrustDirectories: o.directories,
		RequireDPoPNonce: o.nonces,
	}
	o.clientCertificates(&config)
	i.service, err = service.New(t.Context(), config)
	must.Succeed(t, err)
	i.ring, err = keys.Open(t.Context(), keys.Config{
		Store: i.store, Sealer: sealer, Algorithms: config.Algorithms, Rotation: config.KeyRotation,
		MaxAge: config.JWKSMaxAge, Retention: registry.MaxLifetime, Now: i.Now,
	})
	must.Succeed(t, err)
	origins := make([]rest.Origin, len(o.origins))
	for n, text := range o.origins {
		origins[n], err = rest.ParseOrigin(text)
		must.Succeed(t, err)
	}
	handler, err := rest.New(t.Context(), name, i.service, origins...)
	must.Succeed(t, err)
	i.serve(t, handler, httpListener, grpcListener)
	return i
}

// serverTLS returns the configuration of a port. Clients may present a certificate, which is verified where it counts.
func serverTLS(certificate tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
}

// newStore returns a store on an embedded Redis.
func newStore(t testing.TB) *redisstore.Store {
	server := miniredis.RunT(t)
	client, err := redisstore.Connect("redis://" + server.Addr())
	must.Succeed(t, err)
	t.Cleanup(func() { _ = client.Close() })
	store, err := redisstore.New(client, redisstore.DefaultPrefix, registry.MaxLifetime)
	must.Succeed(t, err)
	return store
}

// serve runs the issuer until the test ends, and returns when it can issue.
func (i *Issuer) serve(t testing.TB, handler http.Handler, httpListener, grpcListener net.Listener) {
	httpServer := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	httpServer.Protocols.SetHTTP1(true)
	httpServer.Protocols.SetHTTP2(true)
	httpServer.Protocols.SetUnencryptedHTTP2(true)
	options := i.service.ServerOptions()
	if i.certificate != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(serverTLS(*i.certificate))))
	}
	grpcServer := grpc.NewServer(options...)
	i.service.Register(grpcServer)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = i.service.Run(ctx) })
	running.Go(func() { _ = httpServer.Serve(httpListener) })
	running.Go(func() { _ = grpcServer.Serve(grpcListener) })
	t.Cleanup(func() {
		cancel()
		_ = httpServer.Close()
		grpcServer.Stop()
		running.Wait()
	})
	must.Succeed(t, i.service.CatchUp(t.Context()))
}

// Now returns the time of the issuer's clock. Pass the method to the verifier of the issuer's tokens (verify.Now), so
// that both share one clock.
func (i *Issuer) Now() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return time.Now().Add(i.offset)
}

// Advance moves the clock forward by d, or back if d is negative.
func (i *Issuer) Advance(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.offset += d
}

// AddClient registers a client that has the secret [Secret] and may request the scopes of the resource. It creates the
// client and the resource if they do not exist. It ends the test if another resource has one of the scopes.
func (i *Issuer) AddClient(t testing.TB, id, resource string, scopes ...string) {
	t.Helper()
	i.check(t)
	clientID, err := oauth.ParseClientID(id)
	must.Succeed(t, err)
	r, granted := parse(t, resource, scopes)
	i.mu.Lock()
	at := slices.IndexFunc(i.manifest.Resources, func(known registry.Resource) bool { return known.ID == r })
	if at < 0 {
		at = len(i.manifest.Resources)
		i.manifest.Resources = append(i.manifest.Resources, registry.Resource{ID: r})
	}
	owner := &i.manifest.Resources[at]
	for _, scope := range granted {
		if !owner.Scopes.Has(scope) {
			owner.Scopes = append(slices.Clip(owner.Scopes), scope)
		}
	}
	manifest := registry.Manifest{Resources: slices.Clone(i.manifest.Resources)}
	i.mu.Unlock()
	manifest.Clients = []registry.ClientSpec{{Secret: Secret, Client: registry.Client{
		ID: clientID, Scopes: granted, GrantTypes: []string{oauth.GrantClientCredentials},
	}}}
	i.Apply(t, manifest)
}

// Apply applies the manifest as "grantor apply" does, and returns when the changes are in effect.
func (i *Issuer) Apply(t testing.TB, manifest registry.Manifest) {
	t.Helper()
	i.check(t)
	_, err := i.service.Editor().Apply(t.Context(), manifest, registry.ApplyOptions{})
	must.Succeed(t, err)
	must.Succeed(t, i.service.CatchUp(t.Context()))
}

// ExpireSecrets makes all secrets of a client expire now, and returns when that is in effect.
func (i *Issuer) ExpireSecrets(t testing.TB, id string) {
	t.Helper()
	i.check(t)
	clientID, err := oauth.ParseClientID(id)
	must.Succeed(t, err)
	stored, err := i.store.Client(t.Context(), clientID)
	must.Succeed(t, err)
	changed := *stored
	changed.Secrets = slices.Clone(stored.Secrets)
	for n := range changed.Secrets {
		changed.Secrets[n].ExpiresAt = i.Now()
	}
	must.Succeed(t, i.store.SaveClient(t.Context(), &changed))
	must.Succeed(t, i.service.CatchUp(t.Context()))
}

// Conn returns a connection to the gRPC port, which trusts the certificate of [TLS]. It is closed when the test ends.
func (i *Issuer) Conn(t testing.TB) *grpc.ClientConn {
	t.Helper()
	i.check(t)
	security := insecure.NewCredentials()
	if i.certificate != nil {
		leaf, err := x509.ParseCertificate(i.certificate.Certificate[0])
		must.Succeed(t, err)
		roots := x509.NewCertPool()
		roots.AddCert(leaf)
		security = credentials.NewClientTLSFromCert(roots, "")
	}
	conn, err := grpc.NewClient(i.GRPCTarget, grpc.WithTransportCredentials(security))
	must.Succeed(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Token returns a valid token of the client for the resource with the scopes. It expires in an hour. The client need
// not be registered.
func (i *Issuer) Token(t testing.TB, clientID, resource string, scopes ...string) string {
	t.Helper()
	_, granted := parse(t, resource, scopes)
	return i.Sign(t, map[string]any{"sub": clientID, "client_id": clientID, "aud": resource, "scope": granted.String()})
}

// Expired returns a token that expired a minute ago.
func (i *Issuer) Expired(t testing.TB, clientID, resource string, scopes ...string) string {
	t.Helper()
	_, granted := parse(t, resource, scopes)
	return i.Sign(t, map[string]any{
		"sub": clientID, "client_id": clientID, "aud": resource, "scope": granted.String(),
		"iat": i.Now().Add(-time.Hour).Unix(), "exp": i.Now().Add(-time.Minute).Unix(),
	})
}

// Sign returns a token of the issuer with arbitrary claims. The given claims replace or extend valid ones (iss, sub,
// client_id, iat, exp in an hour, jti); a nil value removes a claim.
func (i *Issuer) Sign(t testing.TB, claims map[string]any) string {
	t.Helper()
	i.check(t)
	signer, err := i.ring.Signer(jwks.ES256)
	must.Succeed(t, err)
	return sign(t, signer, i.claims(claims))
}

// Forge returns a token like [Issuer.Sign], but signed with a key that is not the issuer's.
func (i *Issuer) Forge(t testing.TB, claims map[string]any) string {
	t.Helper()
	i.check(t)
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must.Succeed(t, err)
	signer, err := token.NewSigner(jwks.ES256, foreign)
	must.Succeed(t, err)
	return sign(t, signer, i.claims(claims))
}

// check ends the test if the issuer was not made by New.
func (i *Issuer) check(t testing.TB) {
	t.Helper()
	if i == nil || i.service == nil {
		t.Fatal("tokentest: the issuer was not made by New")
	}
}

func (i *Issuer) claims(changed map[string]any) map[string]any {
	now := i.Now()
	claims := map[string]any{
		"iss": i.URL, "sub": "tokentest", "client_id": "tokentest", "jti": token.NewID().String(),
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(claims, changed)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

func sign(t testing.TB, signer *token.Signer, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	must.Succeed(t, err)
	signed, err := signer.SignUnchecked(payload)
	must.Succeed(t, err)
	return signed
}

func parse(t testing.TB, resource string, scopes []string) (oauth.Resource, oauth.Scopes) {
	t.Helper()
	r, err := oauth.ParseResource(resource)
	must.Succeed(t, err)
	var granted oauth.Scopes
	for _, name := range scopes {
		scope, err := oauth.ParseScope(name)
		must.Succeed(t, err)
		granted = append(granted, scope)
	}
	return r, granted
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	return listener
}
