package attach

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/service/oauth"
)

// config collects the options.
type config struct {
	account
	secrets   []secret
	proofs    []proof
	keyID     string
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

// Join returns an option that applies all of options, for packages whose options consist of several.
func Join(options ...Option) Option {
	return func(c *config) {
		for _, option := range options {
			if option != nil {
				option(c)
			}
		}
	}
}

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

// Token endpoint authentication methods, for [AuthMethod]: the client's id and secret are sent as HTTP Basic
// credentials, or in the request (RFC 6749 §2.3.1).
const (
	ClientSecretBasic = oauth.ClientSecretBasic
	ClientSecretPost  = oauth.ClientSecretPost
)

// AuthMethod sets how the client authenticates at the token endpoint: [ClientSecretBasic] or [ClientSecretPost]. It is
// needed for an issuer that supports one of them only and has no metadata that say so. Over gRPC, the message
// IssueTokenRequest counts as client_secret_post, and the metadata "authorization: Basic …" as client_secret_basic.
//
// By default, or if the method is empty, the source uses client_secret_basic over HTTP, unless the issuer's metadata
// (token_endpoint_auth_methods_supported) contain client_secret_post only, and client_secret_post over gRPC. If the
// issuer offers both, or [TokenURL] is set, a client may still be registered for one of them. Until the issuer accepts a
// method, the source therefore repeats a request with the other method if its secret is refused: with invalid_client, or
// with temporarily_unavailable and an HTTP status 429 (RESOURCE_EXHAUSTED over gRPC), because at the issuer's limit of
// failed authentications the wrong method gets that response. The source remembers the method that is accepted.
//
// The first request with a wrong secret counts as two failures against the issuer's limits, one for each method. Further
// requests with a refused secret use the two methods in turn, one for each request, so that each of them counts once.
func AuthMethod(method string) Option {
	return func(c *config) {
		switch method {
		case "", ClientSecretBasic, ClientSecretPost:
			c.method = method
		default:
			c.failf("AuthMethod: %.40q is neither %s nor %s", method, ClientSecretBasic, ClientSecretPost)
		}
	}
}

// Parameter adds a parameter to the token requests (RFC 6749 §8.2), such as "audience" for an issuer that does not
// implement RFC 8707. The name consists of letters, digits, "-", "." and "_", and occurs once. The parameters that this
// package sets itself, those of the client's authentication included, are refused in any letter case, because some
// issuers ignore it. A parameter without a value is not sent (RFC 6749 §3.2).
//
// [OverGRPC] supports "audience" only.
func Parameter(name, value string) Option {
	return func(c *config) {
		switch {
		case name == "" || strings.Trim(name, nameChars) != "":
			c.failf("Parameter: the name %.40q is not one of RFC 6749 §8.2", name)
		case slices.Contains(reserved, strings.ToLower(name)):
			c.failf("Parameter: %s is not for other values than those of the source", name)
		case slices.ContainsFunc(c.parameters, func(p parameter) bool { return p.name == name }):
			c.failf("Parameter: %s is set twice", name)
		case value != "":
			c.parameters = append(c.parameters, parameter{name, value})
		}
	}
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// reserved are the names that [Parameter] refuses: the source sets them, or they would authenticate another client.
var reserved = []string{"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "scope", "resource"}

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
