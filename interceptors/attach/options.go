package attach

import (
	"fmt"
	"net/http"

	"google.golang.org/grpc"
)

// config collects the options.
type config struct {
	account
	secrets   []secret
	tokenURL  string
	client    *http.Client
	conn      grpc.ClientConnInterface
	plaintext bool
	// mistake is the first error of an option, or nil. It makes every request for a token fail.
	mistake error
	// instruments is nil without [Telemetry].
	instruments *instruments
}

// failf records a mistake of an option.
func (c *config) failf(format string, args ...any) {
	if c.mistake == nil {
		c.mistake = fmt.Errorf(format, args...)
	}
}

// Option configures how a [Source] gets or sends its tokens.
type Option func(*config)

// Scopes requests tokens with the given scopes (RFC 6749 §3.3). Without it, the issuer grants the client's default
// scopes. Repeated use adds scopes.
func Scopes(scopes ...string) Option {
	return func(c *config) { c.scopes = append(c.scopes, scopes...) }
}

// Resources requests tokens for the given resources (RFC 8707 §2), each an absolute URI. Without it, the request names
// no resource. Repeated use adds resources.
func Resources(resources ...string) Option {
	return func(c *config) { c.resources = append(c.resources, resources...) }
}

// TokenURL sets the URL of the token endpoint, for an issuer without metadata (RFC 8414). By default, the endpoint is
// found in the issuer's metadata.
func TokenURL(url string) Option {
	return func(c *config) { c.tokenURL = url }
}

// OverGRPC requests tokens from the grantor.v1.TokenService on conn instead of over HTTP. The issuer's URL is then
// ignored. Because the message contains the secret, conn must have transport security or a loopback target.
//
// Make conn with [IssuerDialOptions], or at least with grpc.WithKeepaliveParams: without keepalive, a connection that
// falls silent stays in use for a quarter of an hour.
func OverGRPC(conn grpc.ClientConnInterface) Option {
	return func(c *config) {
		cc, ok := conn.(*grpc.ClientConn)
		if conn == nil || ok && cc == nil {
			c.failf("OverGRPC: the connection is nil")
		}
		c.conn = conn
	}
}

// HTTPClient sets the client that makes token requests and fetches the issuer's metadata, for a proxy or private root
// certificates. The client is copied and its CheckRedirect replaced: a token request follows no redirect, because it
// carries the secret. The default is a client over [http.DefaultTransport].
func HTTPClient(client *http.Client) Option {
	return func(c *config) { c.client = client }
}

// AllowInsecurePlaintextToRemoteHosts permits sending secrets and tokens without TLS, so that anyone on the network
// path can read them: to a [TokenURL], over an [OverGRPC] connection, and to the servers that are called. By default,
// plaintext is permitted to loopback addresses and Unix sockets only.
func AllowInsecurePlaintextToRemoteHosts() Option {
	return func(c *config) { c.plaintext = true }
}
