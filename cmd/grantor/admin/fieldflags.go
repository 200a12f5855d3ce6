package admin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
)

// fieldFlag is the flag that sets a field.
type fieldFlag struct {
	field, name, usage string
	completions        []string
}

// clientFlags are the flags of a client's fields. The field disabled has none here: grantor client disable sets it.
var clientFlags = []fieldFlag{
	{"client_name", "name", "`name` for people", nil},
	{"scopes", "scope", "`scope` that it may have, or several with spaces between; can be repeated", nil},
	{"default_scopes", "default-scope", "`scope` that it gets when it requests none, as --scope; default: all of its scopes", nil},
	{"resources", "resource", "`URI` of a resource that it serves, or several with spaces between; can be repeated", nil},
	{"grant_types", "grant-type", "`grant` that it may use; can be repeated", []string{oauth.GrantClientCredentials}},
	{"auth_methods", "auth-method", "`method` by which it may authenticate; can be repeated; default: all", []string{oauth.ClientSecretBasic, oauth.ClientSecretPost, oauth.PrivateKeyJWT}},
	{"jwks", "jwks-file", "`file` with a JWK Set: the public keys that verify its assertions (private_key_jwt)", nil},
	{"jwks_uri", "jwks-uri", "`URL` of that JWK Set, instead of a file", nil},
	{"untyped_assertions_until", "untyped-assertions-until", "`time`, such as 2030-01-31, until which its assertions may have the typ JWT or none", nil},
	{"older_audiences_until", "older-audiences-until", "`time` until which its assertions may be addressed to the token endpoint or to several servers", nil},
	{"allowed_networks", "allowed-network", "`network` that it may come from, such as 10.0.0.0/8, or several with spaces between; can be repeated; default: any", nil},
	{"access_token_lifetime", "access-token-lifetime", "maximum `lifetime` of its tokens; 0 for the default", nil},
	{"federation", "federation", "`rule` for identities of a trusted issuer that authenticate it: name=value with commas between, such as issuer=URL,subject=TEXT or issuer=URL,claims.NAME=TEXT or spiffe_id=ID; can be repeated", nil},
	{"workload", "workload", "it is a client of a workload, which has its scopes", nil},
}

// resourceFlags are the flags of a resource's fields.
var resourceFlags = []fieldFlag{
	{"name", "name", "`name` for people", nil},
	{"scopes", "scope", "`scope` that belongs to it, or several with spaces between; can be repeated", nil},
	{"access_token_lifetime", "access-token-lifetime", "maximum `lifetime` of its tokens; 0 for the default", nil},
	{"signing_alg", "signing-alg", "`algorithm` that signs its tokens; default: the issuer's", signingAlgorithmNames},
}

// issuerFlags are the flags of a trusted issuer's fields.
var issuerFlags = []fieldFlag{
	{"jwks_uri", "jwks-uri", "`URL` of its JWK Set; default: its metadata name it", nil},
	{"jwks", "jwks-file", "`file` here with its JWK Set, which is stored, instead of a URL", nil},
	{"ca_file", "ca-file", "`path` on the replicas of the authorities that sign the certificate of its server; default: the system's", nil},
	{"bearer_token_file", "bearer-token-file", "`path` on the replicas of the token that its server asks for", nil},
	{"audience", "audience", "`aud` that its tokens may have, or several with spaces between; can be repeated; default: the issuer's identifier", nil},
	{"single_use", "single-use", "accept each of its tokens once", nil},
	{"bundle_endpoint", "bundle-endpoint", "`URL` of the bundle of the trust domain", nil},
	{"bundle_file", "bundle-file", "`path` on the replicas of the bundle of the trust domain", nil},
	{"workload_api", "workload-api", "`address` of the Workload API that has the bundle, such as unix:///run/spire/agent.sock", nil},
}

// workloadFlags are the flags of a workload's fields.
var workloadFlags = []fieldFlag{
	{"issuer", "trusted-issuer", "`URL` of the trusted issuer, the iss of its tokens", nil},
	{"subject", "subject", "`pattern` of the sub of its tokens", nil},
	{"claims", "claim", "`name=pattern` of a claim of its tokens; can be repeated", nil},
	{"spiffe_id", "spiffe-id", "`pattern` of its SPIFFE IDs, instead of those of tokens", nil},
	{"where", "where", "`name=value` of a capture, the only value that is accepted; can be repeated", nil},
	{"scopes", "scope", "`scope` that its clients may have, or several with spaces between; can be repeated", nil},
	{"default_scopes", "default-scope", "`scope` that they get when they request none, as --scope; default: all", nil},
	{"access_token_lifetime", "access-token-lifetime", "maximum `lifetime` of their tokens; 0 for the default", nil},
}

// signingAlgorithmNames are the algorithms that an issuer can have.
var signingAlgorithmNames = []string{"ES256", "RS256", "PS256", "EdDSA"}

// fieldChange is a change of the fields of an entry of the registry, such as a client, by flags.
type fieldChange struct {
	flags *pflag.FlagSet
	rows  []fieldFlag
	// values maps a field to a function that returns the value of its flag.
	values map[string]func() any
	// added and removed are the values of the flags that edit the list of scopes.
	added, removed []string
}

// newFieldChange adds the flags of rows to cmd, each of the type that its field has in table.
func newFieldChange[T any](cmd *cobra.Command, table []registry.Field[T], rows []fieldFlag) *fieldChange {
	c := &fieldChange{flags: cmd.Flags(), rows: rows, values: make(map[string]func() any, len(rows))}
	for _, row := range rows {
		i := slices.IndexFunc(table, func(f registry.Field[T]) bool { return f.Name == row.field })
		c.values[row.field] = declare(c.flags, row, table[i].Get(new(T)))
		if row.completions != nil {
			cli.CompleteFlag(cmd, row.name, row.completions...)
		}
	}
	return c
}

// declare adds a flag for values of the type of zero. It returns a function that returns the value of the flag.
func declare(flags *pflag.FlagSet, row fieldFlag, zero any) func() any {
	switch zero.(type) {
	case []string:
		list := flags.StringArray(row.name, nil, row.usage)
		return func() any { return splitValues(*list) }
	case time.Duration:
		duration := flags.Duration(row.name, 0, row.usage)
		return func() any { return *duration }
	case bool:
		flag := flags.Bool(row.name, false, row.usage)
		return func() any { return *flag }
	case time.Time:
		moment := flags.Time(row.name, time.Time{}, []string{time.RFC3339, time.DateOnly}, row.usage)
		return func() any { return *moment }
	case map[string]string:
		pairs := make(pairsFlag)
		flags.Var(pairs, row.name, row.usage)
		return func() any { return map[string]string(pairs) }
	case json.RawMessage:
		value := newJSONFlag(row.field)
		flags.Var(value, row.name, row.usage)
		return func() any { return value.json() }
	default:
		text := flags.String(row.name, "", row.usage)
		return func() any { return *text }
	}
}

// declareScopeEdits adds the flags that edit the scopes of an existing entry.
func (c *fieldChange) declareScopeEdits() {
	c.flags.StringArrayVar(&c.added, "add-scope", nil, "`scope` to add to the existing ones, as --scope")
	c.flags.StringArrayVar(&c.removed, "remove-scope", nil, "`scope` to remove from the existing ones, as --scope")
}

// check refuses an update of nothing, and one of the scopes in two ways.
func (c *fieldChange) check(*cobra.Command, []string) error {
	given := func(row fieldFlag) bool { return c.flags.Changed(row.name) }
	if !c.editsScopes() && !slices.ContainsFunc(c.rows, given) {
		return cli.UsageError(errors.New("nothing to change: give the new value of a field by its flag"))
	}
	return cmp.Or(exclusive(c.flags, "scope", "add-scope"), exclusive(c.flags, "scope", "remove-scope"))
}

// editsScopes reports whether a flag adds to the scopes or removes from them.
func (c *fieldChange) editsScopes() bool {
	return c.flags.Changed("add-scope") || c.flags.Changed("remove-scope")
}

// apply sets the fields of m whose flags are given, and returns their names.
func (c *fieldChange) apply(m proto.Message) []string {
	var fields []string
	set := func(field string, value any) {
		registrypb.SetField(m, field, value)
		fields = append(fields, field)
	}
	for _, row := range c.rows {
		if c.flags.Changed(row.name) {
			set(row.field, c.values[row.field]())
		}
	}
	if scoped, ok := m.(interface{ GetScopes() []string }); ok && c.editsScopes() {
		set("scopes", editList(scoped.GetScopes(), c.added, c.removed))
	}
	return fields
}

// exclusive refuses two flags that exclude each other.
func exclusive(flags *pflag.FlagSet, one, other string) error {
	if flags.Changed(one) && flags.Changed(other) {
		return cli.UsageError(fmt.Errorf("--%s, --%s: give one of them", one, other))
	}
	return nil
}

// splitValues splits the values of a flag that can be repeated and have several values with spaces between. No value
// has a space itself.
func splitValues(values []string) []string { return strings.Fields(strings.Join(values, " ")) }

// editList returns list with values added and removed.
func editList(list, added, removed []string) []string {
	list = slices.Clone(list)
	for _, one := range splitValues(added) {
		if !slices.Contains(list, one) {
			list = append(list, one)
		}
	}
	unwanted := splitValues(removed)
	return slices.DeleteFunc(list, func(one string) bool { return slices.Contains(unwanted, one) })
}

// fieldLines returns a line for people for each field of m that table has.
func fieldLines[T any](m proto.Message, table []registry.Field[T]) [][]string {
	lines := make([][]string, len(table))
	for i, field := range table {
		lines[i] = []string{field.Name, cmp.Or(registrypb.FieldText(m, field.Name), field.Absent)}
	}
	return lines
}
