// Package certificate says whom a client certificate authenticates, and which certificate a token is bound to. It
// implements the parts of RFC 8705 that concern certificates themselves, and RFC 4514 (the text of distinguished
// names). It depends on the standard library alone.
package certificate

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

const (
	// maxChain is the maximum number of certificates that a client may send, and maxChainSize their maximum size together, in
	// bytes. Verifying a chain tries its certificates against each other.
	maxChain     = 6
	maxChainSize = 32 << 10
	// maxRSABits is the maximum size of an RSA key in a chain. Checking a signature takes time quadratic in it: with a key
	// that fills the chain, most of a second. TLS has the same bound, but a proxy may forward what its TLS accepts.
	maxRSABits = 8192
)

// Thumbprint returns the base64url encoding of the SHA-256 hash of a certificate in DER, the "x5t#S256" of RFC 8705 §3.1.
func Thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// CheckChain returns an error if a chain is empty or larger than a client may send, or has a larger key.
func CheckChain(chain []*x509.Certificate) error {
	size := 0
	for _, c := range chain {
		size += len(c.Raw)
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			return fmt.Errorf("a certificate has an RSA key of more than %d bits", maxRSABits)
		}
	}
	switch {
	case len(chain) == 0:
		return errors.New("there is no certificate")
	case len(chain) > maxChain:
		return fmt.Errorf("the chain has more than %d certificates", maxChain)
	case size > maxChainSize:
		return fmt.Errorf("the chain has more than %d bytes", maxChainSize)
	}
	return nil
}

// CheckValidity returns an error for a certificate that is not valid at the given time.
func CheckValidity(leaf *x509.Certificate, at time.Time) error {
	switch {
	case at.After(leaf.NotAfter):
		return fmt.Errorf("it expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case at.Before(leaf.NotBefore):
		return fmt.Errorf("it is valid from %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// Verify returns an error unless one of the pools has an authority that vouches for the first certificate of the chain
// at the given time, by way of the others, for the authentication of clients (RFC 5280 §6). A certificate that names no
// purpose serves every one (§4.2.1.12). Whether its authority has revoked a certificate is not checked.
func Verify(chain []*x509.Certificate, at time.Time, authorities ...*x509.CertPool) error {
	if err := CheckChain(chain); err != nil {
		return err
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	err := errors.New("no authorities are configured")
	for _, roots := range authorities {
		_, err = chain[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err == nil {
			return nil
		}
	}
	return err
}
