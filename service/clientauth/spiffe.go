package clientauth

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// SPIFFEAssertionType is the client_assertion_type of a JWT-SVID (draft-ietf-oauth-spiffe-client-auth).
const SPIFFEAssertionType = clientassertion.TypeSPIFFE

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

// methodOf returns the method of a federated assertion.
func methodOf(sent *trust.Token) string {
	if sent.SVID() {
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

// authenticateBySVID returns the client whose X509-SVID the connection has. tried is false if the certificate is none
// of a trusted domain, or the client that is named is known by the certificate in another way (RFC 8705).
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

// verifySVID verifies an X509-SVID by the authorities of its trust domain (X509-SVID §4 and §5). The error is an
// [*oauth.Error].
func (a *Authenticator) verifySVID(ctx context.Context, table *trust.Table, domain *trust.Issuer, chain []*x509.Certificate) (*vouched, error) {
	source, _ := a.federation.sources.find(table, domain.ID())
	authorities, err := source.x509Bundle(ctx)
	if err != nil {
		return nil, unreachableIssuer(domain.ID(), err)
	}
	now := a.config.Now()
	id, err := trust.VerifySVID(chain, authorities, now)
	if err != nil {
		return nil, refused(oauth.WrongCertificate, "the X509-SVID: %w", err)
	}
	return &vouched{
		table: table.Version(), identity: trust.Identity{SPIFFEID: id.String()}, certificate: true,
		validity: trust.Validity{Expires: chain[0].NotAfter.Add(time.Nanosecond)},
	}, nil
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
