package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Paths of the issuer's metadata (RFC 8414 §3, OpenID Connect Discovery §4).
const (
	WellKnownServer = "/.well-known/oauth-authorization-server"
	WellKnownOpenID = "/.well-known/openid-configuration"
)

// maxMetadata is the maximum size of metadata, in bytes.
const maxMetadata = 256 << 10

// maxRedirects is the maximum number of redirects that a request follows.
const maxRedirects = 5

// Metadata is the part of an issuer's metadata that clients and resource servers need (RFC 8414 §2).
type Metadata struct {
	Issuer                string `json:"issuer"`
	TokenEndpoint         string `json:"token_endpoint"`
	IntrospectionEndpoint string `json:"introspection_endpoint"`
	RevocationEndpoint    string `json:"revocation_endpoint"`
	JWKSURI               string `json:"jwks_uri"`
	// GRPCEndpoint is the address of Grantor's gRPC services, as host:port. It is empty for other issuers.
	GRPCEndpoint string `json:"grantor_grpc_endpoint"`
	// TokenEndpointAuthMethods are the methods of client authentication at the token endpoint, or nil if the issuer
	// names none.
	TokenEndpointAuthMethods Words `json:"token_endpoint_auth_methods_supported"`
	// MTLSAliases are the endpoints for clients that present a certificate, where they are others (RFC 8705 §5).
	MTLSAliases struct {
		TokenEndpoint string `json:"token_endpoint"`
	} `json:"mtls_endpoint_aliases"`
}

// Words is a list of strings in metadata. Decoding it never fails, because no reader depends on the list alone: a single
// string counts as a list of one, and anything else as no list.
type Words []string

// UnmarshalJSON implements [json.Unmarshaler].
func (w *Words) UnmarshalJSON(data []byte) error {
	var list []string
	var one string
	switch {
	case json.Unmarshal(data, &list) == nil:
		*w = list
	case json.Unmarshal(data, &one) == nil:
		*w = Words{one}
	default:
		*w = nil
	}
	return nil
}

// SecretMethods returns the methods in token_endpoint_auth_methods_supported by which a client sends its secret, the
// preferred one first. Without a list the method is client_secret_basic (RFC 8414 §2), and so it is with a list of other
// methods, which may be out of date.
func SecretMethods(supported []string) []string {
	methods := slices.DeleteFunc([]string{ClientSecretBasic, ClientSecretPost}, func(m string) bool {
		return !slices.Contains(supported, m)
	})
	if len(methods) == 0 {
		return []string{ClientSecretBasic}
	}
	return methods
}

// ErrOtherIssuer reports that metadata is that of another issuer than the requested one (RFC 8414 §3.3).
var ErrOtherIssuer = errors.New("not the issuer asked for")

// Discover fetches the metadata of an issuer as [Discovery.Metadata] does, from the issuer's own URL.
func Discover(ctx context.Context, client *http.Client, issuer string) (*Metadata, error) {
	return Discovery{Client: client}.Metadata(ctx, issuer)
}

// Discovery says how an issuer's documents are fetched.
type Discovery struct {
	// Client makes the requests. It is required.
	Client *http.Client
	// From is the URL at which the issuer is reached, where it has another one here than outside, such as inside a
	// cluster. The issuer keeps its name: the metadata must contain it. An endpoint in the metadata that is below the
	// issuer's URL, or at least on its host, is reached below From, or on its host. If From is empty, it is the issuer.
	From string
	// AllowPlaintext permits requests without TLS to hosts other than loopback.
	AllowPlaintext bool
}

// Base returns the URL at which the issuer is reached.
func (d Discovery) Base(issuer string) string {
	if d.From == "" {
		return issuer
	}
	return d.From
}

// Secure returns an error if [SecureURL] does. If plaintext is permitted, it accepts http to any host.
func (d Discovery) Secure(raw string) error {
	if !d.AllowPlaintext {
		return SecureURL(raw)
	}
	u, err := parseURL(raw)
	if err == nil && u.Scheme != "https" && u.Scheme != "http" {
		err = fmt.Errorf("%.200q is neither https nor http", RedactURL(raw))
	}
	return err
}

// Metadata fetches the metadata of an issuer that follows RFC 8414 or OpenID Connect Discovery. If the "issuer" in the
// metadata is not the requested one, the error wraps [ErrOtherIssuer]. Metadata returns an error if the request, a
// redirect or an endpoint in the metadata is neither https nor on loopback, unless plaintext is permitted.
func (d Discovery) Metadata(ctx context.Context, issuer string) (*Metadata, error) {
	base := d.Base(issuer)
	if err := d.Secure(base); err != nil {
		return nil, fmt.Errorf("the issuer: %w", err)
	}
	locations, err := MetadataURLs(base)
	if err != nil {
		return nil, err
	}
	errs := fmt.Errorf("no metadata of the issuer %s", RedactURL(issuer))
	for _, location := range locations {
		found, err := d.MetadataAt(ctx, location, issuer)
		if err == nil {
			return found, nil
		}
		if !sameCause(errs, err) {
			errs = fmt.Errorf("%w; %w", errs, err)
		}
	}
	return nil, errs
}

// MetadataURLs returns the URLs at which an issuer's metadata are looked for. RFC 8414 §3.1 puts the issuer's path after
// the well-known part, OpenID Connect Discovery §4 before it.
func MetadataURLs(issuer string) ([]string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	host, path := u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")
	return []string{host + WellKnownServer + path, host + path + WellKnownOpenID}, nil
}

// sameCause reports whether two requests failed for the same reason without a response, which one error states.
func sameCause(a, b error) bool {
	one, ok := errors.AsType[*url.Error](a)
	other, also := errors.AsType[*url.Error](b)
	return ok && also && one.Err.Error() == other.Err.Error()
}

// MetadataAt fetches the metadata at one URL, as [Discovery.Metadata] does. The response may be unrelated: some servers
// answer every path with their start page, or any path below the well-known part with the metadata of another tenant.
func (d Discovery) MetadataAt(ctx context.Context, location, issuer string) (*Metadata, error) {
	body, _, err := d.Get(ctx, location, maxMetadata)
	if err != nil {
		return nil, err
	}
	var found Metadata
	if err := json.Unmarshal(body, &found); err != nil {
		return nil, fmt.Errorf("%s: %w", location, err)
	}
	if found.Issuer != issuer {
		return nil, fmt.Errorf("%s: %w: it calls itself %.200q, not %.200q", location, ErrOtherIssuer,
			RedactURL(found.Issuer), RedactURL(issuer))
	}
	if err := d.locate(&found); err != nil {
		return nil, fmt.Errorf("%s: %w", location, err)
	}
	return &found, nil
}

// locate replaces the URLs of m by those at which the endpoints are reached, and returns an error if one is insecure.
func (d Discovery) locate(m *Metadata) error {
	for _, endpoint := range []*string{
		&m.TokenEndpoint, &m.IntrospectionEndpoint, &m.RevocationEndpoint, &m.JWKSURI, &m.MTLSAliases.TokenEndpoint,
	} {
		if *endpoint == "" {
			continue
		}
		*endpoint = d.relocate(m.Issuer, *endpoint)
		if err := d.Secure(*endpoint); err != nil {
			return err
		}
	}
	if host, port, err := net.SplitHostPort(m.GRPCEndpoint); err == nil && d.From != "" {
		outside, inside := parsed(m.Issuer), parsed(d.From)
		if EqualFold(host, outside.Hostname()) && inside.Hostname() != "" {
			m.GRPCEndpoint = net.JoinHostPort(inside.Hostname(), port)
		}
	}
	return nil
}

// relocate returns where an endpoint of the issuer is reached.
func (d Discovery) relocate(issuer, endpoint string) string {
	if d.From == "" {
		return endpoint
	}
	if rest, ok := strings.CutPrefix(endpoint, strings.TrimSuffix(issuer, "/")+"/"); ok {
		return strings.TrimSuffix(d.From, "/") + "/" + rest
	}
	outside, inside, at := parsed(issuer), parsed(d.From), parsed(endpoint)
	if at.Host == "" || at.Scheme != outside.Scheme || !sameHost(at, outside) {
		return endpoint // a server of its own
	}
	at.Scheme, at.Host = inside.Scheme, inside.Host
	return at.String()
}

// sameHost reports whether two URLs have the same host and port.
func sameHost(a, b *url.URL) bool { return EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b) }

// port returns the port of an http or https URL.
func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// parsed returns the URL, which is empty if raw is not one.
func parsed(raw string) *url.URL {
	u, err := url.Parse(raw)
	if err != nil {
		return &url.URL{}
	}
	return u
}

// SecureURL returns an error if a request to the URL would cross the network without TLS: the scheme must be https, or
// http to a loopback host.
func SecureURL(raw string) error {
	u, err := parseURL(raw)
	if err == nil && u.Scheme != "https" && (u.Scheme != "http" || !Loopback(u.Hostname())) {
		err = fmt.Errorf("%.200q is neither https nor loopback", RedactURL(raw))
	}
	return err
}

// parseURL parses a URL that has a host. The error does not quote what may be secret in it.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("%.200q is not a URL", RedactURL(raw))
	}
	return u, nil
}

// RedactURL returns a URL for an error or a log: without userinfo, query and fragment, which may be secret. A text that
// is not a URL with a host and could contain one of them is replaced as a whole.
func RedactURL(raw string) string {
	u, err := url.Parse(raw)
	switch {
	case !strings.ContainsAny(raw, "@?#"):
		return raw
	case err == nil && u.Host != "":
		return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
	}
	return "(not shown, as it may contain a secret)"
}

// redactError removes from an error of [http.Client] what [RedactURL] removes from its URL.
func redactError(err error) error {
	if failed, ok := err.(*url.Error); ok { //nolint:errorlint // the client's own, not one that a transport returned
		return &url.Error{Op: failed.Op, URL: RedactURL(failed.URL), Err: failed.Err}
	}
	return err
}

// Get fetches a document as [Discovery.Get] does, without plaintext.
func Get(ctx context.Context, client *http.Client, location string, limit int64) ([]byte, http.Header, error) {
	return Discovery{Client: client}.Get(ctx, location, limit)
}

// Get fetches a document of at most limit bytes and returns its body and header. A status other than 200 is an error,
// and so is a redirect to a URL that [SecureURL] rejects, unless plaintext is permitted: an attacker on the network
// could answer in the issuer's place.
func (d Discovery) Get(ctx context.Context, location string, limit int64) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	name := RedactURL(location)
	if err != nil {
		return nil, nil, fmt.Errorf("%.200q is not a URL", name)
	}
	request.Header.Set("Accept", "application/json")
	// An HTTP/2 connection that fell silent would stay in the client's pool and be used for every retry.
	request.Close = true
	secure := *d.Client
	secure.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if err := d.Secure(next.URL.String()); err != nil {
			return err
		}
		if d.Client.CheckRedirect != nil {
			return d.Client.CheckRedirect(next, via)
		}
		if len(via) >= maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return nil
	}
	answer, err := secure.Do(request)
	if err != nil {
		return nil, nil, redactError(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s answered %s", name, answer.Status)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("%s answered more than %d bytes", name, limit)
	}
	return body, answer.Header, nil
}
