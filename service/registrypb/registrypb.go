// Package registrypb converts between package registry and the messages of grantor.v1 that represent its types. It only
// converts, and decides nothing: the fields of a message are those of [registry.ClientFields], [registry.ResourceFields],
// [registry.IssuerFields] and [registry.WorkloadFields], found by name, so that a new field needs no line here.
package registrypb

import (
	"time"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// FromClient returns the message that shows a client to an administrator. It contains neither a secret nor a hash. uses are
// the last uses of the client's secrets by ID.
func FromClient(c *registry.Client, uses map[string]time.Time) *grantorv1.Client {
	m := &grantorv1.Client{
		ClientId: c.ID.String(), CreateTime: FromTime(c.CreatedAt), UpdateTime: FromTime(c.ChangedAt), Etag: c.ETag(),
	}
	setFields(m, registry.ClientFields(), c)
	for i := range c.Secrets {
		s := &c.Secrets[i]
		m.Secrets = append(m.Secrets, &grantorv1.ClientSecret{
			SecretId: s.ID, Kind: kinds[s.Hash.Kind()], CreateTime: FromTime(s.CreatedAt), ExpireTime: FromTime(s.ExpiresAt),
			LastUseTime: FromTime(s.LastUse(uses)),
		})
	}
	return m
}

// kinds maps each kind of hash to its value in messages.
var kinds = map[clientsecret.Kind]grantorv1.ClientSecret_Kind{
	clientsecret.KindGenerated: grantorv1.ClientSecret_KIND_GENERATED,
	clientsecret.KindChosen:    grantorv1.ClientSecret_KIND_CHOSEN,
	clientsecret.KindImported:  grantorv1.ClientSecret_KIND_IMPORTED,
}

// ToClient returns the client that a message represents, with its ID and the fields that an administrator can set. It
// ignores fields that are output only. If a field is not valid by itself, the error is a [registry.FieldError].
func ToClient(m *grantorv1.Client) (*registry.Client, error) {
	id, err := oauth.ParseClientID(m.GetClientId())
	if err != nil {
		return nil, err
	}
	c := &registry.Client{ID: id}
	return c, readFields(c, registry.ClientFields(), m)
}

// FromResource returns the message that represents a resource.
func FromResource(r *registry.Resource) *grantorv1.Resource {
	m := &grantorv1.Resource{Resource: r.ID.String(), Etag: r.ETag()}
	setFields(m, registry.ResourceFields(), r)
	return m
}

// ToResource returns the resource that a message represents. If a field is not valid by itself, the error is a
// [registry.FieldError].
func ToResource(m *grantorv1.Resource) (*registry.Resource, error) {
	id, err := oauth.ParseResource(m.GetResource())
	if err != nil {
		return nil, err
	}
	r := &registry.Resource{ID: id}
	return r, readFields(r, registry.ResourceFields(), m)
}

// FromIssuer returns the message that represents a trusted issuer.
func FromIssuer(i *trust.Issuer) *grantorv1.TrustedIssuer {
	m := &grantorv1.TrustedIssuer{Id: i.ID(), Issuer: i.Issuer, TrustDomain: i.TrustDomain, Etag: i.ETag()}
	setFields(m, registry.IssuerFields(), i)
	return m
}

// ToIssuer returns the trusted issuer that a message represents. If a field is not valid by itself, the error is a
// [registry.FieldError].
func ToIssuer(m *grantorv1.TrustedIssuer) (*trust.Issuer, error) {
	i := &trust.Issuer{Issuer: m.GetIssuer(), TrustDomain: m.GetTrustDomain()}
	return i, readFields(i, registry.IssuerFields(), m)
}

// FromWorkload returns the message that represents a workload.
func FromWorkload(w *trust.Workload) *grantorv1.Workload {
	m := &grantorv1.Workload{ClientId: w.ClientID.String(), Etag: w.ETag()}
	setFields(m, registry.WorkloadFields(), w)
	return m
}

// ToWorkload returns the workload that a message represents. If a field is not valid by itself, the error is a
// [registry.FieldError].
func ToWorkload(m *grantorv1.Workload) (*trust.Workload, error) {
	id, err := ToPattern("client_id", m.GetClientId())
	if err != nil {
		return nil, err
	}
	w := &trust.Workload{ClientID: id}
	return w, readFields(w, registry.WorkloadFields(), m)
}

// ToPattern parses a pattern. If it is not valid, the error is a [registry.FieldError].
func ToPattern(field, text string) (trust.Pattern, error) {
	pattern, err := trust.ParsePattern(text)
	if err != nil {
		return trust.Pattern{}, &registry.FieldError{Field: field, Problem: err.Error()}
	}
	return pattern, nil
}

// FromSpec returns the message that represents a client of a manifest.
func FromSpec(s *registry.ClientSpec) *grantorv1.WantedClient {
	client := &grantorv1.Client{ClientId: s.ID.String()}
	setFields(client, registry.ClientFields(), &s.Client)
	if s.LeaveDisabled {
		client.Disabled = nil
	}
	m := &grantorv1.WantedClient{Client: client, ClientSecret: s.Secret}
	for _, hash := range s.Hashes {
		m.ClientSecretHashes = append(m.ClientSecretHashes, string(hash))
	}
	return m
}

// ToSpec returns the client of a manifest that a message represents.
func ToSpec(m *grantorv1.WantedClient) (*registry.ClientSpec, error) {
	c, err := ToClient(m.GetClient())
	if err != nil {
		return nil, err
	}
	s := &registry.ClientSpec{Client: *c, Secret: m.GetClientSecret(), LeaveDisabled: m.GetClient().Disabled == nil}
	for _, text := range m.GetClientSecretHashes() {
		hash, err := clientsecret.ParseImported(text)
		if err != nil {
			return nil, &registry.ManifestError{ID: c.ID, Err: &registry.FieldError{Field: "client_secret_hashes", Problem: err.Error()}}
		}
		s.Hashes = append(s.Hashes, hash)
	}
	return s, nil
}

// ToManifest returns the manifest that a request contains.
func ToManifest(m *grantorv1.ApplyManifestRequest) (*registry.Manifest, error) {
	manifest := &registry.Manifest{}
	for _, sent := range m.GetResources() {
		resource, err := ToResource(sent)
		if err != nil {
			return nil, err
		}
		manifest.Resources = append(manifest.Resources, *resource)
	}
	for _, sent := range m.GetTrustedIssuers() {
		issuer, err := ToIssuer(sent)
		if err != nil {
			return nil, &trust.EntryError{Kind: trust.KindIssuer, ID: issuer.ID(), Err: err}
		}
		manifest.Issuers = append(manifest.Issuers, *issuer)
	}
	for _, sent := range m.GetWorkloads() {
		workload, err := ToWorkload(sent)
		if err != nil {
			return nil, &trust.EntryError{Kind: trust.KindWorkload, ID: sent.GetClientId(), Err: err}
		}
		manifest.Workloads = append(manifest.Workloads, *workload)
	}
	for _, sent := range m.GetClients() {
		spec, err := ToSpec(sent)
		if err != nil {
			return nil, err
		}
		manifest.Clients = append(manifest.Clients, *spec)
	}
	return manifest, nil
}
