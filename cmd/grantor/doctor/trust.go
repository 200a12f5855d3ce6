package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// checkTrust checks the trusted issuers, as far as this machine can: the files that they name are those of the replicas.
func (d *doctor) checkTrust(ctx context.Context, c *clientReport) {
	table, err := d.store.Trust(ctx)
	if err != nil {
		c.broken("the trusted issuers and workloads", err)
		return
	}
	list := table.Issuers()
	failures := make([]error, len(list))
	var fetches sync.WaitGroup
	for i := range list {
		fetches.Go(func() { failures[i] = fetchKeys(ctx, &list[i]) })
	}
	fetches.Wait()
	found := make(map[string][]string)
	for i := range list {
		id := list[i].ID()
		for _, path := range d.forbiddenFiles(&list[i]) {
			found["trust.files"] = append(found["trust.files"], id+" names "+path)
		}
		if failures[i] == nil {
			continue
		}
		check := "trust.keys"
		if _, unreachable := errors.AsType[*url.Error](failures[i]); unreachable {
			check = "trust.reach"
		}
		found[check] = append(found[check], fmt.Sprintf("%s: %.200v", id, failures[i]))
	}
	for _, id := range []string{"trust.reach", "trust.keys", "trust.files"} {
		d.named(id, found[id])
	}
}

// forbiddenFiles returns the files of an issuer that are below none of the directories of the setting
// trust-directories. Without the setting it is not known here, and nothing is returned.
func (d *doctor) forbiddenFiles(i *trust.Issuer) []string {
	if len(d.trustDirectories) == 0 {
		return nil
	}
	return slices.DeleteFunc([]string{i.CAFile, i.BearerTokenFile, i.BundleFile}, func(path string) bool {
		return path == "" || trust.Directories(d.trustDirectories).Cover(path)
	})
}

// fetchKeys fetches the keys of an issuer, if that can be done from here, and returns what is wrong. A file at the path
// of a bearer_token_file is not read here: it could be any file of the operator's, and would be sent.
func fetchKeys(ctx context.Context, i *trust.Issuer) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if i.Keys.String() != "" || i.BearerTokenFile != "" || i.BundleFile != "" || i.WorkloadAPI != "" {
		return nil
	}
	security := &tls.Config{MinVersion: tls.VersionTLS12}
	if i.CAFile != "" {
		data, err := cli.ReadFile(i.CAFile, cli.MaxSmallFile)
		if err != nil {
			return nil // it is a file of the replicas
		}
		security.RootCAs = x509.NewCertPool()
		security.RootCAs.AppendCertsFromPEM(data)
	}
	client := &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: security, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the server redirects, which is not followed")
		},
	}
	discovery := oauth.Discovery{Client: client}
	var err error
	switch {
	case i.BundleEndpoint != "":
		return fetchBundle(ctx, client, i)
	case i.KeysURI != "":
		_, _, err = jwks.At(discovery, i.KeysURI, jwks.MaxDocument)(ctx)
	default:
		_, _, err = jwks.Discovered(discovery, i.Issuer)(ctx)
	}
	return err
}

// fetchBundle fetches the bundle of a trust domain, and returns what is wrong with it.
func fetchBundle(ctx context.Context, client *http.Client, i *trust.Issuer) error {
	domain, err := spiffeid.TrustDomainFromString(i.TrustDomain)
	if err != nil {
		return err
	}
	data, _, err := oauth.Get(ctx, client, i.BundleEndpoint, jwks.MaxDocument)
	if err != nil {
		return err
	}
	bundle, err := spiffebundle.Parse(domain, data)
	if err == nil && bundle.X509Bundle().Empty() && bundle.JWTBundle().Empty() {
		err = errors.New("the bundle has no authority")
	}
	return err
}
