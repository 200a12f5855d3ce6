// Package certtest makes certificates for tests: valid ones, and those with which an attacker would try to deceive a verifier.
package certtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/grantorhq/grantor/service/must"
)

// Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
	// chain are the certificates that lead to a root; empty for a root.
	chain [][]byte
}

// NewAuthority returns a root.
func NewAuthority() *Authority { return sign(nil, authority) }

// Intermediate returns an authority below a.
func (a *Authority) Intermediate() *Authority {
	below := sign(a, authority)
	below.chain = append([][]byte{below.Certificate.Raw}, a.chain...)
	return below
}

func authority(c *x509.Certificate) {
	c.Subject, c.IsCA, c.BasicConstraintsValid = pkix.Name{CommonName: "authority " + rand.Text()}, true, true
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageCertSign, nil
}

// Sign returns a certificate with its key and the intermediates: one for clients and servers on this machine, valid for this
// century, altered by change.
func (a *Authority) Sign(change ...func(*x509.Certificate)) tls.Certificate {
	leaf := sign(a, change...)
	return tls.Certificate{Certificate: append([][]byte{leaf.Certificate.Raw}, a.chain...), PrivateKey: leaf.key, Leaf: leaf.Certificate}
}

// SelfSigned returns a certificate that its own key signs.
func SelfSigned(change ...func(*x509.Certificate)) tls.Certificate {
	leaf := sign(nil, change...)
	return tls.Certificate{Certificate: [][]byte{leaf.Certificate.Raw}, PrivateKey: leaf.key, Leaf: leaf.Certificate}
}

// sign returns a certificate and its key. Without a parent it signs itself.
func sign(parent *Authority, change ...func(*x509.Certificate)) *Authority {
	key := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: must.Get(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))),
		Subject:      pkix.Name{CommonName: "orders", Organization: []string{"Example"}},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, f := range change {
		f(template)
	}
	signer, issuer := crypto.Signer(key), template
	if parent != nil {
		signer, issuer = parent.key, parent.Certificate
	}
	der := must.Get(x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer))
	return &Authority{Certificate: must.Get(x509.ParseCertificate(der)), key: key}
}

// Pool returns a pool with the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// Chain returns the parsed certificates of c.
func Chain(c tls.Certificate) []*x509.Certificate {
	chain := make([]*x509.Certificate, len(c.Certificate))
	for i, der := range c.Certificate {
		chain[i] = must.Get(x509.ParseCertificate(der))
	}
	return chain
}

// PEM returns certificates in PEM.
func PEM(ders ...[]byte) string {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return string(text)
}

// KeyPEM returns the private key of c in PEM.
func KeyPEM(c tls.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must.Get(x509.MarshalPKCS8PrivateKey(c.PrivateKey))}))
}

// URIs returns a change that sets the URIs of a certificate.
func URIs(uris ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, uri := range uris {
			c.URIs = append(c.URIs, must.Get(url.Parse(uri)))
		}
	}
}
