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
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

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
// is an error to set more than one of the four. The options are read again for each token request. If the issuer refuses a
// secret (invalid_client) that has been replaced in the meantime, the request is repeated once, at once, with the newer one.
//
// A client that has an identity already needs no secret: [PrivateKey], [Certificate], [KubernetesToken], [TokenFile] and
// [AssertionFunc], or package attach/spiffe, authenticate it by that, one of them at a time. The client ID may be empty
// where these say so.
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
	source := &Source{name: clientID, prover: c.prover, plaintext: c.plaintext, jitter: rand.Float64, instruments: c.instruments}
	proof := c.prove(issuer)
	if proof != nil && proof.certificate != nil && c.mistake == nil {
		source.rotation = &rotation{certificate: proof.certificate, began: time.Now(), generation: func(certificate *tls.Certificate) (*Source, error) {
			return newGeneration(issuer, c, proof, certificate)
		}}
	} else {
		source.issuer = newClient(issuer, c, proof)
	}
	if c.instruments != nil {
		c.instruments.observe(source)
	}
	return source
}

// newClient returns the issuer with what the client authenticates with.
func newClient(issuer string, c config, proof *proof) *client {
	requests := &client{id: c.id, proof: proof, secrets: c.secrets, mistake: c.mistake}
	if c.conn == nil {
		requests.to = newHTTPEndpoint(issuer, c)
		return requests
	}
	endpoint, err := newGRPCEndpoint(c)
	if err != nil && requests.mistake == nil {
		requests.mistake = err
	}
	requests.to = endpoint
	return requests
}

// newGeneration returns a source of tokens that are requested with the certificate.
func newGeneration(issuer string, c config, proof *proof, certificate *tls.Certificate) (*Source, error) {
	if c.id == "" {
		c.id = spiffeID(certificate)
	}
	s := &Source{name: c.id, prover: c.prover, plaintext: c.plaintext, jitter: rand.Float64, instruments: c.instruments, certificate: certificate}
	if c.conn == nil {
		var own http.Client
		if c.client != nil {
			own = *c.client
		}
		if own.Transport == nil {
			own.Transport = http.DefaultTransport
		}
		base, ok := own.Transport.(*http.Transport)
		if !ok {
			return nil, misuse("HTTPClient: a %T is no *http.Transport, so that it cannot be made to present the certificate", own.Transport)
		}
		presents := presentingTransport(base, certificate)
		own.Transport = presents
		c.client = &own
		s.transports.Store(tokenTransport{}, presents)
	}
	s.issuer = newClient(issuer, c, proof)
	return s, nil
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
