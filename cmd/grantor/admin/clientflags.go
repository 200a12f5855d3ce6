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

// clientChange is what flags say about the fields of a client.
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

// declare adds the flags. Those that add to a list and take from it are for a client that is there.
func (c *clientChange) declare(cmd *cobra.Command, update bool) {
	c.flags, c.update = cmd.Flags(), update
	c.flags.StringVar(&c.name, "name", "", "`name` for people")
	c.flags.StringArrayVar(&c.scopes, "scope", nil, "`scope` that it may have, or several with spaces between; can be repeated")
	c.flags.StringArrayVar(&c.defaultScopes, "default-scope", nil, "`scope` that it gets when it asks for none, as --scope; default: all of its scopes")
	c.flags.StringArrayVar(&c.servedResource, "resource", nil, "`URI` of a resource that it serves, or several with spaces between; can be repeated")
	c.flags.StringArrayVar(&c.grantTypes, "grant-type", nil, "`grant` that it may use; can be repeated")
	c.flags.StringArrayVar(&c.authMethods, "auth-method", nil, "`way` in which it may prove who it is; can be repeated; default: all")
	c.flags.StringArrayVar(&c.networks, "allowed-network", nil, "`network` that it may come from, such as 10.0.0.0/8, or several with spaces between; can be repeated; default: any")
	c.flags.DurationVar(&c.lifetime, "access-token-lifetime", 0, "longest `life` of its tokens; 0 for no bound of its own")
	cli.CompleteFlag(cmd, "grant-type", oauth.GrantClientCredentials)
	cli.CompleteFlag(cmd, "auth-method", oauth.ClientSecretBasic, oauth.ClientSecretPost)
	if update {
		declareScopeEdits(cmd, &c.added, &c.removed)
	}
}

// declareScopeEdits adds the flags that change a list of scopes.
func declareScopeEdits(cmd *cobra.Command, added, removed *[]string) {
	cmd.Flags().StringArrayVar(added, "add-scope", nil, "`scope` that is added to those that there are, as --scope")
	cmd.Flags().StringArrayVar(removed, "remove-scope", nil, "`scope` that is taken from those that there are, as --scope")
}

// exclusive refuses two flags that do not go together.
func exclusive(flags *pflag.FlagSet, one, other string) error {
	if flags.Changed(one) && flags.Changed(other) {
		return cli.UsageError(fmt.Errorf("--%s, --%s: give one of them", one, other))
	}
	return nil
}

// clientFields has flag → field of the message.
var clientFields = map[string]string{
	"name": "client_name", "scope": "scopes", "add-scope": "scopes", "remove-scope": "scopes", "default-scope": "default_scopes",
	"resource": "resources", "grant-type": "grant_types", "auth-method": "auth_methods",
	"access-token-lifetime": "access_token_lifetime", "allowed-network": "allowed_networks",
}

// checkUpdate refuses a change of nothing, or of the scopes in two ways.
func checkUpdate(flags *pflag.FlagSet, fields map[string]string) error {
	if len(changedFields(flags, fields)) == 0 {
		return cli.UsageError(errors.New("there is nothing to change: give the new value of a field by its flag"))
	}
	return cmp.Or(exclusive(flags, "scope", "add-scope"), exclusive(flags, "scope", "remove-scope"))
}

// changedFields gives the fields that flags on the command line name.
func changedFields(flags *pflag.FlagSet, fields map[string]string) []string {
	var changed []string
	flags.Visit(func(flag *pflag.Flag) {
		if field, ok := fields[flag.Name]; ok && !slices.Contains(changed, field) {
			changed = append(changed, field)
		}
	})
	return changed
}

// apply makes the change and names the fields that it touches.
func (c *clientChange) apply(client *grantorv1.Client) []string {
	fields := changedFields(c.flags, clientFields)
	for _, field := range fields {
		switch field {
		case "client_name":
			client.ClientName = c.name
		case "scopes":
			client.Scopes = editList(client.GetScopes(), c.flags.Changed("scope"), c.scopes, c.added, c.removed)
		case "default_scopes":
			client.DefaultScopes = listOf(c.defaultScopes)
		case "resources":
			client.Resources = listOf(c.servedResource)
		case "grant_types":
			client.GrantTypes = listOf(c.grantTypes)
		case "auth_methods":
			client.AuthMethods = listOf(c.authMethods)
		case "allowed_networks":
			client.AllowedNetworks = listOf(c.networks)
		case "access_token_lifetime":
			client.AccessTokenLifetime = remote.Lifetime(c.lifetime)
		}
	}
	// What else would the scopes of a new client be for.
	if !c.update && len(client.GetScopes()) > 0 && !c.flags.Changed("grant-type") {
		client.GrantTypes = []string{oauth.GrantClientCredentials}
	}
	return fields
}

// listOf reads a flag that can be repeated and have several values with spaces between, which no value has.
func listOf(values []string) []string { return strings.Fields(strings.Join(values, " ")) }

// editList gives a list anew, or adds to what there is and takes from it.
func editList(list []string, anew bool, values, added, removed []string) []string {
	if anew {
		return listOf(values)
	}
	list = slices.Clone(list)
	for _, one := range listOf(added) {
		if !slices.Contains(list, one) {
			list = append(list, one)
		}
	}
	gone := listOf(removed)
	return slices.DeleteFunc(list, func(one string) bool { return slices.Contains(gone, one) })
}

// lifetimeOf words a length of time.
func lifetimeOf(d *durationpb.Duration) string {
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
	cmd.Flags().StringVar(&s.file, "secret-file", "", "`file` with a secret of your own choice, or - for standard input; default: the issuer makes one, which is better")
}

// read reads the secret. No error quotes it.
func (s *ownSecret) read(cmd *cobra.Command) (err error) {
	switch s.file {
	case "":
		return nil
	case "-":
		var content []byte
		content, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), oauth.MaxSecret+3)) // what is longer still is too long
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
