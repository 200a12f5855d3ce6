package admin

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
)

// clientChange is a change of a client's fields by flags.
type clientChange struct {
	flags                         *pflag.FlagSet
	update                        bool
	name                          string
	grantTypes, authMethods       []string
	scopes, added, removed        []string
	defaultScopes, servedResource []string
	networks                      []string
	lifetime                      time.Duration
}

// declare adds the flags. The flags that add to a list or remove from it are for an existing client.
func (c *clientChange) declare(cmd *cobra.Command, update bool) {
	c.flags, c.update = cmd.Flags(), update
	c.flags.StringVar(&c.name, "name", "", "`name` for people")
	c.flags.StringArrayVar(&c.scopes, "scope", nil, "`scope` that it may have, or several with spaces between; can be repeated")
	c.flags.StringArrayVar(&c.defaultScopes, "default-scope", nil, "`scope` that it gets when it requests none, as --scope; default: all of its scopes")
	c.flags.StringArrayVar(&c.servedResource, "resource", nil, "`URI` of a resource that it serves, or several with spaces between; can be repeated")
	c.flags.StringArrayVar(&c.grantTypes, "grant-type", nil, "`grant` that it may use; can be repeated")
	c.flags.StringArrayVar(&c.authMethods, "auth-method", nil, "`method` by which it may authenticate; can be repeated; default: all")
	c.flags.StringArrayVar(&c.networks, "allowed-network", nil, "`network` that it may come from, such as 10.0.0.0/8, or several with spaces between; can be repeated; default: any")
	c.flags.DurationVar(&c.lifetime, "access-token-lifetime", 0, "maximum `lifetime` of its tokens; 0 for the default")
	cli.CompleteFlag(cmd, "grant-type", oauth.GrantClientCredentials)
	cli.CompleteFlag(cmd, "auth-method", oauth.ClientSecretBasic, oauth.ClientSecretPost)
	if update {
		declareScopeEdits(cmd, &c.added, &c.removed)
	}
}

// declareScopeEdits adds the flags that edit a list of scopes.
func declareScopeEdits(cmd *cobra.Command, added, removed *[]string) {
	cmd.Flags().StringArrayVar(added, "add-scope", nil, "`scope` to add to the existing ones, as --scope")
	cmd.Flags().StringArrayVar(removed, "remove-scope", nil, "`scope` to remove from the existing ones, as --scope")
}

// exclusive refuses two flags that exclude each other.
func exclusive(flags *pflag.FlagSet, one, other string) error {
	if flags.Changed(one) && flags.Changed(other) {
		return cli.UsageError(fmt.Errorf("--%s, --%s: give one of them", one, other))
	}
	return nil
}

// clientFields maps a flag to its field of the message.
var clientFields = map[string]string{
	"name": "client_name", "scope": "scopes", "add-scope": "scopes", "remove-scope": "scopes", "default-scope": "default_scopes",
	"resource": "resources", "grant-type": "grant_types", "auth-method": "auth_methods",
	"access-token-lifetime": "access_token_lifetime", "allowed-network": "allowed_networks",
}

// checkUpdate refuses a change of nothing, and one of the scopes in two ways.
func checkUpdate(flags *pflag.FlagSet, fields map[string]string) error {
	if len(changedFields(flags, fields)) == 0 {
		return cli.UsageError(errors.New("nothing to change: give the new value of a field by its flag"))
	}
	return cmp.Or(exclusive(flags, "scope", "add-scope"), exclusive(flags, "scope", "remove-scope"))
}

// changedFields returns the fields of the flags that are given.
func changedFields(flags *pflag.FlagSet, fields map[string]string) []string {
	var changed []string
	flags.Visit(func(flag *pflag.Flag) {
		if field, ok := fields[flag.Name]; ok && !slices.Contains(changed, field) {
			changed = append(changed, field)
		}
	})
	return changed
}

// apply makes the change and returns the changed fields.
func (c *clientChange) apply(client *grantorv1.Client) []string {
	fields := changedFields(c.flags, clientFields)
	for _, field := range fields {
		switch field {
		case "client_name":
			client.ClientName = c.name
		case "scopes":
			client.Scopes = editList(client.GetScopes(), c.flags.Changed("scope"), c.scopes, c.added, c.removed)
		case "default_scopes":
			client.DefaultScopes = splitValues(c.defaultScopes)
		case "resources":
			client.Resources = splitValues(c.servedResource)
		case "grant_types":
			client.GrantTypes = splitValues(c.grantTypes)
		case "auth_methods":
			client.AuthMethods = splitValues(c.authMethods)
		case "allowed_networks":
			client.AllowedNetworks = splitValues(c.networks)
		case "access_token_lifetime":
			client.AccessTokenLifetime = remote.Lifetime(c.lifetime)
		}
	}
	// This is the only grant that uses scopes.
	if !c.update && len(client.GetScopes()) > 0 && !c.flags.Changed("grant-type") {
		client.GrantTypes = []string{oauth.GrantClientCredentials}
	}
	return fields
}

// splitValues splits the values of a flag that can be repeated and have several values with spaces between. No value
// has a space itself.
func splitValues(values []string) []string { return strings.Fields(strings.Join(values, " ")) }

// editList replaces a list, or adds to it and removes from it.
func editList(list []string, replace bool, values, added, removed []string) []string {
	if replace {
		return splitValues(values)
	}
	list = slices.Clone(list)
	for _, one := range splitValues(added) {
		if !slices.Contains(list, one) {
			list = append(list, one)
		}
	}
	unwanted := splitValues(removed)
	return slices.DeleteFunc(list, func(one string) bool { return slices.Contains(unwanted, one) })
}

// formatLifetime formats the maximum lifetime of tokens.
func formatLifetime(d *durationpb.Duration) string {
	if d == nil {
		return "the issuer's"
	}
	return d.AsDuration().String()
}

// ownSecret is a secret that the administrator chose.
type ownSecret struct {
	file  string
	value string
}

func (s *ownSecret) declare(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.file, "secret-file", "", "`file` with a secret of your own choice, or - for standard input; default: the issuer generates one, which is better")
}

// read reads the secret. No error quotes it.
func (s *ownSecret) read(cmd *cobra.Command) (err error) {
	switch s.file {
	case "":
		return nil
	case "-":
		var content []byte
		content, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), oauth.MaxSecret+3)) // longer input is too long anyway
		s.value = strings.TrimRight(string(content), "\r\n")
	default:
		s.value, err = remote.ReadSecret(s.file)
	}
	switch {
	case err != nil:
		return cli.SettingError("secret-file", err)
	case s.value == "":
		return cli.SettingError("secret-file", errors.New("is empty"))
	case len(s.value) > oauth.MaxSecret:
		return cli.SettingError("secret-file", fmt.Errorf("has more than %d bytes", oauth.MaxSecret))
	}
	return nil
}
