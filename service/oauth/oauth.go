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
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// GrantClientCredentials is the grant type of a client that acts for itself (RFC 6749 §4.4).
const GrantClientCredentials = "client_credentials"

// Token endpoint authentication methods, as named in the IANA registry, apart from FederatedJWT, which has no name there: an
// assertion (RFC 7523 §3) of an issuer that is not the client.
const (
	ClientSecretBasic = "client_secret_basic"
	ClientSecretPost  = "client_secret_post"
	PrivateKeyJWT     = "private_key_jwt"
	// TLSClientAuth and SelfSignedTLSClientAuth are the two methods of RFC 8705 §2.
	TLSClientAuth           = "tls_client_auth"
	SelfSignedTLSClientAuth = "self_signed_tls_client_auth"
	FederatedJWT            = "federated_jwt"
	// SPIFFEJWT and SPIFFEX509 are the methods of draft-ietf-oauth-spiffe-client-auth.
	SPIFFEJWT  = "spiffe_jwt"
	SPIFFEX509 = "spiffe_x509"
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
	if !isResource(s) {
		return Resource{}, Refuse(InvalidTarget, "resource must be an absolute URI without a fragment, at most 512 characters.")
	}
	return Resource{s}, nil
}

func isResource(s string) bool {
	if s == "" || len(s) > MaxResource || !visible(s) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && !strings.Contains(s, "#") && (u.Host != "" || u.Opaque != "" || u.Path != "")
}

// String returns the identifier as it is sent.
func (r Resource) String() string { return r.uri }

// Issuer identifies an issuer (RFC 8414 §2): an https URL of at most [MaxResource] bytes without a query or fragment, which
// clients and proxies send as it is. Plain http is accepted if the host is loopback.
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
	case !plainHost(u):
		return Issuer{}, errors.New(`the host of an issuer is an IP address or a name of letters, digits, "-", "." and "_": clients would refuse or change another`)
	case !plainPort(u):
		return Issuer{}, errors.New("the port of an issuer is from 1 to 65535, without leading zeros: clients would refuse or change another")
	case !strings.HasSuffix(s, u.EscapedPath()) || !plainPath(u):
		return Issuer{}, errors.New(`the path of an issuer has no empty segment, "." or "..", nothing that must be percent-encoded and is not, and no percent-encoding that is not needed, in lower case, or of \, %, ?, # or a control: clients or proxies would request another`)
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

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// plainHost reports whether the host of the URL is a name of letters, digits, "-", "." and "_", or an IP address. An IPv6 address
// has no zone, because a zone has no meaning on another machine. [url.Parse] accepts more, such as quotes, which RFC 3986 §3.2.2
// does not allow, and decodes names that are percent-encoded.
func plainHost(u *url.URL) bool {
	if strings.HasPrefix(u.Host, "[") {
		ip, err := netip.ParseAddr(u.Hostname())
		return err == nil && ip.Is6() && ip.Zone() == ""
	}
	return strings.Trim(u.Hostname(), alphanumeric+"-._") == ""
}

// plainPort reports whether the URL has no port, or one that clients can connect to and send as it is: URL parsers remove
// leading zeros, and the colon of an empty port.
func plainPort(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil && port[0] != '0'
}

// plainPath reports whether clients and proxies send the path as it is. URL parsers remove dot segments, and many proxies merge
// slashes. Percent-encoding is plain if the character needs it and the digits are in upper case (RFC 3986 §6.2.2): otherwise
// clients decode it. No character is plain that a proxy which decodes the path takes for a separator or for the start of another
// encoding, or that is not printable.
func plainPath(u *url.URL) bool {
	unsafe := func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(`\%?#`, r) }
	return (u.Path == "" || path.Clean(u.Path) == u.Path) && utf8.ValidString(u.Path) && !strings.ContainsFunc(u.Path, unsafe) &&
		u.EscapedPath() == encodePath(u.Path)
}

// encodePath percent-encodes the characters that RFC 3986 §3.3 does not allow in a path, and no others.
func encodePath(decoded string) string {
	var b strings.Builder
	for _, c := range []byte(decoded) {
		if strings.IndexByte(alphanumeric+"/-._~!$&'()*+,;=:@", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
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
