package clientauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// SPIFFEAssertionType is the client_assertion_type of a JWT-SVID (draft-ietf-oauth-spiffe-client-auth).
const SPIFFEAssertionType = clientassertion.TypeSPIFFE

// maxSPIFFEID is the maximum size of a SPIFFE ID, in bytes (SPIFFE-ID §2.3).
const maxSPIFFEID = 2048

// parseSPIFFEID parses the SPIFFE ID of a workload, which has a path: the ID of a trust domain itself is that of its authorities.
func parseSPIFFEID(text string) (spiffeid.ID, error) {
	if len(text) > maxSPIFFEID {
		return spiffeid.ID{}, fmt.Errorf("the SPIFFE ID has more than %d bytes", maxSPIFFEID)
	}
	id, err := spiffeid.FromString(text)
	if err == nil && id.Path() == "" {
		err = errors.New("the SPIFFE ID has no path")
	}
	return id, err
}

// checkSVIDHeader returns what is wrong with the header of a JWT-SVID (JWT-SVID §2).
func (a *assertion) checkSVIDHeader() error {
	header := a.message.Header
	switch {
	case header.KeyID == "":
		return errors.New("a JWT-SVID has a kid")
	case header.Type != "" && header.Type != "JWT" && header.Type != "JOSE":
		return fmt.Errorf("typ is %.40q, want JWT, JOSE or none", header.Type)
	case jwks.Algorithm(header.Algorithm) == jwks.EdDSA:
		return errors.New("EdDSA is not one of the algorithms of JWT-SVIDs")
	}
	return nil
}

// method returns the method by which a verified identity authenticates by an assertion.
func (v *vouched) method() string {
	switch {
	case v.identity.SPIFFEID == "":
		return oauth.FederatedJWT
	case v.certificate:
		return oauth.SPIFFEX509
	}
	return oauth.SPIFFEJWT
}

// assertionType returns the client_assertion_type of a verified assertion.
func (v *vouched) assertionType() string {
	if v.identity.SPIFFEID != "" {
		return SPIFFEAssertionType
	}
	return AssertionType
}

// method returns the method of a federated assertion.
func (a *assertion) method() string {
	if a.svid {
		return oauth.SPIFFEJWT
	}
	return oauth.FederatedJWT
}

// svidDomain returns the trust domain of a certificate that may be an X509-SVID of one that is trusted.
func svidDomain(leaf *x509.Certificate, table *trust.Table) (*trust.Issuer, bool) {
	if len(leaf.URIs) == 0 || leaf.URIs[0].Scheme != "spiffe" {
		return nil, false
	}
	return table.Issuer("spiffe://" + leaf.URIs[0].Host)
}

// authenticateBySVID returns the client whose X509-SVID the connection has. tried is false if the certificate is none of a trusted
// domain, or the client that is named is known by the certificate in another way (RFC 8705).
func (a *Authenticator) authenticateBySVID(ctx context.Context, e Evidence) (_ Authentication, tried bool, _ error) {
	result := Authentication{Method: oauth.SPIFFEX509}
	table, err := a.trusted(ctx)
	if err != nil {
		return result, true, err
	}
	domain, ok := svidDomain(e.Certificates[0], table)
	if !ok {
		return result, false, nil
	}
	// The chain is verified before the client is known, so that the answer takes as long for an unknown one.
	p := proof{credentials{id: e.ClientID, method: oauth.SPIFFEX509}, e.Source, a.config.Now()}
	v, wrong := a.verifySVID(ctx, table, domain, e.Certificates)
	if refusal, ok := errors.AsType[*oauth.Error](wrong); ok && refusal.Code != oauth.InvalidClient {
		return result, true, wrong
	}
	stored, known, err := a.find(ctx, e.ClientID)
	switch {
	case err != nil:
		return result, true, err
	case known && !stored.HasSPIFFEID() && (stored.Certificate.String() != "" || a.mayHaveKey(stored)):
		return result, false, nil
	case wrong != nil:
		return result, true, a.failed(ctx, p, wrong)
	}
	result, err = a.authenticateVouched(ctx, e, v, table)
	return result, true, err
}

// verifySVID verifies an X509-SVID by the authorities of its trust domain (X509-SVID §4 and §5). The error is an [*oauth.Error].
func (a *Authenticator) verifySVID(ctx context.Context, table *trust.Table, domain *trust.Issuer, chain []*x509.Certificate) (*vouched, error) {
	source, _ := a.federation.sources.find(table, domain.ID())
	authorities, err := source.x509Bundle(ctx)
	if err != nil {
		return nil, unreachableIssuer(domain.ID(), err)
	}
	now := a.config.Now()
	id, err := checkSVID(chain, authorities, now)
	if err != nil {
		return nil, refused(oauth.WrongCertificate, "the X509-SVID: %w", err)
	}
	return &vouched{
		table: table.Version(), identity: trust.Identity{SPIFFEID: id.String()}, certificate: true, expire: chain[0].NotAfter.Add(time.Nanosecond),
	}, nil
}

// checkSVID returns the SPIFFE ID of an X509-SVID.
func checkSVID(chain []*x509.Certificate, authorities *x509bundle.Bundle, now time.Time) (spiffeid.ID, error) {
	if err := certificate.CheckChain(chain); err != nil {
		return spiffeid.ID{}, err
	}
	id, chains, err := x509svid.Verify(chain, authorities, x509svid.WithTime(now))
	if err != nil {
		return id, err
	}
	if _, err := parseSPIFFEID(id.String()); err != nil {
		return id, err
	}
	leaf := chain[0]
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return id, errors.New("its key usage lacks digitalSignature")
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !hasUsage(leaf, x509.ExtKeyUsageClientAuth) && !hasUsage(leaf, x509.ExtKeyUsageAny) {
		return id, errors.New("it is not for client authentication")
	}
	for _, verified := range chains {
		if sameDomain(verified[1:], id.TrustDomain()) {
			return id, nil
		}
	}
	return id, errors.New("an authority of another trust domain has signed it")
}

func hasUsage(leaf *x509.Certificate, wanted x509.ExtKeyUsage) bool {
	return slices.Contains(leaf.ExtKeyUsage, wanted)
}

// sameDomain reports whether no authority has the SPIFFE ID of another trust domain: two domains may have one key, and must not be
// believed for each other's workloads.
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

// registered reports whether a client that is registered is the one with the identity.
func (v *vouched) registered(client *registry.Client) bool {
	if client.Workload {
		return false
	}
	if client.MatchesSPIFFEID(v.identity.SPIFFEID) {
		return true
	}
	for i := range client.Federation {
		if _, why := client.Federation[i].Match(v.identity); why == "" {
			return true
		}
	}
	return false
}
