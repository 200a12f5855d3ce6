package redisstore

import (
	"errors"
	"fmt"
	"time"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/trust"
)

// clientRecord is the stored form of a client. Times are in Unix seconds, lifetimes in seconds; zero means none.
type clientRecord struct {
	Format        int            `json:"format"`
	ID            string         `json:"client_id"`
	Name          string         `json:"client_name,omitempty"`
	Secrets       []secretRecord `json:"secrets,omitempty"`
	AuthMethods   []string       `json:"auth_methods,omitempty"`
	GrantTypes    []string       `json:"grant_types,omitempty"`
	Scopes        string         `json:"scope,omitempty"`
	DefaultScopes string         `json:"default_scope,omitempty"`
	Resources     []string       `json:"resources,omitempty"`
	Lifetime      int64          `json:"access_token_lifetime,omitempty"`
	Networks      []string       `json:"allowed_networks,omitempty"`
	Disabled      bool           `json:"disabled,omitempty"`
	Keys          string         `json:"jwks,omitempty"`
	KeysURI       string         `json:"jwks_uri,omitempty"`
	UntypedUntil  int64          `json:"untyped_assertions_until,omitempty"`
	OlderUntil    int64          `json:"older_audiences_until,omitempty"`
	SubjectDN     string         `json:"tls_client_auth_subject_dn,omitempty"`
	SubjectDNS    string         `json:"tls_client_auth_san_dns,omitempty"`
	SubjectURI    string         `json:"tls_client_auth_san_uri,omitempty"`
	SubjectIP     string         `json:"tls_client_auth_san_ip,omitempty"`
	SubjectEmail  string         `json:"tls_client_auth_san_email,omitempty"`
	Bound         bool           `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	Federation    []trust.Rule   `json:"federation,omitempty"`
	Workload      bool           `json:"workload,omitempty"`
	SPIFFEID      string         `json:"spiffe_id,omitempty"`
	DPoPBound     bool           `json:"dpop_bound_access_tokens,omitempty"`
	CreatedAt     int64          `json:"created_at"`
	ChangedAt     int64          `json:"changed_at"`
}

type secretRecord struct {
	ID        string `json:"id"`
	Hash      string `json:"hash"`
	CreatedAt int64  `json:"created_at"`
	ExpiresAt int64  `json:"expires_at,omitempty"`
	FromFile  bool   `json:"from_file,omitempty"`
}

// hasKeys reports whether the record has a field that formats before 3 lack.
func (r *clientRecord) hasKeys() bool {
	return r.Keys != "" || r.KeysURI != "" || r.UntypedUntil != 0 || r.OlderUntil != 0 || r.subject() != (certificate.Subject{}) || r.Bound ||
		r.DPoPBound || r.Federation != nil || r.Workload || r.SPIFFEID != ""
}

// subject returns the name in the client's certificate.
func (r *clientRecord) subject() certificate.Subject {
	return certificate.Subject{DN: r.SubjectDN, DNS: r.SubjectDNS, URI: r.SubjectURI, IP: r.SubjectIP, Email: r.SubjectEmail}
}

// resourcesRecord is the stored form of the table of resources.
type resourcesRecord struct {
	Format int              `json:"format"`
	List   []resourceRecord `json:"resources"`
}

type resourceRecord struct {
	ID         string `json:"resource"`
	Name       string `json:"name,omitempty"`
	Scopes     string `json:"scope,omitempty"`
	Lifetime   int64  `json:"access_token_lifetime,omitempty"`
	SigningAlg string `json:"signing_alg,omitempty"`
	Binding    string `json:"require_bound_tokens,omitempty"`
}

func encodeClient(c *registry.Client) clientRecord {
	record := clientRecord{
		Format: 1, ID: c.ID.String(), Name: c.Name, AuthMethods: c.AuthMethods, GrantTypes: c.GrantTypes,
		Scopes: c.Scopes.String(), DefaultScopes: c.DefaultScopes.String(),
		Lifetime: int64(c.AccessTokenLifetime / time.Second), Disabled: c.Disabled,
		Keys: c.Keys.String(), KeysURI: c.KeysURI, UntypedUntil: unix(c.UntypedAssertionsUntil), OlderUntil: unix(c.OlderAudiencesUntil),
		SubjectDN: c.Certificate.DN, SubjectDNS: c.Certificate.DNS, SubjectURI: c.Certificate.URI, SubjectIP: c.Certificate.IP,
		SubjectEmail: c.Certificate.Email, Bound: c.CertificateBoundTokens, DPoPBound: c.DPoPBoundTokens,
		Federation: c.Federation, Workload: c.Workload, SPIFFEID: c.SPIFFEID,
		CreatedAt: unix(c.CreatedAt), ChangedAt: unix(c.ChangedAt),
	}
	for _, r := range c.Resources {
		record.Resources = append(record.Resources, r.String())
	}
	for _, network := range c.AllowedNetworks {
		record.Format = 2
		record.Networks = append(record.Networks, network.String())
	}
	if record.hasKeys() {
		record.Format = 3
	}
	for _, secret := range c.Secrets {
		record.Secrets = append(record.Secrets, secretRecord{
			ID: secret.ID, Hash: string(secret.Hash), CreatedAt: unix(secret.CreatedAt), ExpiresAt: unix(secret.ExpiresAt),
			FromFile: secret.FromFile,
		})
	}
	return record
}

// decodeClient decodes the record under id. Anything that does not parse fails the client as a whole: half a record could
// grant more rights than the whole.
func decodeClient(id string, data []byte, version uint64) (*registry.Client, error) {
	var record clientRecord
	if err := decode(fmt.Sprintf("client %q", id), data, &record, &record.Format, clientFormat); err != nil {
		return nil, err
	}
	if record.Format < 2 && record.Networks != nil {
		return nil, fmt.Errorf("the stored client %q has allowed_networks, which its format lacks", id)
	}
	if record.Format < 3 && record.hasKeys() {
		return nil, fmt.Errorf("the stored client %q has fields that its format lacks", id)
	}
	if record.ID != id {
		return nil, fmt.Errorf("the record of client %q is that of %q", id, record.ID)
	}
	c := &registry.Client{
		Name: record.Name, AuthMethods: record.AuthMethods, GrantTypes: record.GrantTypes, Disabled: record.Disabled,
		KeysURI: record.KeysURI, Certificate: record.subject(), CertificateBoundTokens: record.Bound, DPoPBoundTokens: record.DPoPBound,
		Federation: record.Federation, Workload: record.Workload, SPIFFEID: record.SPIFFEID,
		AccessTokenLifetime:    time.Duration(record.Lifetime) * time.Second,
		UntypedAssertionsUntil: fromUnix(record.UntypedUntil), OlderAudiencesUntil: fromUnix(record.OlderUntil),
		CreatedAt: fromUnix(record.CreatedAt), ChangedAt: fromUnix(record.ChangedAt), Version: version,
	}
	var errs [4]error
	c.ID, errs[0] = oauth.ParseClientID(record.ID)
	c.Scopes, errs[1] = oauth.ParseScopes(record.Scopes)
	c.DefaultScopes, errs[2] = oauth.ParseScopes(record.DefaultScopes)
	c.Keys, errs[3] = jwks.ParseDocument(record.Keys)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("the stored client %q: %w", id, err)
	}
	for _, raw := range record.Resources {
		resource, err := oauth.ParseResource(raw)
		if err != nil {
			return nil, fmt.Errorf("the stored client %q: %w", id, err)
		}
		c.Resources = append(c.Resources, resource)
	}
	for _, raw := range record.Networks {
		network, err := remoteaddr.ParseNetwork(raw)
		if err != nil {
			return nil, fmt.Errorf("the stored client %q: %w", id, err)
		}
		c.AllowedNetworks = append(c.AllowedNetworks, network)
	}
	for _, secret := range record.Secrets {
		c.Secrets = append(c.Secrets, clientsecret.Secret{
			ID: secret.ID, Hash: clientsecret.Hash(secret.Hash),
			CreatedAt: fromUnix(secret.CreatedAt), ExpiresAt: fromUnix(secret.ExpiresAt),
			FromFile: secret.FromFile,
		})
	}
	return c, nil
}

func encodeResource(r registry.Resource) resourceRecord {
	return resourceRecord{
		ID: r.ID.String(), Name: r.Name, Scopes: r.Scopes.String(),
		Lifetime: int64(r.AccessTokenLifetime / time.Second), SigningAlg: string(r.SigningAlg),
		Binding: string(r.RequireBoundTokens),
	}
}

func decodeResource(record resourceRecord) (registry.Resource, error) {
	id, err := oauth.ParseResource(record.ID)
	if err != nil {
		return registry.Resource{}, err
	}
	scopes, err := oauth.ParseScopes(record.Scopes)
	return registry.Resource{
		ID: id, Name: record.Name, Scopes: scopes, SigningAlg: jwks.Algorithm(record.SigningAlg),
		AccessTokenLifetime: time.Duration(record.Lifetime) * time.Second, RequireBoundTokens: registry.Binding(record.Binding),
	}, err
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// maxSecond is the last second of the year 9999, after which RFC 3339 has no form for a time.
const maxSecond = 253402300799

func fromUnix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}
