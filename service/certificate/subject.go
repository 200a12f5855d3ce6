package certificate

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// maxName is the maximum length of a name in a [Subject], in bytes.
const maxName = 512

// Subject is the name in a certificate by which it is a client's. One field at most is set, each of them the value of the
// client's metadata tls_client_auth_… (RFC 8705 §2.1.2).
type Subject struct {
	// DN is the distinguished name of the subject, in the form of RFC 4514.
	DN string
	// DNS, URI, IP and Email are subject alternative names (RFC 5280 §4.2.1.6).
	DNS, URI, IP, Email string
}

// String returns the name; the empty text for the zero value.
func (s Subject) String() string { return s.DN + s.DNS + s.URI + s.IP + s.Email }

// CheckDN returns what is wrong with a distinguished name; "" if nothing is or the name is empty.
func CheckDN(text string) (problem string) {
	if text == "" {
		return ""
	}
	_, err := parseDN(text)
	return describe(text, err)
}

// CheckDNS returns what is wrong with a DNS name; "" if nothing is.
func CheckDNS(name string) (problem string) {
	var err error
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("*/:@,\\\"", r) }) || strings.HasSuffix(name, ".") {
		err = fmt.Errorf("is not a DNS name such as orders.example.com")
	}
	return describe(name, err)
}

// CheckURI returns what is wrong with a URI; "" if nothing is.
func CheckURI(text string) (problem string) {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })) {
		return "is not an absolute URI such as spiffe://example.com/orders"
	}
	return describe(text, nil)
}

// CheckIP returns what is wrong with an IP address; "" if nothing is.
func CheckIP(text string) (problem string) {
	if text == "" {
		return ""
	}
	if address, err := netip.ParseAddr(text); err != nil || address.Zone() != "" || address.Is4In6() {
		return "is not an IP address such as 192.0.2.1 or 2001:db8::1"
	}
	return ""
}

// CheckEmail returns what is wrong with an email address; "" if nothing is.
func CheckEmail(text string) (problem string) {
	if text == "" {
		return ""
	}
	address, err := mail.ParseAddress(text)
	if err != nil || address.Address != text || address.Name != "" {
		return "is not an email address such as orders@example.com"
	}
	return describe(text, nil)
}

// describe returns the text of err, or that the name is too long.
func describe(name string, err error) string {
	switch {
	case len(name) > maxName:
		return fmt.Sprintf("has more than %d bytes", maxName)
	case err != nil:
		return err.Error()
	}
	return ""
}

// Match reports whether the certificate has the name; the zero value is in none. DNS names are compared without letter case
// (RFC 5280 §7.2), IP addresses as numbers, and URIs and email addresses byte for byte. A certificate with several URIs has
// none: programs would differ in which of them they take for the name of its owner. [parseDN] says how distinguished names
// are compared.
func (s Subject) Match(c *x509.Certificate) bool {
	switch {
	case s.DN != "":
		return matchDN(s.DN, c.RawSubject)
	case s.DNS != "":
		for _, name := range c.DNSNames {
			if strings.EqualFold(name, s.DNS) { // both are ASCII
				return true
			}
		}
	case s.URI != "":
		uris := alternativeURIs(c)
		return len(uris) == 1 && uris[0] == s.URI
	case s.IP != "":
		want := net.ParseIP(s.IP)
		for _, address := range c.IPAddresses {
			if address.Equal(want) {
				return true
			}
		}
	case s.Email != "":
		return slices.Contains(c.EmailAddresses, s.Email)
	}
	return false
}

// uriTag is the tag of uniformResourceIdentifier in GeneralName (RFC 5280 §4.2.1.6).
const uriTag = 6

// alternativeURIs returns the URIs in the subject alternative names as they are written. The ones that package x509 has
// parsed could be the same for two texts.
func alternativeURIs(c *x509.Certificate) []string {
	var uris []string
	for _, extension := range c.Extensions {
		if !extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(extension.Value, &names); err != nil || len(rest) > 0 {
			return nil
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == uriTag {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris
}
