// Package remote reaches a running issuer as a client does: it discovers its endpoints (RFC 8414), authenticates, and calls
// them over REST and gRPC. It never opens a store.
package remote

import (
	"context"
	"crypto/tls"
	"encoding/base64"
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
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// errorDomain is the domain of the errors that Grantor details, as in service.Domain, which would bring in the server.
const errorDomain = "grantor"

// maxAnswer bounds what is read of an endpoint's answer, in bytes.
const maxAnswer = 64 << 10

// Timeout bounds one command's talk with the issuer.
const Timeout = 20 * time.Second

// Client asks the endpoints of one issuer as one client. Any issuer that has a description (RFC 8414) will do.
type Client struct {
	HTTP       *http.Client
	Metadata   *oauth.Metadata
	ID, secret string
	// hidden are other secrets that are sent.
	hidden []string
}

// NewHTTPClient makes a client that follows no redirection: its requests carry the secret. What it leaves open
// CloseIdleConnections closes.
func NewHTTPClient() *http.Client {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if shared, ok := http.DefaultTransport.(*http.Transport); ok {
		client.Transport = shared.Clone()
	}
	return client
}

func Dial(ctx context.Context, issuer, id, secret string) (*Client, error) {
	c := &Client{HTTP: NewHTTPClient(), ID: id, secret: secret}
	found, err := oauth.Discover(ctx, c.HTTP, issuer)
	if err != nil {
		c.Close()
		_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
		if !untrusted && !errors.Is(err, oauth.ErrOtherIssuer) {
			err = cli.WithExit(cli.ExitUnavailable, err)
		}
		return nil, err
	}
	c.Metadata = found
	return c, nil
}

// Hide keeps secrets that are sent out of what the issuer's answers are quoted with.
func (c *Client) Hide(secrets ...string) { c.hidden = append(c.hidden, secrets...) }

func (c *Client) Close() { c.HTTP.CloseIdleConnections() }

// Issue asks for a token (RFC 6749 §4.4.2). It gives the answer as it came, too.
func (c *Client) Issue(ctx context.Context, scopes, resources []string) ([]byte, *IssuedToken, error) {
	form := url.Values{"grant_type": {oauth.GrantClientCredentials}}
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	if len(resources) > 0 {
		form["resource"] = resources
	}
	body, err := c.post(ctx, "token_endpoint", c.Metadata.TokenEndpoint, form)
	if err != nil {
		return nil, nil, err
	}
	var issued IssuedToken
	if json.Unmarshal(body, &issued) != nil || issued.Token == "" || len(issued.Token) > token.MaxSize {
		return nil, nil, errors.New("the token endpoint's answer is not that of RFC 6749 §5.1")
	}
	// RFC 6749 §7.1: a token of a type that is not understood must not be used.
	if !strings.EqualFold(issued.Type, "Bearer") {
		return nil, nil, fmt.Errorf("the token endpoint's token_type is %.20q, not Bearer", issued.Type)
	}
	// A token goes into headers and command lines, which other characters would break out of.
	if strings.ContainsFunc(issued.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, nil, errors.New("the token endpoint's access_token is not visible ASCII")
	}
	return body, &issued, nil
}

// Introspect asks about a token (RFC 7662 §2).
func (c *Client) Introspect(ctx context.Context, raw string) ([]byte, error) {
	body, err := c.post(ctx, "introspection_endpoint", c.Metadata.IntrospectionEndpoint, url.Values{"token": {raw}})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Active *bool `json:"active"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Active == nil {
		return nil, errors.New("the introspection endpoint's answer is not that of RFC 7662 §2.2")
	}
	return body, nil
}

// Revoke takes back a token (RFC 7009 §2). The answer's body means nothing (§2.2).
func (c *Client) Revoke(ctx context.Context, raw string) error {
	_, err := c.post(ctx, "revocation_endpoint", c.Metadata.RevocationEndpoint, url.Values{"token": {raw}})
	return err
}

// post sends a form with the client's credentials and gives the body of a 200. name is the endpoint's in the issuer's
// description.
func (c *Client) post(ctx context.Context, name, place string, form url.Values) ([]byte, error) {
	if place == "" {
		return nil, fmt.Errorf("the description of %s has no %s", c.Metadata.Issuer, name)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, place, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	// RFC 6749 §2.3.1: both are form-encoded before they are put together, so that an id may have a colon.
	request.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(c.secret))
	answer, err := c.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer of the %s: %w", name, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the %s answered more than %d bytes", name, maxAnswer)
	case answer.StatusCode == http.StatusOK:
		return body, nil
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return nil, fmt.Errorf("the %s answered %d; a redirection is not followed, as the request carries the client's secret", name, answer.StatusCode)
	}
	var refused struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &refused) != nil || refused.Code == "" {
		return nil, &CallError{Code: codeOfHTTP(answer.StatusCode), Text: fmt.Sprintf("the %s answered %d", name, answer.StatusCode)}
	}
	return nil, &CallError{Code: codeOfOAuth[oauth.Code(refused.Code)], Text: c.refusal(refused.Code, refused.Description, form.Get("token"))}
}

// IssuedToken is an answer of RFC 6749 §5.1.
type IssuedToken struct {
	Token string `json:"access_token"`
	Type  string `json:"token_type"`
	// Lifetime is in seconds. Some issuers put it in quotes, which json.Number accepts too.
	Lifetime json.Number `json:"expires_in"`
	Scope    string      `json:"scope"`
}

// codeOfOAuth has OAuth error code → gRPC code.
var codeOfOAuth = map[oauth.Code]codes.Code{
	oauth.InvalidRequest:         codes.InvalidArgument,
	oauth.InvalidScope:           codes.InvalidArgument,
	oauth.InvalidTarget:          codes.InvalidArgument,
	oauth.UnsupportedGrantType:   codes.InvalidArgument,
	oauth.InvalidClient:          codes.Unauthenticated,
	oauth.UnauthorizedClient:     codes.PermissionDenied,
	oauth.TemporarilyUnavailable: codes.Unavailable,
}

// codeOfHTTP gives the gRPC code for an answer that says no more than its status.
func codeOfHTTP(status int) codes.Code {
	switch status {
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}

// refusal words the issuer's refusal in one line: the OAuth code and the text for the developer.
func (c *Client) refusal(code, description string, hidden ...string) string {
	text := c.Clean(code, hidden...)
	if description != "" {
		text += ": " + c.Clean(description, hidden...)
	}
	return text
}

// Clean bounds what a server said, takes out what would act on a terminal, and hides what a server that echoes its
// request must not carry into a log.
func (c *Client) Clean(text string, hidden ...string) string {
	const most = 256
	basic := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(c.ID) + ":" + url.QueryEscape(c.secret)))
	for _, secret := range slices.Concat(hidden, c.hidden, []string{basic, url.QueryEscape(c.secret), c.secret}) {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return cli.Printable(text[:min(len(text), most)])
}

// RevokeAll takes back all tokens of the client. That has no HTTP mirror.
func (c *Client) RevokeAll(ctx context.Context) error {
	conn, err := c.DialGRPC()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = grantorv1.NewTokenServiceClient(conn).RevokeClientTokens(ctx, &grantorv1.RevokeClientTokensRequest{
		ClientId: c.ID, ClientSecret: c.secret,
	})
	return c.explain(err)
}

// explain words the failure of a gRPC call in one line.
func (c *Client) explain(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	e := &CallError{
		Code: s.Code(), Message: s.Message(),
		Text: "the issuer's gRPC port " + cli.Printable(c.Metadata.GRPCEndpoint) + ": " + c.Clean(s.Message()),
	}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == oauth.ErrorDomain {
				e.Text = c.refusal(d.GetReason(), s.Message())
			}
		case *errdetails.BadRequest:
			for _, violation := range d.GetFieldViolations()[:min(1, len(d.GetFieldViolations()))] {
				e.Field, e.Problem = c.Clean(violation.GetField()), c.Clean(violation.GetDescription())
			}
		}
	}
	return e
}

// DialGRPC opens a connection to the issuer's gRPC port.
func (c *Client) DialGRPC(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	endpoint := c.Metadata.GRPCEndpoint
	if endpoint == "" {
		return nil, fmt.Errorf("the description of %s has no grantor_grpc_endpoint: it is not a Grantor, which this takes", c.Metadata.Issuer)
	}
	// What is before a colon could name another of gRPC's resolvers.
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, fmt.Errorf("the issuer's grantor_grpc_endpoint %.200q is not host:port", endpoint)
	}
	// The system's resolver, as for REST: gRPC's own would ask the DNS for records of services at each connection, and wait.
	return grpc.NewClient("passthrough:///"+endpoint, append(options, grpc.WithTransportCredentials(grpcSecurity(c.Metadata.Issuer, host)))...)
}

// grpcSecurity is plaintext where the issuer says http, and so is on loopback, and host is too; else TLS.
func grpcSecurity(issuer, host string) credentials.TransportCredentials {
	if strings.HasPrefix(issuer, "http://") && oauth.Loopback(host) {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
}
