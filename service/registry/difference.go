package registry

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
)

// FieldChange is a field that a change gives another value, by its name on the wire. From and To are the values as an
// operator reads them: a list has blanks between, none is empty. It never has a secret or a hash.
type FieldChange struct{ Field, From, To string }

// differences gives the fields in which next is another. A secret is its id, and when it ends.
func (c *Client) differences(next *Client) []FieldChange {
	return differing(
		FieldChange{"client_name", c.Name, next.Name},
		FieldChange{"auth_methods", strings.Join(c.AuthMethods, " "), strings.Join(next.AuthMethods, " ")},
		FieldChange{"grant_types", strings.Join(c.GrantTypes, " "), strings.Join(next.GrantTypes, " ")},
		FieldChange{"scopes", c.Scopes.String(), next.Scopes.String()},
		FieldChange{"default_scopes", c.DefaultScopes.String(), next.DefaultScopes.String()},
		FieldChange{"resources", resourcesText(c.Resources), resourcesText(next.Resources)},
		FieldChange{"access_token_lifetime", lifetimeText(c.AccessTokenLifetime), lifetimeText(next.AccessTokenLifetime)},
		FieldChange{"allowed_networks", networksText(c.AllowedNetworks), networksText(next.AllowedNetworks)},
		FieldChange{"disabled", flagText(c.Disabled), flagText(next.Disabled)},
		FieldChange{"client_secret", secretsText(c.Secrets), secretsText(next.Secrets)},
	)
}

// differences gives the fields in which next is another.
func (r *Resource) differences(next *Resource) []FieldChange {
	return differing(
		FieldChange{"name", r.Name, next.Name},
		FieldChange{"scopes", r.Scopes.String(), next.Scopes.String()},
		FieldChange{"access_token_lifetime", lifetimeText(r.AccessTokenLifetime), lifetimeText(next.AccessTokenLifetime)},
		FieldChange{"signing_alg", string(r.SigningAlg), string(next.SigningAlg)},
	)
}

func differing(fields ...FieldChange) []FieldChange {
	return slices.DeleteFunc(fields, func(d FieldChange) bool { return d.From == d.To })
}

func resourcesText(resources []oauth.Resource) string {
	texts := make([]string, len(resources))
	for i, r := range resources {
		texts[i] = r.String()
	}
	return strings.Join(texts, " ")
}

func networksText(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return strings.Join(texts, " ")
}

func lifetimeText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func flagText(set bool) string {
	if set {
		return "true"
	}
	return ""
}

func secretsText(secrets []clientsecret.Secret) string {
	texts := make([]string, len(secrets))
	for i := range secrets {
		texts[i] = secrets[i].ID
		if end := secrets[i].ExpiresAt; !end.IsZero() {
			texts[i] += fmt.Sprintf(" (until %s)", end.UTC().Format(time.RFC3339))
		}
	}
	return strings.Join(texts, ", ")
}
