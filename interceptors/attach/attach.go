// Package attach gets OAuth 2.0 access tokens for a client, keeps them fresh, and sends them with gRPC calls and HTTP
// requests. It implements RFC 6749 §4.4 (client credentials) with any issuer, and RFC 6750 §2.1 (the Authorization
// header) with any server.
//
// One [Source] serves every call that a program makes as a client:
//
//	source := attach.ClientCredentials("https://auth.example.com", "background-service", "",
//		attach.SecretFile("/run/secrets/background-service"), attach.Scopes("orders.read"))
//
//	conn, err := grpc.NewClient("orders.example.com:443", attach.DialOptions(source)...) // gRPC
//	client := &http.Client{Transport: source}                                           // HTTP
//
// A Source is an [oauth2.TokenSource] as well.
//
// # Tokens
//
// The first call that needs a token fetches it; concurrent calls wait for the same request. When 75 to 85 % of the
// token's lifetime has passed, the next call renews it in the background. While the issuer cannot be reached, the last
// token is sent until it expires. When a server refuses the token, the call is repeated once with a new one, if the
// server says that the token was the reason and repeating the call is safe.
//
// # Plaintext
//
// Neither a secret nor a token is sent without TLS, except to a loopback address or a Unix socket.
// [AllowInsecurePlaintextToRemoteHosts] lifts that.
//
// # Errors
//
// A call that needs a token and gets none fails with an [*Error], which has the issuer's OAuth error code and is a gRPC
// status.
package attach

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"

	"golang.org/x/oauth2"
)

var (
	_ oauth2.TokenSource = (*Source)(nil)
	_ http.RoundTripper  = (*Source)(nil)
)

// ClientCredentials returns a source of tokens for a client (RFC 6749 §4.4). The issuer is the URL of any issuer that
// publishes metadata (RFC 8414 or OpenID Connect Discovery), unless [TokenURL] or [OverGRPC] names the endpoint.
// ClientCredentials makes no request and reports no error: a wrong argument makes the first request for a token fail.
//
// The secret is clientSecret or, if that is empty, the value of one of [SecretFile], [SecretEnv] and [SecretFunc]; it
// is an error to set more than one of the four. A client with a key of its own has no secret; see [PrivateKey]. The options are read again for each token request. If the issuer
// refuses a secret (invalid_client) that has been replaced in the meantime, the request is repeated once, at once, with
// the newer one.
func ClientCredentials(issuer, clientID, clientSecret string, options ...Option) *Source {
	c := config{account: account{id: clientID}}
	if clientSecret != "" {
		c.secrets = []secret{literal(clientSecret)}
	}
	for _, option := range options {
		if option != nil {
			option(&c)
		}
	}
	c.assertion = c.assertions(issuer)
	requests := &client{id: clientID, hasKey: c.assertion != nil, secrets: c.secrets, mistake: c.mistake}
	if c.conn != nil {
		endpoint, err := newGRPCEndpoint(c)
		if err != nil && requests.mistake == nil {
			requests.mistake = err
		}
		requests.to = endpoint
	} else {
		requests.to = newHTTPEndpoint(issuer, c)
	}
	source := &Source{issuer: requests, name: clientID, prover: c.prover, plaintext: c.plaintext, jitter: rand.Float64, instruments: c.instruments}
	if c.instruments != nil {
		c.instruments.observe(source)
	}
	return source
}

// Token returns a token that is valid now. It implements [oauth2.TokenSource]. If a token has to be fetched, Token
// waits up to 10 s; use [Source.TokenContext] for a shorter wait.
func (s *Source) Token() (*oauth2.Token, error) { return s.TokenContext(context.Background()) }

// TokenContext returns a token that is valid now. The context bounds how long this caller waits; the token request goes
// on for other callers. The error is an [*Error]. The caller owns the returned token; its Expiry is the time at which
// the token expires.
func (s *Source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	e, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: e.token, TokenType: s.prover.scheme(), Expiry: e.expiresAt}, nil
}

// Format implements [fmt.Formatter]. Every verb prints only the client id, so that printing a Source never reveals a
// secret or a token.
func (s *Source) Format(state fmt.State, _ rune) {
	_, _ = fmt.Fprintf(state, "attach.Source(%q)", s.name)
}
