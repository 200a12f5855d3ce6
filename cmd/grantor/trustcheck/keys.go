package trustcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// elsewhereError reports keys that cannot be obtained from here.
type elsewhereError struct{ why string }

func (e *elsewhereError) Error() string { return e.why }

// checkSignature checks whether the issuer has signed the evidence.
func (c *checker) checkSignature(ctx context.Context, sent *evidence, issuer *trust.Issuer) (result, why string) {
	verify := c.verifyToken
	if sent.token == nil {
		verify = c.verifyChain
	}
	from, err := verify(ctx, sent, issuer)
	if _, elsewhere := errors.AsType[*elsewhereError](err); elsewhere {
		return unknown, err.Error()
	}
	if err != nil {
		return wrong, err.Error()
	}
	return right, "with " + from
}

// verifyToken verifies the signature of a token, and returns where the key is from.
func (c *checker) verifyToken(ctx context.Context, sent *evidence, issuer *trust.Issuer) (from string, err error) {
	set, from, err := c.keySet(ctx, issuer)
	if err != nil {
		return "", err
	}
	key, err := set.Find(ctx, sent.message.Header.KeyID)
	if err != nil {
		return "", fmt.Errorf("%s has no key with its kid", from)
	}
	fitting, ok := key.For(jwks.Algorithm(sent.message.Header.Algorithm))
	if !ok {
		return "", errors.New("its key is not for its alg")
	}
	return from, sent.message.Verify(fitting)
}

// finder finds a key of a set by its id.
type finder interface {
	Find(ctx context.Context, id string) (jwks.Key, error)
}

// keySet returns the keys of an issuer, and where they are from.
func (c *checker) keySet(ctx context.Context, issuer *trust.Issuer) (set finder, from string, err error) {
	switch {
	case issuer.TrustDomain != "":
		bundle, from, err := c.bundle(ctx, issuer)
		if err != nil {
			return nil, "", err
		}
		return trust.BundleKeys(bundle), from, nil
	case c.keysFile != "":
		set, err := jwks.Parse(c.keys)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", c.keysFile, err)
		}
		return set, c.keysFile, nil
	case issuer.Keys.String() != "":
		return issuer.Keys, "the jwks of the trusted issuer", nil
	case issuer.BearerTokenFile != "":
		// The file is the replicas'. What is at its path here could be any secret of the user.
		return nil, "", &elsewhereError{"its server asks for a token that only the replicas have; give the keys with --keys"}
	}
	client, err := newHTTPClient(issuer.CAFile)
	if err != nil {
		return nil, "", err
	}
	defer client.CloseIdleConnections()
	discovery := oauth.Discovery{Client: client}
	fetch, from := jwks.Discovered(discovery, issuer.Issuer), "the keys that it publishes"
	if issuer.KeysURI != "" {
		fetch, from = jwks.At(discovery, issuer.KeysURI, jwks.MaxDocument), issuer.KeysURI
	}
	fetched, _, err := fetch(ctx)
	if err != nil {
		return nil, "", &elsewhereError{fmt.Sprintf("its keys cannot be fetched from here: %v", err)}
	}
	return fetched, from, nil
}

// newHTTPClient returns a client that follows no redirect and trusts the authorities in a file; "" stands for the
// system's.
func newHTTPClient(authorities string) (*http.Client, error) {
	const timeout = 10 * time.Second
	security := &tls.Config{MinVersion: tls.VersionTLS12}
	if authorities != "" {
		data, err := cli.ReadFile(authorities, cli.MaxSmallFile)
		if err != nil {
			return nil, &elsewhereError{"its ca_file cannot be read here; give the keys with --keys"}
		}
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(data) {
			return nil, &elsewhereError{"its ca_file has no certificate here; give the keys with --keys"}
		}
	}
	return &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: security, DisableKeepAlives: true},
		Timeout:   timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the server redirects, which is not followed")
		},
	}, nil
}

// bundle returns the bundle of a trust domain, and where it is from.
func (c *checker) bundle(ctx context.Context, issuer *trust.Issuer) (*spiffebundle.Bundle, string, error) {
	domain, err := spiffeid.TrustDomainFromString(issuer.TrustDomain)
	if err != nil {
		return nil, "", err
	}
	data, from, err := c.bundleDocument(ctx, issuer)
	if err != nil {
		return nil, "", err
	}
	bundle, err := spiffebundle.Parse(domain, data)
	switch {
	case err != nil && from == c.keysFile:
		return nil, "", fmt.Errorf("%s is no SPIFFE bundle: %w", from, err)
	case err != nil:
		return nil, "", &elsewhereError{fmt.Sprintf("%s is no SPIFFE bundle: %v", from, err)}
	}
	return bundle, from, nil
}

func (c *checker) bundleDocument(ctx context.Context, issuer *trust.Issuer) (data []byte, from string, err error) {
	switch from = issuer.BundleFile; {
	case c.keysFile != "":
		return c.keys, c.keysFile, nil
	case from != "":
		if data, err = cli.ReadFile(from, jwks.MaxDocument); err != nil {
			return nil, "", &elsewhereError{fmt.Sprintf("the bundle %s cannot be read here; give it with --keys", from)}
		}
		return data, from, nil
	case issuer.BundleEndpoint == "":
		return nil, "", &elsewhereError{"its Workload API is that of the replicas; give the bundle with --keys"}
	}
	client, err := newHTTPClient(issuer.CAFile)
	if err != nil {
		return nil, "", err
	}
	if data, _, err = oauth.Get(ctx, client, issuer.BundleEndpoint, jwks.MaxDocument); err != nil {
		return nil, "", &elsewhereError{fmt.Sprintf("its bundle cannot be fetched from here: %v", err)}
	}
	return data, issuer.BundleEndpoint, nil
}

// verifyChain verifies the chain of an X509-SVID, and returns where the authorities are from. Times and usage of the
// certificate are checked by themselves.
func (c *checker) verifyChain(ctx context.Context, sent *evidence, issuer *trust.Issuer) (from string, err error) {
	bundle, from, err := c.bundle(ctx, issuer)
	if err != nil {
		return "", err
	}
	at := c.now
	if leaf := sent.chain[0]; certificate.CheckValidity(leaf, at) != nil {
		at = leaf.NotAfter
	}
	_, err = trust.VerifyChain(sent.chain, bundle.X509Bundle(), at)
	return from, err
}
