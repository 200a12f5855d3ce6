// Package workloadapi gets the bundles of SPIFFE trust domains from the SPIFFE Workload API.
package workloadapi

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// Bundle returns the bundle of a trust domain, which is that of the server itself or one that its own is federated with. A domain
// without keys of one kind has none of that kind in the bundle. The address is a URL such as unix:///run/spire/agent.sock.
func Bundle(ctx context.Context, address string, domain spiffeid.TrustDomain) (*spiffebundle.Bundle, error) {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(address))
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	bundle := spiffebundle.New(domain)
	x509, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return nil, err
	}
	jwt, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return nil, err
	}
	own, errX509 := x509.GetX509BundleForTrustDomain(domain)
	if errX509 == nil {
		bundle.SetX509Authorities(own.X509Authorities())
	}
	keys, errJWT := jwt.GetJWTBundleForTrustDomain(domain)
	if errJWT == nil {
		bundle.SetJWTAuthorities(keys.JWTAuthorities())
	}
	if errX509 != nil && errJWT != nil {
		return nil, errors.Join(errX509, errJWT)
	}
	return bundle, nil
}
