// Package spiffetest is support for tests with SPIFFE identities: a trust domain that issues SVIDs of both kinds, good ones and
// others, and a server of the SPIFFE Workload API. The server is a double: it implements the part of the API that workloads and
// issuers use, as the standard describes it, and takes every caller for the same workload.
package spiffetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

// Domain is a trust domain. It is safe for concurrent use by multiple goroutines.
type Domain struct {
	Name spiffeid.TrustDomain
	// Authority is the certificate with which X509-SVIDs are signed, and Key its private key.
	Authority *x509.Certificate
	Key       crypto.Signer

	mu      sync.Mutex
	signers []jwstest.Signer // the last one signs
}

// NewDomain returns a trust domain with the name, such as prod.example.com.
func NewDomain(name string) *Domain {
	d := &Domain{Name: spiffeid.RequireTrustDomainFromString(name), Key: must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	der := must.Get(x509.CreateCertificate(rand.Reader, d.authority(), d.authority(), d.Key.Public(), d.Key))
	d.Authority = must.Get(x509.ParseCertificate(der))
	d.RotateJWTKey()
	return d
}

func (d *Domain) authority() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: d.Name.Name()}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{must.Get(url.Parse(d.Name.IDString()))},
	}
}

func serial() *big.Int { return must.Get(rand.Int(rand.Reader, big.NewInt(1<<62))) }

// RotateJWTKey adds a key to those of the domain. It signs the JWT-SVIDs from now on.
func (d *Domain) RotateJWTKey() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signers = append(d.signers, jwstest.NewSigner(jwks.ES256))
}

// Signer returns the key that signs JWT-SVIDs.
func (d *Domain) Signer() jwstest.Signer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.signers[len(d.signers)-1]
}

// Bundle returns the domain's bundle.
func (d *Domain) Bundle() *spiffebundle.Bundle {
	d.mu.Lock()
	defer d.mu.Unlock()
	bundle := spiffebundle.FromX509Authorities(d.Name, []*x509.Certificate{d.Authority})
	for _, s := range d.signers {
		must.Get(0, bundle.AddJWTAuthority(s.Key().ID(), s.Private.Public())) // the ID is not empty
	}
	return bundle
}

// Document returns the domain's bundle as JSON, as bundle endpoints serve it.
func (d *Domain) Document() []byte { return must.Get(d.Bundle().Marshal()) }

// JWTSVID returns a JWT-SVID that expires in five minutes. The change is made to its claims.
func (d *Domain) JWTSVID(id, audience string, change jwstest.Object) string {
	now := time.Now()
	claims := jwstest.Object{"sub": id, "aud": audience, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	s := d.Signer()
	return s.Sign(jwstest.Object{"alg": string(s.Algorithm), "kid": s.Key().ID(), "typ": "JWT"}, claims.With(change))
}

// X509SVID returns an X509-SVID that expires in an hour. The change is made to its template, if it is not nil.
func (d *Domain) X509SVID(id string, change func(*x509.Certificate)) *x509svid.SVID {
	private := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{must.Get(url.Parse(id))},
	}
	if change != nil {
		change(template)
	}
	der := must.Get(x509.CreateCertificate(rand.Reader, template, d.Authority, private.Public(), d.Key))
	svid := &x509svid.SVID{Certificates: []*x509.Certificate{must.Get(x509.ParseCertificate(der))}, PrivateKey: private}
	svid.ID, _ = spiffeid.FromString(id) // zero for an odd one
	return svid
}
