package registry

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/trust"
)

// Field describes one field of a T, such as a [Client], that an administrator can set. Validation, audit events, update
// masks, manifests and messages follow from it. So a new field is a row of [ClientFields] or [ResourceFields], and is
// added to the stored record and the proto, and nowhere else.
type Field[T any] struct {
	// Name is the name of the field in messages, update masks, manifests and audit events.
	Name string
	// Absent is the text for people where the field is not set, such as "any".
	Absent string

	get  func(*T) any
	set  func(*T, any) error
	add  func(*T, string) error
	copy func(to, from *T)
}

// Get returns the value of the field as a string, a bool, a [time.Duration], a [time.Time], a []string, a
// map[string]string or, of a field that is a message or a list of messages, its JSON as a [json.RawMessage]. The zero
// value and an empty list mean that the field is not set.
func (f *Field[T]) Get(t *T) any { return f.get(t) }

// Set sets the field to a value of the type that Get returns. If the value is not valid, the error is a [FieldError].
func (f *Field[T]) Set(t *T, value any) error {
	if err := f.set(t, value); err != nil {
		return &FieldError{Field: f.Name, Problem: err.Error()}
	}
	return nil
}

// Add sets the field to the value that text represents, or appends the value to a list or a map. Durations are written as
// 1h30m, elements of a map as name=value.
// An error does not name the field.
func (f *Field[T]) Add(t *T, text string) error { return f.add(t, text) }

// Text returns the value of the field as people read it: the elements of a list are separated by spaces, and "" means that
// the field is not set. Two values are equal if their texts are.
func (f *Field[T]) Text(t *T) string { return FormatValue(f.get(t)) }

// FormatValue returns the text of a value that [Field.Get] returned.
func FormatValue(value any) string {
	switch value := value.(type) {
	case string:
		return value
	case json.RawMessage:
		return string(value)
	case time.Time:
		if !value.IsZero() {
			return value.UTC().Format(time.RFC3339)
		}
	case []string:
		return strings.Join(value, " ")
	case map[string]string:
		texts := make([]string, 0, len(value))
		for _, name := range slices.Sorted(maps.Keys(value)) {
			texts = append(texts, name+"="+value[name])
		}
		return strings.Join(texts, " ")
	case bool:
		if value {
			return "true"
		}
	case time.Duration:
		if value != 0 {
			return value.String()
		}
	}
	return ""
}

// clientField is a field of a client and its rules.
type clientField struct {
	Field[Client]
	// check, if not nil, returns what is wrong with the field; "" if nothing is. stored is the client before a change.
	check func(c, stored *Client, resources *Resources) (problem string)
	// omitted, if not nil, reports whether a manifest does not say what the field should be. The field then stays as it is.
	omitted func(*ClientSpec) bool
}

// clientFields are the fields of a client, in the order in which they are shown. Its secrets are no field: they have
// methods of their own.
var clientFields = []clientField{
	{
		Field: textField("client_name", "", func(c *Client) *string { return &c.Name }),
		check: func(c, _ *Client, _ *Resources) string { return checkName(c.Name) },
	},
	{
		Field: listField("auth_methods", "all", func(c *Client) *[]string { return &c.AuthMethods }, verbatim, identity),
		check: func(c, _ *Client, _ *Resources) string {
			return cmp.Or(checkOffered(c.AuthMethods, authMethods...), checkMethods(c))
		},
	},
	{
		Field: documentField("jwks", "none", func(c *Client) *jwks.Document { return &c.Keys }, jwks.ParseDocument),
	},
	{
		Field: textField("jwks_uri", "none", func(c *Client) *string { return &c.KeysURI }),
		check: checkKeysURI,
	},
	{
		Field: timeField("untyped_assertions_until", "never", func(c *Client) *time.Time { return &c.UntypedAssertionsUntil }),
	},
	{
		Field: timeField("older_audiences_until", "never", func(c *Client) *time.Time { return &c.OlderAudiencesUntil }),
	},
	{
		Field: textField("tls_client_auth_subject_dn", "none", func(c *Client) *string { return &c.Certificate.DN }),
		check: checkCertificate(func(s *certificate.Subject) string { return s.DN }, certificate.CheckDN),
	},
	{
		Field: textField("tls_client_auth_san_dns", "none", func(c *Client) *string { return &c.Certificate.DNS }),
		check: checkCertificate(func(s *certificate.Subject) string { return s.DNS }, certificate.CheckDNS),
	},
	{
		Field: textField("tls_client_auth_san_uri", "none", func(c *Client) *string { return &c.Certificate.URI }),
		check: checkCertificate(func(s *certificate.Subject) string { return s.URI }, certificate.CheckURI),
	},
	{
		Field: textField("tls_client_auth_san_ip", "none", func(c *Client) *string { return &c.Certificate.IP }),
		check: checkCertificate(func(s *certificate.Subject) string { return s.IP }, certificate.CheckIP),
	},
	{
		Field: textField("tls_client_auth_san_email", "none", func(c *Client) *string { return &c.Certificate.Email }),
		check: checkCertificate(func(s *certificate.Subject) string { return s.Email }, certificate.CheckEmail),
	},
	{
		Field: flagField("tls_client_certificate_bound_access_tokens", "false", func(c *Client) *bool { return &c.CertificateBoundTokens }),
	},
	{
		Field: flagField("dpop_bound_access_tokens", "false", func(c *Client) *bool { return &c.DPoPBoundTokens }),
	},
	{
		Field: listField("grant_types", "none", func(c *Client) *[]string { return &c.GrantTypes }, verbatim, identity),
		check: func(c, _ *Client, _ *Resources) string {
			return checkOffered(c.GrantTypes, oauth.GrantClientCredentials)
		},
	},
	{
		Field: scopesField("scopes", "none", func(c *Client) *oauth.Scopes { return &c.Scopes }),
		check: checkScopes,
	},
	{
		Field: scopesField("default_scopes", "all", func(c *Client) *oauth.Scopes { return &c.DefaultScopes }),
		check: checkDefaultScopes,
	},
	{
		Field: listField("resources", "none", func(c *Client) *[]oauth.Resource { return &c.Resources }, oauth.ParseResource, oauth.Resource.String),
		check: checkResources,
	},
	{
		Field: durationField("access_token_lifetime", "the issuer's", func(c *Client) *time.Duration { return &c.AccessTokenLifetime }),
		check: func(c, _ *Client, _ *Resources) string { return checkLifetime(c.AccessTokenLifetime) },
	},
	{
		Field: listField("allowed_networks", "any", func(c *Client) *remoteaddr.Networks { return &c.AllowedNetworks }, remoteaddr.ParseNetwork, netip.Prefix.String),
		check: func(c, _ *Client, _ *Resources) string { return checkCount(len(c.AllowedNetworks), maxNetworks) },
		// No manifest may lift by accident a restriction that was made in an emergency.
		omitted: func(s *ClientSpec) bool { return len(s.AllowedNetworks) == 0 },
	},
	{
		Field:   flagField("disabled", "false", func(c *Client) *bool { return &c.Disabled }),
		omitted: func(s *ClientSpec) bool { return s.LeaveDisabled },
	},
	{
		Field: textField("spiffe_id", "none", func(c *Client) *string { return &c.SPIFFEID }),
		check: checkSPIFFEID,
	},
	{
		Field: messagesField("federation", "none", func(c *Client) *[]trust.Rule { return &c.Federation }),
		check: checkFederation,
	},
	{
		Field: flagField("workload", "false", func(c *Client) *bool { return &c.Workload }),
	},
}

// resourceFields are the fields of a resource, in the order in which they are shown.
var resourceFields = []Field[Resource]{
	textField("name", "", func(r *Resource) *string { return &r.Name }),
	scopesField("scopes", "none", func(r *Resource) *oauth.Scopes { return &r.Scopes }),
	durationField("access_token_lifetime", "the issuer's", func(r *Resource) *time.Duration { return &r.AccessTokenLifetime }),
	textField("signing_alg", "the issuer's", func(r *Resource) *jwks.Algorithm { return &r.SigningAlg }),
	textField("require_bound_tokens", "none", func(r *Resource) *Binding { return &r.RequireBoundTokens }),
}

// issuerFields are the fields of a trusted issuer, in the order in which they are shown. "issuer" and "trust_domain"
// identify it.
var issuerFields = []Field[trust.Issuer]{
	textField("jwks_uri", "by discovery", func(i *trust.Issuer) *string { return &i.KeysURI }),
	documentField("jwks", "none", func(i *trust.Issuer) *jwks.Document { return &i.Keys }, jwks.ParseDocument),
	textField("ca_file", "the system's", func(i *trust.Issuer) *string { return &i.CAFile }),
	textField("bearer_token_file", "none", func(i *trust.Issuer) *string { return &i.BearerTokenFile }),
	listField("audience", "this issuer", func(i *trust.Issuer) *[]string { return &i.Audience }, verbatim, identity),
	flagField("single_use", "false", func(i *trust.Issuer) *bool { return &i.SingleUse }),
	textField("bundle_endpoint", "none", func(i *trust.Issuer) *string { return &i.BundleEndpoint }),
	textField("bundle_file", "none", func(i *trust.Issuer) *string { return &i.BundleFile }),
	textField("workload_api", "none", func(i *trust.Issuer) *string { return &i.WorkloadAPI }),
}

// workloadFields are the fields of a workload, in the order in which they are shown. "client_id" identifies it.
var workloadFields = []Field[trust.Workload]{
	textField("issuer", "none", func(w *trust.Workload) *string { return &w.Rule.Issuer }),
	patternField("subject", "any", func(w *trust.Workload) *trust.Pattern { return &w.Rule.Subject }),
	mapField("claims", "any", func(w *trust.Workload) *map[string]trust.Pattern { return &w.Rule.Claims }, trust.ParsePattern, trust.Pattern.String),
	patternField("spiffe_id", "none", func(w *trust.Workload) *trust.Pattern { return &w.Rule.SPIFFEID }),
	mapField("where", "any", func(w *trust.Workload) *trust.Captures { return &w.Where }, verbatim, identity),
	scopesField("scopes", "none", func(w *trust.Workload) *oauth.Scopes { return &w.Scopes }),
	scopesField("default_scopes", "all", func(w *trust.Workload) *oauth.Scopes { return &w.DefaultScopes }),
	durationField("access_token_lifetime", "the issuer's", func(w *trust.Workload) *time.Duration { return &w.AccessTokenLifetime }),
}

// IssuerFields returns the fields of a trusted issuer that an administrator can set, in the order in which they are shown.
func IssuerFields() []Field[trust.Issuer] { return slices.Clone(issuerFields) }

// WorkloadFields returns the fields of a workload that an administrator can set, in the order in which they are shown.
func WorkloadFields() []Field[trust.Workload] { return slices.Clone(workloadFields) }

// CopyIssuer copies the fields with the given names, of those that [IssuerFields] returns.
func CopyIssuer(to, from *trust.Issuer, names []string) { copyFields(issuerFields, to, from, names) }

// CopyWorkload copies the fields with the given names, of those that [WorkloadFields] returns.
func CopyWorkload(to, from *trust.Workload, names []string) {
	copyFields(workloadFields, to, from, names)
}

// ClientFields returns the fields of a client that an administrator can set, in the order in which they are shown.
func ClientFields() []Field[Client] {
	fields := make([]Field[Client], len(clientFields))
	for i := range clientFields {
		fields[i] = clientFields[i].Field
	}
	return fields
}

// ResourceFields returns the fields of a resource that an administrator can set, in the order in which they are shown.
func ResourceFields() []Field[Resource] { return slices.Clone(resourceFields) }

// copyFields copies the fields with the given names.
func copyFields[T any](fields []Field[T], to, from *T, names []string) {
	for i := range fields {
		if slices.Contains(names, fields[i].Name) {
			fields[i].copy(to, from)
		}
	}
}

// FieldChange is a change of one field, by its name on the wire. From and To are its values as [Field.Text] returns them.
// They never contain a secret or a hash.
type FieldChange struct{ Field, From, To string }

// changes returns the fields whose values differ.
func changes[T any](fields []Field[T], from, to *T) []FieldChange {
	var changed []FieldChange
	for i := range fields {
		if before, after := fields[i].Text(from), fields[i].Text(to); before != after {
			changed = append(changed, FieldChange{fields[i].Name, before, after})
		}
	}
	return changed
}

// FieldError reports which field of a client, resource, trusted issuer or workload is not valid, by its name on the
// wire, and why.
type FieldError = trust.FieldError

// fieldError returns a [FieldError], or nil if problem is empty.
func fieldError(field, problem string) error {
	if problem == "" {
		return nil
	}
	return &FieldError{Field: field, Problem: problem}
}
