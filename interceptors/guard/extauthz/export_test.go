package extauthz

import "crypto/x509"

// ParseCertificate parses a certificate as a server does, whose parser is replaced by decode.
func ParseCertificate(escaped string, decode func(der []byte) (*x509.Certificate, error)) *x509.Certificate {
	c := newCertificates()
	c.decode = decode
	return c.parse(escaped)
}
