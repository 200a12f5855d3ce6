package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// The places of the issuer's description, below the issuer's host (RFC 8414 §3, OpenID Connect Discovery §4).
const (
	WellKnownServer = "/.well-known/oauth-authorization-server"
	WellKnownOpenID = "/.well-known/openid-configuration"
)

// maxMetadata bounds a description that is read, in bytes.
const maxMetadata = 256 << 10

// maxRedirects bounds how far a request is passed on.
const maxRedirects = 5

// Metadata is what a caller needs of an issuer's description (RFC 8414 §2).
type Metadata struct {
	Issuer                string `json:"issuer"`
	TokenEndpoint         string `json:"token_endpoint"`
	IntrospectionEndpoint string `json:"introspection_endpoint"`
	RevocationEndpoint    string `json:"revocation_endpoint"`
	JWKSURI               string `json:"jwks_uri"`
	// GRPCEndpoint is where Grantor has its gRPC services, as host:port; empty for other issuers.
	GRPCEndpoint string `json:"grantor_grpc_endpoint"`
}

// ErrOtherIssuer says that who answered is another issuer than the one asked for (RFC 8414 §3.3).
var ErrOtherIssuer = errors.New("not the issuer asked for")

// Discover reads the description of an issuer, ours or any other that follows RFC 8414 or OpenID Connect. The answer's
// "issuer" must be the issuer asked for, else the error is [ErrOtherIssuer]; and neither the request nor any endpoint
// may leave https, loopback aside.
func Discover(ctx context.Context, client *http.Client, issuer string) (*Metadata, error) {
	if err := SecureURL(issuer); err != nil {
		return nil, fmt.Errorf("the issuer: %w", err)
	}
	u, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	failure := fmt.Errorf("no description of the issuer %s", issuer)
	// RFC 8414 §3.1 puts the issuer's path behind the well-known part, OpenID Connect before it.
	for _, place := range []string{WellKnownServer + path, path + WellKnownOpenID} {
		found, err := describe(ctx, client, u.Scheme+"://"+u.Host+place, issuer)
		if err == nil {
			return found, nil
		}
		failure = fmt.Errorf("%w; %w", failure, err)
	}
	return nil, failure
}

// describe reads one place. An answer there need not be meant for us: some servers answer every path with their start
// page, or any path below the well-known part with the description of another tenant.
func describe(ctx context.Context, client *http.Client, place, issuer string) (*Metadata, error) {
	body, _, err := Get(ctx, client, place, maxMetadata)
	if err != nil {
		return nil, err
	}
	var found Metadata
	if err := json.Unmarshal(body, &found); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	if err := found.check(issuer); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return &found, nil
}

func (m *Metadata) check(issuer string) error {
	if m.Issuer != issuer {
		return fmt.Errorf("%w: it calls itself %.200q, not %.200q", ErrOtherIssuer, m.Issuer, issuer)
	}
	for _, endpoint := range []string{m.TokenEndpoint, m.IntrospectionEndpoint, m.RevocationEndpoint, m.JWKSURI} {
		if endpoint == "" {
			continue
		}
		if err := SecureURL(endpoint); err != nil {
			return err
		}
	}
	return nil
}

// SecureURL refuses a URL that would send its request in the clear to another machine.
func SecureURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("%.200q is not a URL", raw)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !Loopback(u.Hostname())) {
		return fmt.Errorf("%.200q is neither https nor loopback", raw)
	}
	return nil
}

// Get reads a document of at most limit bytes. An answer other than 200 is an error, and so is a redirection that
// leaves https, loopback aside: whoever listens on the way could answer in the issuer's place.
func Get(ctx context.Context, client *http.Client, url string, limit int64) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/json")
	// A connection of HTTP/2 that fell silent would stay in the client's pool and be asked again each time.
	request.Close = true
	careful := *client
	careful.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if err := SecureURL(next.URL.String()); err != nil {
			return err
		}
		if client.CheckRedirect != nil {
			return client.CheckRedirect(next, via)
		}
		if len(via) >= maxRedirects {
			return fmt.Errorf("more than %d redirections", maxRedirects)
		}
		return nil
	}
	answer, err := careful.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s answered %s", url, answer.Status)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", url, err)
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("%s answered more than %d bytes", url, limit)
	}
	return body, answer.Header, nil
}
