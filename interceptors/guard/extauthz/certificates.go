package extauthz

import (
	"crypto/x509"
	"encoding/pem"
	"net/url"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/recovery"
)

// Bounds of the certificates in memory.
const (
	maxCertificate  = 16 << 10
	maxCertificates = 1000
)

// certificates parses client certificates, and holds recent ones: a connection has the same certificate for all its requests, and
// to parse it takes longer than the rest of a decision about a token that was seen before.
type certificates struct {
	recent *otter.Cache[string, *x509.Certificate]
	// decode is x509.ParseCertificate.
	decode func(der []byte) (*x509.Certificate, error)
}

func newCertificates() *certificates {
	return &certificates{
		recent: otter.Must(&otter.Options[string, *x509.Certificate]{
			MaximumSize: maxCertificates, Executor: func(task func()) { task() }, // as that of token.Cache
		}),
		decode: x509.ParseCertificate,
	}
}

// parse returns the certificate in an attribute, which is its PEM encoding, escaped as in a URL. It returns nil if there is none
// or it is malformed, so that a token that is bound to a certificate is refused.
func (c *certificates) parse(escaped string) *x509.Certificate {
	if escaped == "" || len(escaped) > maxCertificate {
		return nil
	}
	if parsed, ok := c.recent.GetIfPresent(escaped); ok {
		return parsed
	}
	text, err := url.PathUnescape(escaped)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil
	}
	// The certificate is one that anyone can make, and a panic would end the guard for all.
	parsed, err := recovery.Call("parsing a client certificate", func() (*x509.Certificate, error) { return c.decode(block.Bytes) })
	if err != nil {
		return nil
	}
	c.recent.Set(escaped, parsed)
	return parsed
}
