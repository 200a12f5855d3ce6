// Package oauth provides the vocabulary of OAuth 2.0 as types that are valid by construction: error codes, scopes, and
// the identifiers of clients, resources and issuers. It implements RFC 6749 §3.3 and §5.2, RFC 8414 §2 and RFC 8707 §2.
//
//	scopes, err := oauth.ParseScopes("orders.read orders.write")
//	refusal := oauth.From(err) // an *oauth.Error with the code and the text for the client
//
// Every parser limits the size of its input before it parses it. Errors that are due to a request are of type [*Error].
package oauth

import (
	"errors"
	"net"
	"net/url"
	"path"
	"strings"
)

// GrantClientCredentials is the grant type of a client that acts for itself (RFC 6749 §4.4).
const GrantClientCredentials = "client_credentials"

// Token endpoint authentication methods, as named in the IANA registry.
const (
	ClientSecretBasic = "client_secret_basic"
	ClientSecretPost  = "client_secret_post"
)

// Maximum sizes of input, in bytes unless stated otherwise.
const (
	MaxID       = 255
	MaxSecret   = 512
	MaxResource = 512
	// MaxScopes is the maximum number of scopes in a request or of a client.
	MaxScopes = 64
	// MaxResources is the maximum number of resources in a request.
	MaxResources = 16
	maxScope     = 128
)

// ClientID identifies a client: 1 to [MaxID] bytes of visible ASCII (RFC 6749 appendix A.1), compared byte for byte.
// The zero value is no client.
type ClientID struct{ id string }

// ParseClientID parses a client identifier. The error is an [InvalidRequest].
func ParseClientID(s string) (ClientID, error) {
	if s == "" || len(s) > MaxID {
		return ClientID{}, Refuse(InvalidRequest, "client_id must have 1 to 255 characters.")
	}
	if !visible(s) {
		return ClientID{}, Refuse(InvalidRequest, "client_id must be visible ASCII.")
	}
	return ClientID{s}, nil
}

// String returns the identifier as it is sent.
func (id ClientID) String() string { return id.id }

// Resource identifies a resource for which tokens are issued (RFC 8707 §2): an absolute URI of at most [MaxResource]
// bytes without a fragment, compared byte for byte. It is the "aud" of those tokens.
type Resource struct{ uri string }

// ParseResource parses a resource identifier. The error is an [InvalidTarget].
func ParseResource(s string) (Resource, error) {
	refusal := Refuse(InvalidTarget, "resource must be an absolute URI without a fragment, at most 512 characters.")
	if s == "" || len(s) > MaxResource || !visible(s) {
		return Resource{}, refusal
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || strings.Contains(s, "#") || (u.Host == "" && u.Opaque == "" && u.Path == "") {
		return Resource{}, refusal
	}
	return Resource{s}, nil
}

// String returns the identifier as it is sent.
func (r Resource) String() string { return r.uri }

// Issuer identifies an issuer (RFC 8414 §2): an https URL of at most [MaxResource] bytes without a query or fragment.
// Plain http is accepted if the host is loopback.
type Issuer struct{ url string }

// ParseIssuer parses an issuer identifier. The error is not an [*Error]: an issuer comes from the configuration.
func ParseIssuer(s string) (Issuer, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || len(s) > MaxResource || !visible(s):
		return Issuer{}, errors.New("an issuer is a URL such as https://auth.example.com")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return Issuer{}, errors.New("an issuer has no user, query or fragment (RFC 8414 §2)")
	case strings.HasSuffix(s, "/"):
		return Issuer{}, errors.New("an issuer does not end with a slash: endpoints are appended to it")
	case !strings.HasSuffix(s, u.EscapedPath()) || !plainPath(u.EscapedPath()):
		return Issuer{}, errors.New(`the path of an issuer has no empty segment, no ".", ".." or "%2e", and nothing that must be percent-encoded: clients would request another`)
	case u.Scheme != "https" && (u.Scheme != "http" || !Loopback(u.Hostname())):
		return Issuer{}, errors.New("an issuer is an https URL; http is accepted on loopback only")
	}
	return Issuer{s}, nil
}

// Host returns the issuer's host, without a port.
func (i Issuer) Host() string {
	u, err := url.Parse(i.url)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Path returns the path of the issuer as it is sent, such as "/tenant1", or the empty string if it has none.
func (i Issuer) Path() string {
	u, err := url.Parse(i.url)
	if err != nil {
		return ""
	}
	return u.EscapedPath()
}

// plainPath reports whether clients and proxies send the path as it is. URL parsers remove dot segments, also encoded ones,
// and many proxies merge slashes.
func plainPath(escaped string) bool {
	return (escaped == "" || path.Clean(escaped) == escaped) && !strings.Contains(strings.ToLower(escaped), "%2e")
}

// String returns the issuer as it appears in "iss".
func (i Issuer) String() string { return i.url }

// Loopback reports whether host, a name or an IP address without a port, is "localhost" or a loopback address.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// LoopbackTarget reports whether a canonical gRPC target ("dns:///localhost:8081", "unix:/path") is on this machine. It
// returns false for unknown schemes, and for a name that another machine's resolver is to resolve.
func LoopbackTarget(canonical string) bool {
	target, err := url.Parse(canonical)
	if err != nil {
		return false
	}
	switch target.Scheme {
	case "unix", "unix-abstract":
		return true
	case "dns", "passthrough":
		endpoint := strings.TrimPrefix(target.Path, "/")
		host, _, err := net.SplitHostPort(endpoint)
		if err != nil {
			host = strings.Trim(endpoint, "[]")
		}
		return target.Host == "" && Loopback(host)
	}
	return false
}

// visible reports whether s consists of VCHAR only: %x21-7E (RFC 5234 appendix B.1).
func visible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
