package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/jwks"
)

// maxSPIFFEID is the maximum size of a SPIFFE ID, in bytes (SPIFFE-ID §2.3).
const maxSPIFFEID = 2048

// checkWorkloadID returns an error unless the text is the SPIFFE ID of a workload, which has a path: the ID of a trust
// domain itself is that of its authorities.
func checkWorkloadID(text string) error {
	if len(text) > maxSPIFFEID {
		return fmt.Errorf("the SPIFFE ID has more than %d bytes", maxSPIFFEID)
	}
	id, err := spiffeid.FromString(text)
	if err == nil && id.Path() == "" {
		err = errors.New("the SPIFFE ID has no path")
	}
	return err
}

// BundleKeys returns the keys of a bundle that sign JWT-SVIDs. Keys of a type that signs none are left out.
func BundleKeys(bundle *spiffebundle.Bundle) *jwks.Set {
	var keys []jwks.Key
	for id, public := range bundle.JWTAuthorities() {
		algorithm, err := jwks.DefaultAlgorithm(public) // Key.For finds the others
		if err != nil || algorithm == jwks.EdDSA {
			continue
		}
		if key, err := jwks.NewKey(algorithm, public); err == nil {
			keys = append(keys, key.WithID(id))
		}
	}
	return jwks.NewSet(keys...)
}

// VerifySVID returns the SPIFFE ID of an X509-SVID, whose chain the authorities of its trust domain vouch for at the
// given time (X509-SVID §4 and §5).
func VerifySVID(chain []*x509.Certificate, authorities *x509bundle.Bundle, at time.Time) (spiffeid.ID, error) {
	id, err := VerifyChain(chain, authorities, at)
	if err != nil {
		return id, err
	}
	return id, CheckUsage(chain[0])
}

// VerifyChain is VerifySVID without [CheckUsage].
func VerifyChain(chain []*x509.Certificate, authorities *x509bundle.Bundle, at time.Time) (spiffeid.ID, error) {
	if err := certificate.CheckChain(chain); err != nil {
		return spiffeid.ID{}, err
	}
	id, chains, err := x509svid.Verify(chain, authorities, x509svid.WithTime(at))
	if err != nil {
		return id, err
	}
	if err := checkWorkloadID(id.String()); err != nil {
		return id, err
	}
	for _, verified := range chains {
		if sameDomain(verified[1:], id.TrustDomain()) {
			return id, nil
		}
	}
	return id, errors.New("an authority of another trust domain has signed it")
}

// CheckUsage returns an error if an X509-SVID is not for the authentication of clients by signatures.
func CheckUsage(leaf *x509.Certificate) error {
	has := func(wanted x509.ExtKeyUsage) bool { return slices.Contains(leaf.ExtKeyUsage, wanted) }
	switch {
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its key usage lacks digitalSignature")
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !has(x509.ExtKeyUsageClientAuth) && !has(x509.ExtKeyUsageAny):
		return errors.New("its extended key usage lacks clientAuth")
	}
	return nil
}

// sameDomain reports whether no authority has the SPIFFE ID of another trust domain: two domains may have one key, and
// must not be believed for each other's workloads.
func sameDomain(authorities []*x509.Certificate, domain spiffeid.TrustDomain) bool {
	for _, authority := range authorities {
		for _, uri := range authority.URIs {
			if uri.Scheme == "spiffe" && uri.Host != domain.Name() {
				return false
			}
		}
	}
	return true
}
