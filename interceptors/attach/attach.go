// Package attach is the client's side: it gets an access token, keeps it fresh and sends it. It carries out RFC 6749
// §4.4 (client credentials) toward any issuer, and RFC 6750 §2.1 (the Authorization header) toward any server.
//
// One [Source] serves everything that a program calls: gRPC by [DialOptions], HTTP as an [http.RoundTripper], and
// whatever takes an [oauth2.TokenSource].
package attach

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
)

var (
	_ oauth2.TokenSource = (*Source)(nil)
	_ http.RoundTripper  = (*Source)(nil)
)

// config is what the options fill.
type config struct {
	account
	secrets   []secret
	tokenURL  string
	client    *http.Client
	conn      grpc.ClientConnInterface
	plaintext bool
	// instruments are nil without [Telemetry].
	instruments *instruments
}

// Option changes how a [Source] gets or sends its tokens.
type Option func(*config)

// Scopes asks for tokens with these scopes (RFC 6749 §3.3). Without it the issuer gives the client's default scopes.
func Scopes(scopes ...string) Option {
	return func(c *config) { c.scopes = append(c.scopes, scopes...) }
}

// Resources asks for tokens for these resources (RFC 8707 §2), each an absolute URI.
func Resources(resources ...string) Option {
	return func(c *config) { c.resources = append(c.resources, resources...) }
}

// TokenURL names the token endpoint, for an issuer that publishes no description (RFC 8414) to find it by.
func TokenURL(url string) Option {
	return func(c *config) { c.tokenURL = url }
}

// OverGRPC asks for tokens by grantor.v1.TokenService on conn, and so with no HTTP at all. The issuer's URL is then not
// looked at. As the secret is in the message, conn must have transport security or a loopback target. Make it with
// [IssuerDialOptions], or at least with grpc.WithKeepaliveParams: without that a connection that falls silent stays in
// use for a quarter of an hour.
func OverGRPC(conn grpc.ClientConnInterface) Option {
	return func(c *config) { c.conn = conn }
}

// HTTPClient is what token requests are made with, for a proxy or for trusted roots of one's own. It is copied, and its
// redirect policy replaced: a token request follows none, since it carries the secret. Default [http.DefaultTransport].
func HTTPClient(client *http.Client) Option {
	return func(c *config) { c.client = client }
}

// AllowInsecurePlaintextToRemoteHosts lets secrets and tokens cross the network in the clear, where anyone on the path
// can take them: to a [TokenURL] and an [OverGRPC] connection, and to the servers that are called. Without it plaintext
// goes to loopback and Unix sockets only.
func AllowInsecurePlaintextToRemoteHosts() Option {
	return func(c *config) { c.plaintext = true }
}

// ClientCredentials makes the source of a client's tokens (RFC 6749 §4.4). The issuer is any that has a description
// (RFC 8414 or OpenID Connect Discovery), unless [TokenURL] or [OverGRPC] says where to ask. Nothing is sent before the
// first token is needed, and what is wrong with the arguments shows then.
//
// The secret is clientSecret or, where that is "", what one of [SecretFile], [SecretEnv] and [SecretFunc] gives; two of
// the four are an error. These are asked anew for each token request. If the issuer refuses a secret (invalid_client)
// that they have replaced since, the request is made once more at once with the newer one.
func ClientCredentials(issuer, clientID, clientSecret string, options ...Option) *Source {
	c := config{account: account{id: clientID}}
	if clientSecret != "" {
		c.secrets = []secret{literal(clientSecret)}
	}
	for _, option := range options {
		option(&c)
	}
	asks := &client{id: clientID, secrets: c.secrets}
	if c.conn != nil {
		asks.to = &grpcIssuer{c.account, c.conn, c.plaintext, c.instruments}
	} else {
		asks.to = newEndpoint(issuer, c)
	}
	source := &Source{issuer: asks, name: clientID, plaintext: c.plaintext, jitter: rand.Float64, instruments: c.instruments}
	if c.instruments != nil {
		c.instruments.observe(source)
	}
	return source
}

// Token gives a token that can be sent now. It may wait for the issuer, at most 10 s; [Source.TokenContext] is for
// callers with less time.
func (s *Source) Token() (*oauth2.Token, error) { return s.TokenContext(context.Background()) }

// TokenContext gives a token that can be sent now; ctx bounds this caller's wait and no one else's. An [*Error] says
// why there is none. The answer is the caller's own, and its Expiry is when the token ends.
func (s *Source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	e, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: e.token, TokenType: "Bearer", Expiry: e.end}, nil
}

// Format prints the client's id, whatever the verb: no printing of a Source shows a secret or a token.
func (s *Source) Format(state fmt.State, _ rune) {
	_, _ = fmt.Fprintf(state, "attach.Source(%q)", s.name)
}

// account is who asks, and what for.
type account struct {
	id        string
	scopes    []string
	resources []string
}

func (a *account) scope() string { return strings.Join(a.scopes, " ") }

// issued is a token as the issuer gave it. A lifetime of zero means that the issuer did not say.
type issued struct {
	token    string
	lifetime time.Duration
}
