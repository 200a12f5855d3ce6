package clientauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/grantorhq/grantor/service/egress"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/trust"
)

const (
	// maxIssuerKeys is the maximum size of the key set of a trusted issuer, in bytes.
	maxIssuerKeys = 256 << 10
	// maxCAFile and maxBearerToken are the maximum sizes of the files that an issuer names, in bytes.
	maxCAFile      = 1 << 20
	maxBearerToken = 16 << 10
)

// Trust finds the trusted issuers and the workloads.
type Trust interface {
	// Trust returns the table of all of them. An error means that it is unknown.
	Trust(ctx context.Context) (*trust.Table, error)
}

// Federation configures how the keys of trusted issuers are found.
type Federation struct {
	// Trust is queried for each federated assertion. If it is nil, no issuer is trusted.
	Trust Trust
	// Networks are those from which keys are fetched, besides public addresses.
	Networks remoteaddr.Networks
	// Directories are those below which the files are read that issuers name.
	Directories trust.Directories
	// WorkloadAPI gets bundles from the Workload API. If it is nil, no trust domain has its bundle from there.
	WorkloadAPI WorkloadAPI
}

// issuerSources has the key sources of the trusted issuers. An issuer has its own source with its own connections, so that one
// that does not answer delays no other, and its keys verify the assertions of no other.
type issuerSources struct {
	config Federation
	now    func() time.Time
	// mu is held while the sources of a new table are made.
	mu      sync.Mutex
	current atomic.Pointer[tableSources]
}

// tableSources are the sources of the issuers in one version of the table, by [trust.Issuer.ID].
type tableSources struct {
	version uint64
	byID    map[string]*issuerSource
}

// issuerSource finds the keys of a trusted issuer.
type issuerSource struct {
	etag   string
	inline jwks.Document
	// remote is nil if the keys are inline.
	remote *jwks.Remote
	// domain reports that the source is one of a trust domain. authorities are its authorities for X509-SVIDs, as they came
	// with the keys of remote.
	domain      bool
	authorities atomic.Pointer[x509bundle.Bundle]
}

// find returns the source of the issuer with the ID in the table. A source lives until the issuer's entry changes.
func (s *issuerSources) find(table *trust.Table, id string) (*issuerSource, bool) {
	current := s.current.Load()
	if current == nil || current.version != table.Version() {
		current = s.replace(table)
	}
	source, ok := current.byID[id]
	return source, ok
}

// replace makes the sources of the table the current ones. It keeps those of issuers that have not changed.
func (s *issuerSources) replace(table *trust.Table) *tableSources {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.current.Load()
	if before != nil && before.version == table.Version() {
		return before
	}
	next := &tableSources{version: table.Version(), byID: make(map[string]*issuerSource)}
	for i := range table.Issuers() {
		issuer := &table.Issuers()[i]
		source := s.newSource(issuer)
		if before != nil && before.byID[issuer.ID()] != nil && before.byID[issuer.ID()].etag == source.etag {
			source = before.byID[issuer.ID()]
		}
		next.byID[issuer.ID()] = source
	}
	s.current.Store(next)
	return next
}

func (s *issuerSources) newSource(issuer *trust.Issuer) *issuerSource {
	if issuer.TrustDomain != "" {
		return s.newDomain(issuer)
	}
	source := &issuerSource{etag: issuer.ETag(), inline: issuer.Keys}
	if issuer.Keys.String() == "" {
		source.remote = jwks.NewRemote(func(ctx context.Context) (*jwks.Set, time.Duration, error) {
			return s.fetch(ctx, issuer)
		}, jwks.RemoteConfig{Now: s.now})
	}
	return source
}

// find returns the issuer's key with the id, as [jwks.Remote.Find] does.
func (s *issuerSource) find(ctx context.Context, id string) (jwks.Key, error) {
	if s.remote == nil {
		return s.inline.Find(ctx, id)
	}
	return s.remote.Find(ctx, id)
}

// trusts reports whether a key that was found may still be used. Keys that are inline change with the table alone.
func (s *issuerSource) trusts(key jwks.Key) bool { return s.remote == nil || s.remote.Trusts(key) }

// fetch gets the keys of an issuer from its URL, or from the one that its metadata name. It reads the files of the issuer each
// time, since they are replaced while a server runs.
func (s *issuerSources) fetch(ctx context.Context, issuer *trust.Issuer) (*jwks.Set, time.Duration, error) {
	client, err := s.client(issuer)
	if err != nil {
		return nil, 0, err
	}
	discovery := oauth.Discovery{Client: client}
	location := issuer.KeysURI
	if location == "" {
		found, err := discovery.Metadata(ctx, issuer.Issuer)
		if err != nil {
			return nil, 0, err
		}
		if location = found.JWKSURI; location == "" {
			return nil, 0, errors.New("the issuer's metadata has no jwks_uri")
		}
	}
	return jwks.At(discovery, location, maxIssuerKeys)(ctx)
}

// client returns the client for the servers of an issuer. It keeps no connection.
func (s *issuerSources) client(issuer *trust.Issuer) (*http.Client, error) {
	config := egress.Config{Allowed: s.config.Networks}
	if issuer.CAFile != "" {
		data, err := s.config.Directories.ReadFile(issuer.CAFile, maxCAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		config.Roots = x509.NewCertPool()
		if !config.Roots.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("ca_file: %s has no certificate in PEM", issuer.CAFile)
		}
	}
	client := egress.NewClient(config)
	if issuer.BearerTokenFile == "" {
		return client, nil
	}
	data, err := s.config.Directories.ReadFile(issuer.BearerTokenFile, maxBearerToken)
	if err != nil {
		return nil, fmt.Errorf("bearer_token_file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return nil, fmt.Errorf("bearer_token_file: %s has no token", issuer.BearerTokenFile)
	}
	client.Transport = &bearer{client.Transport, token}
	return client, nil
}

// bearer sends a bearer token with each request. The requests are those to the issuer and to the URL that its metadata name; no
// redirect is followed.
type bearer struct {
	http.RoundTripper

	token string
}

// RoundTrip implements [http.RoundTripper].
func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}
