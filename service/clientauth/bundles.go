package clientauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

const (
	// maxBundle is the maximum size of the bundle of a trust domain, in bytes.
	maxBundle = 1 << 20
	// defaultRefresh is how long a bundle is fresh that has no spiffe_refresh_hint, and maxRefresh the maximum of one that
	// has.
	defaultRefresh = 5 * time.Minute
	maxRefresh     = time.Hour
)

// WorkloadAPI gets the bundle of a trust domain from the SPIFFE Workload API at an address.
type WorkloadAPI func(ctx context.Context, address string, domain spiffeid.TrustDomain) (*spiffebundle.Bundle, error)

// newDomain returns the source of the keys of a trust domain. Its bundle is read again after its refresh hint; until that
// succeeds, the last one is used, for at most a day.
func (s *issuerSources) newDomain(issuer *trust.Issuer) *issuerSource {
	source := &issuerSource{etag: issuer.ETag(), domain: true}
	domain, err := spiffeid.TrustDomainFromString(issuer.TrustDomain)
	source.remote = jwks.NewRemote(func(ctx context.Context) (*jwks.Set, time.Duration, error) {
		if err != nil {
			return nil, 0, err
		}
		bundle, err := s.bundle(ctx, issuer, domain)
		if err != nil {
			return nil, 0, err
		}
		source.authorities.Store(bundle.X509Bundle())
		return trust.BundleKeys(bundle), refreshAfter(bundle), nil
	}, jwks.RemoteConfig{Now: s.now})
	return source
}

// x509Bundle returns the authorities of a trust domain for X509-SVIDs.
func (s *issuerSource) x509Bundle(ctx context.Context) (*x509bundle.Bundle, error) {
	if err := s.remote.Ready(ctx); err != nil {
		return nil, err
	}
	return s.authorities.Load(), nil
}

// bundle gets the bundle of a trust domain.
func (s *issuerSources) bundle(ctx context.Context, issuer *trust.Issuer, domain spiffeid.TrustDomain) (*spiffebundle.Bundle, error) {
	var data []byte
	var err error
	switch {
	case issuer.WorkloadAPI != "":
		return s.fromWorkloadAPI(ctx, issuer.WorkloadAPI, domain)
	case issuer.BundleFile != "":
		data, err = s.config.Directories.ReadFile(issuer.BundleFile, maxBundle)
	default:
		data, err = s.fromEndpoint(ctx, issuer)
	}
	if err != nil {
		return nil, err
	}
	return spiffebundle.Parse(domain, data)
}

// fromEndpoint reads a bundle from its endpoint by the profile https_web (SPIFFE Federation §5.2.1): the certificate of
// the server is one of the Web's or of ca_file, not one of the trust domain.
func (s *issuerSources) fromEndpoint(ctx context.Context, issuer *trust.Issuer) ([]byte, error) {
	client, err := s.client(issuer)
	if err != nil {
		return nil, err
	}
	data, _, err := oauth.Discovery{Client: client}.Get(ctx, issuer.BundleEndpoint, maxBundle)
	return data, err
}

// fromWorkloadAPI asks the Workload API, whose socket must be below one of the directories: an administrator of the API
// chooses the address.
func (s *issuerSources) fromWorkloadAPI(ctx context.Context, address string, domain spiffeid.TrustDomain) (*spiffebundle.Bundle, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "unix" {
		return nil, errors.New("workload_api is not the address of a socket")
	}
	if err := s.config.Directories.Contain(u.Path); err != nil {
		return nil, fmt.Errorf("workload_api: %w", err)
	}
	if s.config.WorkloadAPI == nil {
		return nil, errors.New("this server does not use the Workload API")
	}
	return s.config.WorkloadAPI(ctx, address, domain)
}

// refreshAfter returns how long a bundle is fresh.
func refreshAfter(bundle *spiffebundle.Bundle) time.Duration {
	if hint, ok := bundle.RefreshHint(); ok && hint > 0 {
		return min(hint, maxRefresh)
	}
	return defaultRefresh
}
