package admin

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// invalid says which field of a request is wrong.
func invalid(field, problem string) error {
	return &registry.FieldError{Field: field, Problem: problem}
}

// The fields that an administrator may change, by their names on the wire.
var (
	clientFields = []string{
		"client_name", "grant_types", "scopes", "default_scopes", "resources", "auth_methods", "access_token_lifetime", "disabled",
		"allowed_networks",
	}
	resourceFields = []string{"name", "scopes", "access_token_lifetime", "signing_alg"}
)

// readClient reads the id and the fields that are named; all others stay zero.
func readClient(m *grantorv1.Client, fields []string) (*registry.Client, error) {
	id, err := oauth.ParseClientID(m.GetClientId())
	if err != nil {
		return nil, err
	}
	sent := &registry.Client{Name: m.GetClientName(), GrantTypes: m.GetGrantTypes(), AuthMethods: m.GetAuthMethods(), Disabled: m.GetDisabled()}
	if sent.Scopes, err = readScopes("scopes", m.GetScopes()); err != nil {
		return nil, err
	}
	if sent.DefaultScopes, err = readScopes("default_scopes", m.GetDefaultScopes()); err != nil {
		return nil, err
	}
	for _, raw := range m.GetResources() {
		resource, err := oauth.ParseResource(raw)
		if err != nil {
			return nil, invalid("resources", err.Error())
		}
		sent.Resources = append(sent.Resources, resource)
	}
	for _, raw := range m.GetAllowedNetworks() {
		network, err := registry.ParseNetwork(raw)
		if err != nil {
			return nil, invalid("allowed_networks", err.Error())
		}
		sent.AllowedNetworks = append(sent.AllowedNetworks, network)
	}
	if sent.AccessTokenLifetime, err = span("access_token_lifetime", m.GetAccessTokenLifetime()); err != nil {
		return nil, err
	}
	wanted := &registry.Client{ID: id}
	copyClient(wanted, sent, fields)
	return wanted, nil
}

// copyClient copies the fields that are named.
func copyClient(to, from *registry.Client, fields []string) {
	for _, field := range fields {
		switch field {
		case "client_name":
			to.Name = from.Name
		case "grant_types":
			to.GrantTypes = from.GrantTypes
		case "scopes":
			to.Scopes = from.Scopes
		case "default_scopes":
			to.DefaultScopes = from.DefaultScopes
		case "resources":
			to.Resources = from.Resources
		case "auth_methods":
			to.AuthMethods = from.AuthMethods
		case "access_token_lifetime":
			to.AccessTokenLifetime = from.AccessTokenLifetime
		case "allowed_networks":
			to.AllowedNetworks = from.AllowedNetworks
		case "disabled":
			to.Disabled = from.Disabled
		}
	}
}

// writeClient writes a client for its administrator: never a secret, nor its hash. used is what is kept of its uses.
func writeClient(c *registry.Client, used map[string]time.Time) *grantorv1.Client {
	m := &grantorv1.Client{
		ClientId: c.ID.String(), ClientName: c.Name, GrantTypes: c.GrantTypes, Scopes: c.Scopes.Strings(),
		DefaultScopes: c.DefaultScopes.Strings(), AuthMethods: c.AuthMethods, AccessTokenLifetime: duration(c.AccessTokenLifetime),
		Disabled: new(c.Disabled), CreateTime: timestamp(c.CreatedAt), UpdateTime: timestamp(c.ChangedAt), Etag: c.ETag(),
	}
	for _, r := range c.Resources {
		m.Resources = append(m.Resources, r.String())
	}
	for _, n := range c.AllowedNetworks {
		m.AllowedNetworks = append(m.AllowedNetworks, n.String())
	}
	for i := range c.Secrets {
		s := &c.Secrets[i]
		m.Secrets = append(m.Secrets, &grantorv1.ClientSecret{
			SecretId: s.ID, Kind: kinds[s.Hash.Kind()], CreateTime: timestamp(s.CreatedAt), ExpireTime: timestamp(s.ExpiresAt),
			LastUseTime: timestamp(s.LastUse(used)),
		})
	}
	return m
}

// kinds has the domain's word → that of the wire.
var kinds = map[clientsecret.Kind]grantorv1.ClientSecret_Kind{
	clientsecret.KindGenerated: grantorv1.ClientSecret_KIND_GENERATED,
	clientsecret.KindChosen:    grantorv1.ClientSecret_KIND_CHOSEN,
	clientsecret.KindImported:  grantorv1.ClientSecret_KIND_IMPORTED,
}

// readResource reads the identifier and the fields that are named; all others stay zero.
func readResource(m *grantorv1.Resource, fields []string) (*registry.Resource, error) {
	id, err := oauth.ParseResource(m.GetResource())
	if err != nil {
		return nil, err
	}
	sent := &registry.Resource{Name: m.GetName(), SigningAlg: jwks.Algorithm(m.GetSigningAlg())}
	if sent.Scopes, err = readScopes("scopes", m.GetScopes()); err != nil {
		return nil, err
	}
	if sent.AccessTokenLifetime, err = span("access_token_lifetime", m.GetAccessTokenLifetime()); err != nil {
		return nil, err
	}
	wanted := &registry.Resource{ID: id}
	copyResource(wanted, sent, fields)
	return wanted, nil
}

// copyResource copies the fields that are named.
func copyResource(to, from *registry.Resource, fields []string) {
	for _, field := range fields {
		switch field {
		case "name":
			to.Name = from.Name
		case "scopes":
			to.Scopes = from.Scopes
		case "access_token_lifetime":
			to.AccessTokenLifetime = from.AccessTokenLifetime
		case "signing_alg":
			to.SigningAlg = from.SigningAlg
		}
	}
}

func writeResource(r *registry.Resource) *grantorv1.Resource {
	return &grantorv1.Resource{
		Resource: r.ID.String(), Name: r.Name, Scopes: r.Scopes.Strings(), AccessTokenLifetime: duration(r.AccessTokenLifetime),
		SigningAlg: string(r.SigningAlg), Etag: r.ETag(),
	}
}

func readManifest(m *grantorv1.ApplyManifestRequest) (*registry.Manifest, error) {
	manifest := &registry.Manifest{}
	for _, sent := range m.GetResources() {
		resource, err := readResource(sent, resourceFields)
		if err != nil {
			return nil, err
		}
		manifest.Resources = append(manifest.Resources, *resource)
	}
	for _, sent := range m.GetClients() {
		client, err := readClient(sent.GetClient(), clientFields)
		if err != nil {
			return nil, err
		}
		wanted := registry.ClientSpec{Client: *client, Secret: sent.GetClientSecret(), LeaveDisabled: sent.GetClient().Disabled == nil}
		if wanted.Secret != "" {
			if err := registry.CheckSecret(wanted.Secret); err != nil {
				return nil, &registry.ManifestError{ID: client.ID, Err: err}
			}
		}
		for _, text := range sent.GetClientSecretHashes() {
			hash, err := clientsecret.ParseImported(text)
			if err != nil {
				return nil, &registry.ManifestError{ID: client.ID, Err: invalid("client_secret_hashes", err.Error())}
			}
			wanted.Hashes = append(wanted.Hashes, hash)
		}
		manifest.Clients = append(manifest.Clients, wanted)
	}
	return manifest, nil
}

func readScopes(field string, names []string) (oauth.Scopes, error) {
	if len(names) > oauth.MaxScopes {
		return nil, invalid(field, fmt.Sprintf("has more than %d scopes", oauth.MaxScopes))
	}
	var scopes oauth.Scopes
	for _, name := range names {
		scope, err := oauth.ParseScope(name)
		if err != nil {
			return nil, invalid(field, err.Error())
		}
		if !scopes.Has(scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}

// span reads a length of time; none is zero.
func span(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.GetNanos() != 0 {
		return 0, invalid(field, "is not a number of whole seconds")
	}
	return d.AsDuration(), nil
}

// moment reads a point in time; none is the zero time, which nothing that is sent may be. Records have whole seconds.
func moment(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if t.CheckValid() != nil || t.AsTime().Unix() <= 0 {
		return time.Time{}, invalid(field, "is not a time")
	}
	return t.AsTime().Truncate(time.Second), nil
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
