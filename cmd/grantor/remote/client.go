// Package remote reaches a running issuer as a client does: it discovers its endpoints (RFC 8414), authenticates, and
// calls them over REST and gRPC. It never opens a store.
package remote

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// maxResponse bounds the response of an endpoint, in bytes.
const maxResponse = 64 << 10

// Timeout bounds the calls of one command.
const Timeout = 20 * time.Second

// Client calls the endpoints of one issuer as one client. It works with any issuer that publishes metadata (RFC 8414).
type Client struct {
	HTTP     *http.Client
	Metadata *oauth.Metadata
	*Authentication

	// hidden are further secrets that requests carry.
	hidden []string
}

// NewHTTPClient returns a client that follows no redirects, because its requests carry the client's credentials.
// CloseIdleConnections closes its connections.
func NewHTTPClient() *http.Client {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if shared, ok := http.DefaultTransport.(*http.Transport); ok {
		client.Transport = shared.Clone()
	}
	return client
}

// Dial discovers the endpoints of an issuer and returns a client of them. It makes no other request.
func Dial(ctx context.Context, issuer string, credentials Credentials) (*Client, error) {
	c := &Client{HTTP: NewHTTPClient()}
	if transport, ok := c.HTTP.Transport.(*http.Transport); ok && credentials.Certificate != nil {
		transport.TLSClientConfig = presenting(credentials.Certificate, transport.TLSClientConfig)
	}
	found, err := Discover(ctx, c.HTTP, issuer)
	if err != nil {
		c.Close()
		return nil, err
	}
	if credentials.Certificate != nil {
		found.TokenEndpoint = cmp.Or(found.MTLSAliases.TokenEndpoint, found.TokenEndpoint) // RFC 8705 §5
	}
	c.Metadata, c.Authentication = found, NewAuthentication(credentials, found)
	return c, nil
}

// Hide adds secrets that error texts must not quote.
func (c *Client) Hide(secrets ...string) { c.hidden = append(c.hidden, secrets...) }

// Close closes idle connections.
func (c *Client) Close() { c.HTTP.CloseIdleConnections() }

// Issue requests a token (RFC 6749 §4.4.2). It also returns the response as received.
func (c *Client) Issue(ctx context.Context, scopes, resources []string) ([]byte, *IssuedToken, error) {
	form := url.Values{"grant_type": {oauth.GrantClientCredentials}}
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	if len(resources) > 0 {
		form["resource"] = resources
	}
	body, err := c.post(ctx, call{"token_endpoint", c.Metadata.TokenEndpoint, form, c.DPoP})
	if err != nil {
		return nil, nil, err
	}
	var issued IssuedToken
	if json.Unmarshal(body, &issued) != nil || issued.Token == "" || len(issued.Token) > token.MaxSize {
		return nil, nil, errors.New("the response of the token endpoint is not one of RFC 6749 §5.1")
	}
	// RFC 6749 §7.1: a client must not use a token of a type that it does not understand. A bearer token where a bound one
	// was requested is refused too: that the token is of no use to others is why the client has a key.
	if want := c.DPoP.tokenType(); !oauth.EqualFold(issued.Type, want) {
		return nil, nil, fmt.Errorf("the token endpoint's token_type is %.20q, not %s", issued.Type, want)
	}
	// Tokens are pasted into headers and command lines, where other characters could inject.
	if strings.ContainsFunc(issued.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, nil, errors.New("the token endpoint's access_token is not visible ASCII")
	}
	return body, &issued, nil
}

// Introspect asks the issuer about a token (RFC 7662 §2). It returns the response as received.
func (c *Client) Introspect(ctx context.Context, raw string) ([]byte, error) {
	body, err := c.post(ctx, call{name: "introspection_endpoint", endpoint: c.Metadata.IntrospectionEndpoint, form: url.Values{"token": {raw}}})
	if err != nil {
		return nil, err
	}
	var response struct {
		Active *bool `json:"active"`
	}
	if json.Unmarshal(body, &response) != nil || response.Active == nil {
		return nil, errors.New("the response of the introspection endpoint is not one of RFC 7662 §2.2")
	}
	return body, nil
}

// Revoke revokes a token (RFC 7009 §2). The body of the response has no meaning (§2.2).
func (c *Client) Revoke(ctx context.Context, raw string) error {
	_, err := c.post(ctx, call{name: "revocation_endpoint", endpoint: c.Metadata.RevocationEndpoint, form: url.Values{"token": {raw}}})
	return err
}

// call is a request over REST.
type call struct {
	// name is the name of the endpoint in the issuer's metadata.
	name, endpoint string
	form           url.Values
	// prover makes the DPoP proof of the request; nil for a request without one.
	prover *Prover
}

// post sends a form with the client's credentials to an endpoint and returns the body of a 200. It repeats the request
// once, with all of its proofs made again, if the issuer demands a DPoP proof with a nonce that it provides (RFC 9449
// §8).
func (c *Client) post(ctx context.Context, request call) ([]byte, error) {
	if request.endpoint == "" {
		return nil, fmt.Errorf("the metadata of %s has no %s", oauth.RedactURL(c.Metadata.Issuer), request.name)
	}
	type result struct {
		body []byte
		err  error
	}
	got := Authenticate(c.Authentication, func(method string) (result, Outcome) {
		body, err := c.postWith(ctx, method, request)
		if refused, ok := errors.AsType[*CallError](err); ok && refused.nonceProvided {
			body, err = c.postWith(ctx, method, request)
		}
		return result{body, err}, outcome(err)
	})
	return got.body, got.err
}

// postWith is post with one authentication method.
func (c *Client) postWith(ctx context.Context, method string, sent call) ([]byte, error) {
	evidence, err := c.Evidence(method)
	if err != nil {
		return nil, err
	}
	request, err := evidence.newRequest(ctx, sent.endpoint, sent.form.Encode())
	if err == nil {
		err = sent.prover.Prove(request)
	}
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	answer, err := c.HTTP.Do(request)
	if err != nil {
		return nil, requestError(err)
	}
	defer func() { _ = answer.Body.Close() }()
	nonce := sent.prover.Learn(answer.Header.Values(dpop.NonceHeader))
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxResponse+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the response of the %s: %w", sent.name, err)
	case len(body) > maxResponse:
		return nil, fmt.Errorf("the %s returned more than %d bytes", sent.name, maxResponse)
	case answer.StatusCode == http.StatusOK:
		return body, nil
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return nil, fmt.Errorf("the %s returned %d; redirects are not followed, because the request carries the client's credentials", sent.name, answer.StatusCode)
	}
	refused := c.refused(answer.StatusCode, body, sent.name, sent.form.Get("token"), evidence.Assertion)
	refused.nonceProvided = nonce && refused.reason == oauth.UseDPoPNonce
	return nil, refused
}

// refused returns the error of a response of the endpoint name. Its text does not quote what is hidden.
func (c *Client) refused(status int, body []byte, name string, hidden ...string) *CallError {
	var refused struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &refused) != nil || refused.Code == "" {
		return &CallError{Code: codeOfHTTP(status), Text: fmt.Sprintf("the %s returned %d", name, status)}
	}
	reason := oauth.Code(refused.Code)
	code := codeOfOAuth[reason]
	if status == http.StatusTooManyRequests {
		code = codes.ResourceExhausted
	}
	return &CallError{Code: code, Text: c.refusal(refused.Code, refused.Description, hidden...), reason: reason}
}

// IssuedToken is a token response (RFC 6749 §5.1).
type IssuedToken struct {
	Token string `json:"access_token"`
	Type  string `json:"token_type"`
	// Lifetime is in seconds. Some issuers quote it, which json.Number accepts too.
	Lifetime json.Number `json:"expires_in"`
	Scope    string      `json:"scope"`
}

// codeOfOAuth maps an OAuth error code to a gRPC code.
var codeOfOAuth = map[oauth.Code]codes.Code{
	oauth.InvalidRequest:         codes.InvalidArgument,
	oauth.InvalidScope:           codes.InvalidArgument,
	oauth.InvalidTarget:          codes.InvalidArgument,
	oauth.UnsupportedGrantType:   codes.InvalidArgument,
	oauth.InvalidDPoPProof:       codes.InvalidArgument,
	oauth.UseDPoPNonce:           codes.InvalidArgument,
	oauth.InvalidClient:          codes.Unauthenticated,
	oauth.UnauthorizedClient:     codes.PermissionDenied,
	oauth.TemporarilyUnavailable: codes.Unavailable,
}

// codeOfHTTP returns the gRPC code of a response that has nothing but its status.
func codeOfHTTP(status int) codes.Code {
	switch status {
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}

// refusal returns an OAuth error as one line: its code and its description.
func (c *Client) refusal(code, description string, hidden ...string) string {
	text := c.Clean(code, hidden...)
	if description != "" {
		text += ": " + c.Clean(description, hidden...)
	}
	return text
}

// Clean makes text from a server safe to print: it bounds the length, replaces characters that could act on a terminal,
// and masks secrets, which a server that echoes its request would carry into a log.
func (c *Client) Clean(text string, hidden ...string) string {
	const maxText = 256
	own := []string{strings.TrimPrefix(c.basic(), basicScheme), url.QueryEscape(c.Secret), c.Secret}
	for _, secret := range slices.Concat(hidden, c.hidden, own) {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return cli.Printable(text[:min(len(text), maxText)])
}

// RevokeAll revokes all tokens of the client. The RPC has no REST equivalent.
func (c *Client) RevokeAll(ctx context.Context) error {
	conn, err := c.DialGRPC()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	type result struct{ err error }
	return Authenticate(c.Authentication, func(method string) (result, Outcome) {
		err := c.revokeAllWith(ctx, conn, method)
		return result{err}, outcome(err)
	}).err
}

// revokeAllWith is RevokeAll with one authentication method.
func (c *Client) revokeAllWith(ctx context.Context, conn *grpc.ClientConn, method string) error {
	evidence, err := c.Evidence(method)
	if err != nil {
		return err
	}
	_, err = grantorv1.NewTokenServiceClient(conn).RevokeClientTokens(evidence.Attach(ctx), &grantorv1.RevokeClientTokensRequest{
		ClientId: evidence.ClientID, ClientSecret: evidence.ClientSecret,
		ClientAssertion: evidence.Assertion, ClientAssertionType: evidence.AssertionType,
	})
	if err != nil {
		return c.explain(err, evidence.Assertion)
	}
	return nil
}

// explain returns the error of a failed gRPC call. Its text does not quote what is hidden.
func (c *Client) explain(err error, hidden ...string) *CallError {
	s := status.Convert(err)
	e := &CallError{
		Code: s.Code(), Message: s.Message(),
		Text: "the issuer's gRPC port " + cli.Printable(c.Metadata.GRPCEndpoint) + ": " + c.Clean(s.Message(), hidden...),
	}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == oauth.ErrorDomain {
				e.Text = c.refusal(d.GetReason(), s.Message(), hidden...)
			}
		case *errdetails.BadRequest:
			for _, violation := range d.GetFieldViolations()[:min(1, len(d.GetFieldViolations()))] {
				e.Field = c.Clean(violation.GetField())
			}
		}
	}
	return e
}

// DialGRPC returns a connection to the issuer's gRPC port.
func (c *Client) DialGRPC(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	endpoint := c.Metadata.GRPCEndpoint
	if endpoint == "" {
		return nil, fmt.Errorf("the metadata of %s has no grantor_grpc_endpoint; this needs a Grantor issuer", oauth.RedactURL(c.Metadata.Issuer))
	}
	// The part before a colon could otherwise select another resolver of gRPC.
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, fmt.Errorf("the issuer's grantor_grpc_endpoint %.200q is not host:port", endpoint)
	}
	// passthrough uses the system's resolver, as REST does. gRPC's own would query the DNS for SRV records at each
	// connection, and wait for them.
	return grpc.NewClient("passthrough:///"+endpoint, append(options, grpc.WithTransportCredentials(c.grpcSecurity(host)))...)
}

// TLSConfig returns the configuration of connections over TLS to the issuer, which present the client's certificate if
// it has one.
func (c *Client) TLSConfig() *tls.Config {
	if c.Authentication == nil || c.Certificate == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return presenting(c.Certificate, nil)
}

// grpcSecurity returns the security of connections to the gRPC port, which present the client's certificate if it has one.
func (c *Client) grpcSecurity(host string) credentials.TransportCredentials {
	if c.Authentication == nil || c.Certificate == nil {
		return grpcSecurity(c.Metadata.Issuer, host)
	}
	return credentials.NewTLS(presenting(c.Certificate, nil))
}

// presenting returns a configuration like base for connections that present a certificate.
func presenting(certificate *tls.Certificate, base *tls.Config) *tls.Config {
	config := base.Clone()
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	// A server that asks for a certificate gets it even if the server does not name its authority, so that the server can
	// report the reason.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	return config
}

// grpcSecurity returns plaintext if the issuer's URL is http, and thus on loopback, and host is on loopback too.
// Otherwise it returns TLS.
func grpcSecurity(issuer, host string) credentials.TransportCredentials {
	if strings.HasPrefix(issuer, "http://") && oauth.Loopback(host) {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
}
