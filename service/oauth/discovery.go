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

// Metadata is what a caller needs of an issuer's description (RFC 8414 §2).
type Metadata struct {
	Issuer        string `json:"issuer"`
	TokenEndpoint string `json:"token_endpoint"`
	JWKSURI       string `json:"jwks_uri"`
}

// Discover reads the description of an issuer, ours or any other that follows RFC 8414 or OpenID Connect. The answer's
// "issuer" must be the issuer asked for (RFC 8414 §3.3), and no endpoint may leave https, loopback aside.
func Discover(ctx context.Context, client *http.Client, issuer string) (*Metadata, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("the issuer %q is not a URL", issuer)
	}
	path := strings.TrimSuffix(u.Path, "/")
	var failures []error
	// RFC 8414 §3.1 puts the issuer's path behind the well-known part, OpenID Connect before it.
	for _, place := range []string{WellKnownServer + path, path + WellKnownOpenID} {
		body, _, err := Get(ctx, client, u.Scheme+"://"+u.Host+place, maxMetadata)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		var found Metadata
		if err := json.Unmarshal(body, &found); err != nil {
			return nil, fmt.Errorf("the description of %s: %w", issuer, err)
		}
		return &found, found.check(issuer)
	}
	return nil, fmt.Errorf("no description of the issuer %s: %w", issuer, errors.Join(failures...))
}

func (m *Metadata) check(issuer string) error {
	if m.Issuer != issuer {
		return fmt.Errorf("the issuer calls itself %.200q, not %q (RFC 8414 §3.3)", m.Issuer, issuer)
	}
	for _, endpoint := range []string{m.TokenEndpoint, m.JWKSURI} {
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
	if err != nil || u.Host == "" {
		return fmt.Errorf("%.200q is not a URL", raw)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !Loopback(u.Hostname())) {
		return fmt.Errorf("%.200q is neither https nor loopback", raw)
	}
	return nil
}

// Get reads a document of at most limit bytes. An answer other than 200 is an error.
func Get(ctx context.Context, client *http.Client, url string, limit int64) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/json")
	answer, err := client.Do(request)
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
