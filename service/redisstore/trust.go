package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/trust"
)

// trustRecord is the stored form of the table of trusted issuers and workloads.
type trustRecord struct {
	Format    int              `json:"format"`
	Issuers   []issuerRecord   `json:"trusted_issuers,omitempty"`
	Workloads []workloadRecord `json:"workloads,omitempty"`
}

type issuerRecord struct {
	Issuer          string   `json:"issuer,omitempty"`
	KeysURI         string   `json:"jwks_uri,omitempty"`
	Keys            string   `json:"jwks,omitempty"`
	CAFile          string   `json:"ca_file,omitempty"`
	BearerTokenFile string   `json:"bearer_token_file,omitempty"`
	Audience        []string `json:"audience,omitempty"`
	SingleUse       bool     `json:"single_use,omitempty"`
	TrustDomain     string   `json:"trust_domain,omitempty"`
	BundleEndpoint  string   `json:"bundle_endpoint,omitempty"`
	BundleFile      string   `json:"bundle_file,omitempty"`
	WorkloadAPI     string   `json:"workload_api,omitempty"`
}

// workloadRecord is the stored form of a workload. The lifetime is in seconds; zero means none.
type workloadRecord struct {
	ClientID      trust.Pattern  `json:"client_id"`
	Rule          trust.Rule     `json:"rule"`
	Where         trust.Captures `json:"where,omitempty"`
	Scopes        string         `json:"scope,omitempty"`
	DefaultScopes string         `json:"default_scope,omitempty"`
	Lifetime      int64          `json:"access_token_lifetime,omitempty"`
}

func encodeIssuer(i *trust.Issuer) issuerRecord {
	return issuerRecord{
		Issuer: i.Issuer, KeysURI: i.KeysURI, Keys: i.Keys.String(), CAFile: i.CAFile, BearerTokenFile: i.BearerTokenFile,
		Audience: i.Audience, SingleUse: i.SingleUse, TrustDomain: i.TrustDomain, BundleEndpoint: i.BundleEndpoint,
		BundleFile: i.BundleFile, WorkloadAPI: i.WorkloadAPI,
	}
}

func decodeIssuer(r issuerRecord) (trust.Issuer, error) {
	keys, err := jwks.ParseDocument(r.Keys)
	return trust.Issuer{
		Issuer: r.Issuer, KeysURI: r.KeysURI, Keys: keys, CAFile: r.CAFile, BearerTokenFile: r.BearerTokenFile,
		Audience: r.Audience, SingleUse: r.SingleUse, TrustDomain: r.TrustDomain, BundleEndpoint: r.BundleEndpoint,
		BundleFile: r.BundleFile, WorkloadAPI: r.WorkloadAPI,
	}, err
}

func encodeWorkload(w *trust.Workload) workloadRecord {
	return workloadRecord{
		ClientID: w.ClientID, Rule: w.Rule, Where: w.Where, Scopes: w.Scopes.String(), DefaultScopes: w.DefaultScopes.String(),
		Lifetime: int64(w.AccessTokenLifetime / time.Second),
	}
}

func decodeWorkload(r workloadRecord) (trust.Workload, error) {
	scopes, err := oauth.ParseScopes(r.Scopes)
	byDefault, other := oauth.ParseScopes(r.DefaultScopes)
	return trust.Workload{
		ClientID: r.ClientID, Rule: r.Rule, Where: r.Where, Scopes: scopes, DefaultScopes: byDefault,
		AccessTokenLifetime: time.Duration(r.Lifetime) * time.Second,
	}, errors.Join(err, other)
}

// Trust implements [registry.TrustStore].
func (s *Store) Trust(ctx context.Context) (*trust.Table, error) {
	data, version, err := s.loadRecord(ctx, "trust", s.key("trust"))
	if err != nil {
		return nil, err
	}
	if data == nil {
		return trust.NewTable(0, nil, nil)
	}
	table, err := decodeTrust(data, version)
	if err != nil {
		s.report("trust", s.key("trust"), "", err)
	}
	return table, err
}

// decodeTrust decodes the table of trusted issuers and workloads. Anything that does not parse fails the table as a whole, as
// in decodeResources.
func decodeTrust(data []byte, version uint64) (_ *trust.Table, err error) {
	var stored trustRecord
	if err := decode("table of trusted issuers", data, &stored, &stored.Format, trustFormat); err != nil {
		return nil, err
	}
	issuers := make([]trust.Issuer, len(stored.Issuers))
	for i, r := range stored.Issuers {
		if issuers[i], err = decodeIssuer(r); err != nil {
			return nil, fmt.Errorf("the stored trusted issuer %q: %w", issuers[i].ID(), err)
		}
	}
	workloads := make([]trust.Workload, len(stored.Workloads))
	for i, r := range stored.Workloads {
		if workloads[i], err = decodeWorkload(r); err != nil {
			return nil, fmt.Errorf("the stored workload %q: %w", r.ClientID, err)
		}
	}
	return trust.NewTable(version, issuers, workloads)
}

// SaveTrust implements [registry.TrustStore].
func (s *Store) SaveTrust(ctx context.Context, t *trust.Table) error {
	record := trustRecord{Format: trustFormat}
	for i := range t.Issuers() {
		record.Issuers = append(record.Issuers, encodeIssuer(&t.Issuers()[i]))
	}
	for i := range t.Workloads() {
		record.Workloads = append(record.Workloads, encodeWorkload(&t.Workloads()[i]))
	}
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return conflict(s.write(ctx, write{
		key: s.key("trust"), version: t.Version(), data: data, announce: []announcement{{kind: revocation.TrustChanged}},
	}), registry.ErrConflict)
}
