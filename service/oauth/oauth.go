// Package oauth has the words of the OAuth protocol as types that cannot be wrong: error codes, scopes, and the ids of
// clients, resources and issuers. It carries out RFC 6749 §3.3 and §5.2, RFC 8414 §2 and RFC 8707 §2.
//
// Every parser bounds its input before it looks at it. What a parser refuses is an [*Error].
package oauth

import (
	"errors"
	"net"
	"net/url"
	"strings"
)

// GrantClientCredentials is the grant of a service that speaks for itself (RFC 6749 §4.4).
const GrantClientCredentials = "client_credentials"

// The ways in which a client proves who it is, named as in the IANA registry of token endpoint authentication methods.
const (
	ClientSecretBasic = "client_secret_basic"
	ClientSecretPost  = "client_secret_post"
)

// Bounds on what comes in, in bytes unless said.
const (
	MaxID       = 255
	MaxSecret   = 512
	MaxResource = 512
	// MaxScopes counts scopes in one request or one client.
	MaxScopes = 64
	// MaxResources counts resources in one request.
	MaxResources = 16
	maxScope     = 128
)

// ClientID identifies a client: 1 to [MaxID] bytes of visible ASCII (RFC 6749 appendix A.1), compared byte for byte.
type ClientID struct{ id string }

// ParseClientID makes a client id of s.
func ParseClientID(s string) (ClientID, error) {
	if s == "" || len(s) > MaxID {
		return ClientID{}, Refuse(InvalidRequest, "client_id must have 1 to 255 characters.")
	}
	if !visible(s) {
		return ClientID{}, Refuse(InvalidRequest, "client_id must be visible ASCII.")
	}
	return ClientID{s}, nil
}

// String gives the id as it stands on the wire.
func (id ClientID) String() string { return id.id }

// Resource identifies what a token is for (RFC 8707 §2): an absolute URI without a fragment, compared byte for byte. It
// is the "aud" of the tokens for it.
type Resource struct{ uri string }

// ParseResource makes a resource identifier of s.
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

// String gives the identifier as it stands on the wire.
func (r Resource) String() string { return r.uri }

// Issuer identifies who issues tokens (RFC 8414 §2): an https URL without query or fragment. Plain http is accepted
// where the host is loopback.
type Issuer struct{ url string }

// ParseIssuer makes an issuer of s.
func ParseIssuer(s string) (Issuer, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || len(s) > MaxResource || !visible(s):
		return Issuer{}, errors.New("an issuer is a URL such as https://auth.example.com")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return Issuer{}, errors.New("an issuer has no user, query or fragment (RFC 8414 §2)")
	case strings.HasSuffix(s, "/"):
		return Issuer{}, errors.New("an issuer does not end with a slash: endpoints are appended to it")
	case u.Scheme != "https" && (u.Scheme != "http" || !Loopback(u.Hostname())):
		return Issuer{}, errors.New("an issuer is an https URL; http is accepted on loopback only")
	}
	return Issuer{s}, nil
}

// Host gives the issuer's host, without a port.
func (i Issuer) Host() string {
	u, err := url.Parse(i.url)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// String gives the issuer as it stands in "iss".
func (i Issuer) String() string { return i.url }

// Loopback reports whether host, a name or an address without a port, is this machine's own.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// LoopbackTarget reports whether a canonical gRPC target ("dns:///localhost:8081", "unix:/path") is this machine. A scheme
// that is not known here is not, nor a name that another machine's resolver is asked for.
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

// visible reports whether s is made of VCHAR alone: %x21-7E (RFC 5234 appendix B.1).
func visible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
