// Package grant decides which token an authenticated client receives. Each grant type has its own file. The package
// implements RFC 6749 §4.4 (client credentials) and RFC 8707 (resource indicators).
//
// Client credentials is the only grant type, and other packages name it. A further one needs, besides its file here:
//
//   - its name in package oauth, and as one that a client may have in the field grant_types of package registry;
//   - package rpc to accept it, to pass its parameters on, and to list it in the metadata;
//   - package issuer to choose among the grants: its Config has one [ClientCredentials], and the subject of a token is
//     the client;
//   - its parameters, if it has any, in the message IssueTokenRequest and in the form that package rest parses.
package grant

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/token"
)

// Request is a client's request for a token. An empty field stands for an absent parameter.
type Request struct {
	// Scope is a list of scopes separated by spaces (RFC 6749 §3.3).
	Scope string
	// Resources are the values of the "resource" parameters (RFC 8707 §2).
	Resources []string
	// Proven are the keys that the sender of the request has proven to have: that of a client certificate, and one that signs
	// DPoP proofs.
	Proven token.Confirmation
}

// Decision describes the token that the client receives.
type Decision struct {
	Scopes   oauth.Scopes
	Audience []string
	Lifetime time.Duration
	// Algorithm is the algorithm that the token is signed with.
	Algorithm jwks.Algorithm
	// Confirmation is the key that the token is bound to.
	Confirmation token.Confirmation
}

// ClientCredentials is the client credentials grant, for a client that acts on its own behalf (RFC 6749 §4.4).
type ClientCredentials struct {
	// Lifetime is the lifetime of a token if neither the client nor a resource sets one.
	Lifetime time.Duration
	// Algorithm signs the token if no resource chooses another one.
	Algorithm jwks.Algorithm
}

// Decide grants the whole request or nothing. RFC 6749 §3.3 allows a grant of fewer scopes, but a service that starts
// with fewer rights than it needs fails later and elsewhere.
func (g *ClientCredentials) Decide(client *registry.Client, resources *registry.Resources, r Request) (*Decision, error) {
	if !slices.Contains(client.GrantTypes, oauth.GrantClientCredentials) {
		return nil, oauth.Refuse(oauth.UnauthorizedClient, "The client may not use the grant type client_credentials.")
	}
	scopes, err := grantScopes(client, resources, r.Scope)
	if err != nil {
		return nil, err
	}
	targets, err := parseTargets(r.Resources)
	if err != nil {
		return nil, err
	}
	if len(targets) > 0 {
		if scopes, err = narrow(resources, scopes, targets); err != nil {
			return nil, err
		}
	}
	owners := resources.Owners(scopes)
	if len(owners) == 0 {
		return nil, oauth.Refuse(oauth.InvalidTarget, "The token would be for no resource; ask for a scope.")
	}
	decision, err := g.describe(client, scopes, owners)
	if err != nil {
		return nil, err
	}
	decision.Confirmation, err = bind(client, owners, r.Proven)
	return decision, err
}

// grantScopes returns the requested scopes, or the default ones of the client if none are requested.
func grantScopes(client *registry.Client, resources *registry.Resources, requested string) (oauth.Scopes, error) {
	scopes, err := oauth.ParseScopes(requested)
	if err != nil {
		return nil, nameScope(requested, err)
	}
	if len(scopes) == 0 {
		return client.ScopesByDefault(resources), nil
	}
	for _, scope := range scopes {
		if _, ok := resources.Owner(scope); !ok || !client.Scopes.Has(scope) {
			// The error is the same for both, since not all scopes are public.
			return nil, oauth.RefuseScope(scope.String(), "does not exist or is not granted to the client.")
		}
	}
	return scopes, nil
}

// nameScope returns err, which is that of a list of scopes, with the name of the first one that is not a scope.
func nameScope(requested string, err error) error {
	if oauth.From(err).Code != oauth.InvalidScope {
		return err
	}
	for name := range strings.SplitSeq(requested, " ") {
		if name == "" {
			continue
		}
		if _, invalid := oauth.ParseScope(name); invalid != nil {
			refusal := oauth.RefuseScope(name, "has a character outside RFC 6749 section 3.3; scopes are separated by spaces.")
			refusal.Cause = fmt.Errorf("the scope %.128q has a character outside RFC 6749 §3.3", name)
			return refusal
		}
	}
	return err
}

// parseTargets parses the requested resources and removes duplicates.
func parseTargets(raw []string) ([]oauth.Resource, error) {
	if len(raw) > oauth.MaxResources {
		return nil, oauth.Refuse(oauth.InvalidRequest, "resource is sent more than 16 times.")
	}
	var targets []oauth.Resource
	for _, r := range raw {
		if r == "" {
			continue
		}
		if len(r) > oauth.MaxResource {
			return nil, oauth.Refuse(oauth.InvalidRequest, "resource has more than 512 characters.")
		}
		target, err := oauth.ParseResource(r)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(targets, target) {
			targets = append(targets, target)
		}
	}
	return targets, nil
}

// narrow returns those of the scopes that the targets own. Each target must own at least one, because a token is never
// issued for a resource in which it allows nothing.
func narrow(resources *registry.Resources, scopes oauth.Scopes, targets []oauth.Resource) (oauth.Scopes, error) {
	unused := slices.Clone(targets)
	kept := slices.DeleteFunc(slices.Clone(scopes), func(s oauth.Scope) bool {
		owner, _ := resources.Owner(s)
		if i := slices.Index(unused, owner.ID); i >= 0 {
			unused = slices.Delete(unused, i, i+1)
		}
		return !slices.Contains(targets, owner.ID)
	})
	if len(unused) > 0 {
		// The error is the same for a resource that does not exist and for one that the client has no scope of.
		return nil, oauth.Refuse(oauth.InvalidTarget, "A requested resource does not exist, or none of the scopes is for it.")
	}
	return kept, nil
}

// describe returns the token for the owners of its scopes. Its lifetime is the shortest of those that the client and the
// resources set; the resources must agree on its algorithm.
func (g *ClientCredentials) describe(client *registry.Client, scopes oauth.Scopes, owners []*registry.Resource) (*Decision, error) {
	d := &Decision{Scopes: scopes, Lifetime: client.AccessTokenLifetime, Audience: make([]string, len(owners))}
	for i, owner := range owners {
		d.Audience[i] = owner.ID.String()
		if len(owners) > 1 && d.Audience[i] == registry.AdminResource {
			// Another resource that receives the token could administer the issuer with it.
			return nil, oauth.Refuse(oauth.InvalidTarget, "A token for administration is for nothing else; ask with that resource alone.")
		}
		if bound := owner.AccessTokenLifetime; bound > 0 && (d.Lifetime == 0 || bound < d.Lifetime) {
			d.Lifetime = bound
		}
		if owner.SigningAlg == "" || owner.SigningAlg == d.Algorithm {
			continue
		}
		if d.Algorithm != "" {
			return nil, oauth.Refuse(oauth.InvalidTarget, "The resources want different signatures; ask for one at a time.")
		}
		d.Algorithm = owner.SigningAlg
	}
	if d.Lifetime == 0 {
		d.Lifetime = g.Lifetime
	}
	if d.Algorithm == "" {
		d.Algorithm = g.Algorithm
	}
	return d, nil
}
