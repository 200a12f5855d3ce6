package migrate

import (
	"maps"
	"slices"
	"strings"
)

// keycloakBuiltIn are the client scopes that Keycloak makes for each realm and that are about users: the scopes of OpenID
// Connect Core §5.4 and §11, and Keycloak's own.
var keycloakBuiltIn = []string{
	"profile", "email", "address", "phone", "offline_access", "microprofile-jwt", "organization",
	"roles", "web-origins", "acr", "basic", "service_account",
}

// readScopes reads the client scopes of the realm.
func (k *keycloakImport) readScopes() error {
	column := k.realm.take("clientScopes")
	if column.empty() {
		return nil
	}
	records, err := column.records()
	if err != nil {
		return err
	}
	list, err := rows(records, "name")
	if err != nil {
		return err
	}
	for _, r := range list {
		protocol, err := r.take("protocol").text()
		if err != nil {
			return err
		}
		if protocol != "" && protocol != keycloakProtocol {
			continue
		}
		s := &keycloakScope{row: r, clients: make(map[string]bool)}
		attributes, err := r.take("attributes").optional()
		if err != nil {
			return err
		}
		if s.inToken, err = attributes.take("include.in.token.scope").booleanText(true); err != nil {
			return err
		}
		if s.audiences, err = k.audiences(rankScope, r.id, r.take("protocolMappers").value); err != nil {
			return err
		}
		k.scopes[r.id] = s
	}
	return nil
}

// audiences returns the audiences that the mappers of a client or a scope add to access tokens. It reports the mappers that
// add another claim.
func (k *keycloakImport) audiences(rank int, id string, mappers value) (uris []string, err error) {
	if mappers.empty() {
		return nil, nil
	}
	records, err := mappers.records()
	if err != nil {
		return nil, err
	}
	var others []string
	for _, mapper := range records {
		audience, other, err := readMapper(mapper)
		switch {
		case err != nil:
			return nil, err
		case other != "":
			others = append(others, shown(other))
		case audience != nil:
			uri, err := k.mapperResource(audience)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(uris, uri) {
				uris = append(uris, uri)
			}
		}
	}
	if builtIn := rank == rankScope && slices.Contains(keycloakBuiltIn, id); len(others) > 0 && !builtIn {
		k.notef(rank, id, "the mappers %s: no counterpart here, because tokens have no further claims", strings.Join(others, ", "))
	}
	return uris, nil
}

// readMapper returns the audience that a mapper adds to access tokens, or the name of a mapper that adds another claim, or
// neither if it adds nothing.
func readMapper(mapper *record) (audience *field, other string, err error) {
	kind, err := mapper.take("protocolMapper").text()
	if err != nil {
		return nil, "", err
	}
	name, err := mapper.take("name").text()
	if err != nil {
		return nil, "", err
	}
	config, err := mapper.take("config").optional()
	if err != nil {
		return nil, "", err
	}
	if inToken, err := config.take("access.token.claim").text(); err != nil || inToken != "true" {
		return nil, "", err // it is for ID tokens, user info or introspection
	}
	audience = config.take("included.client.audience", "included.custom.audience")
	if kind != "oidc-audience-mapper" || audience.empty() {
		return nil, name, nil
	}
	return audience, "", nil
}

// mapperResource returns the resource that an audience is here.
func (k *keycloakImport) mapperResource(audience *field) (string, error) {
	name, err := audience.text()
	if err != nil {
		return "", err
	}
	return k.resource(audience.value, name)
}

// readClientScopes reads the default and the optional scopes of a client, as far as its service account gets them there.
func (k *keycloakImport) readClientScopes(c *keycloakClient) error {
	for _, column := range []string{"defaultClientScopes", "optionalClientScopes"} {
		names, err := c.take(column).list("")
		if err != nil {
			return err
		}
		for _, name := range names {
			s := k.scopes[name]
			if s == nil {
				k.notef(rankClient, c.ID, "%s: %s is left out: the export has no such client scope", column, shown(name))
				continue
			}
			if !k.permits(c, name) {
				continue
			}
			if column == "defaultClientScopes" {
				c.audiences = append(c.audiences, s.audiences...)
				c.defaults = append(c.defaults, name)
			}
			c.scopes = append(c.scopes, name)
		}
	}
	slices.Sort(c.audiences)
	c.audiences = slices.Compact(c.audiences)
	for _, name := range c.scopes {
		for _, uri := range c.audiences {
			k.scopes[name].clients[uri] = true
		}
		if len(c.audiences) == 0 {
			k.scopes[name].clients[""] = true
		}
	}
	return nil
}

// permits reports whether the service account of a client gets a scope there: a scope with roles is for accounts that have
// one of them.
func (k *keycloakImport) permits(c *keycloakClient, scope string) bool {
	roles := k.scopeRoles[scope]
	account := k.accounts[c.ID]
	if len(roles) == 0 || slices.ContainsFunc(roles, account.has) {
		return true
	}
	if !slices.Contains(keycloakBuiltIn, scope) {
		k.notef(rankClient, c.ID, "%s is left out: there it is only for accounts with one of the roles %s, and the export does not show that the service account has one",
			shown(scope), shown(strings.Join(roles, ", ")))
	}
	return false
}

// assignOwners finds the resource that owns each scope: the one audience that it adds to a token, or else the one that the
// tokens of its clients have.
func (k *keycloakImport) assignOwners(clients []*keycloakClient) {
	used := make(map[string]bool)
	for _, c := range clients {
		for _, name := range c.scopes {
			used[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.scopes)) {
		s := k.scopes[name]
		uri, chosen := k.owners[name]
		switch {
		case slices.Contains(keycloakBuiltIn, name) && !chosen:
			if used[name] && s.inToken {
				k.notef(rankScope, name, "left out: it is about users; if it is needed, name its owner with --owner SCOPE=URI")
			}
			continue
		case !s.inToken && !chosen:
			k.notef(rankScope, name, "left out: it is never the scope of a token (include.in.token.scope)")
			continue
		}
		if err := checkScope(name); err != nil {
			k.notef(rankScope, name, "left out: %v", err)
			continue
		}
		if !chosen {
			var err error
			if uri, err = k.owner(s); err != nil {
				k.notef(rankScope, name, "left out: %v", err)
				continue
			}
		}
		k.own(name, uri)
	}
}

// owner returns the resource that a scope belongs to, unless the operator has chosen one.
func (k *keycloakImport) owner(s *keycloakScope) (string, error) {
	candidates := s.audiences
	if len(candidates) == 0 {
		candidates = slices.Sorted(maps.Keys(s.clients))
	}
	switch {
	case len(candidates) > 1:
		return "", errSeveralAudiences
	case len(candidates) == 1 && candidates[0] != "":
		return candidates[0], nil
	case k.fallback != "":
		return k.fallback, nil
	}
	return "", errNoAudience
}

// assignScopes assigns a client the scopes whose owner could be the audience of its tokens.
func (k *keycloakImport) assignScopes(c *keycloakClient) {
	if len(c.GrantTypes) == 0 {
		return
	}
	owners := make(map[string]bool)
	for _, name := range c.scopes {
		owner, ok := k.owned[name]
		if !ok {
			continue // the report has it
		}
		own := k.scopes[name].audiences
		_, named := k.sources[owner]
		if (named || len(own)+len(c.audiences) > 0) && !slices.Contains(own, owner) && !slices.Contains(c.audiences, owner) {
			k.notef(rankClient, c.ID, "%s is left out: it belongs to %s, which is not among the audiences of the client; add it to the file if the client needs it", name, owner)
			continue
		}
		owners[owner] = true
		c.Scopes = append(c.Scopes, name)
		if slices.Contains(c.defaults, name) {
			c.DefaultScopes = append(c.DefaultScopes, name)
		}
	}
	for _, audience := range c.audiences {
		if !owners[audience] {
			k.notef(rankClient, c.ID, "audience %s: it gets no tokens for it here, because none of its scopes belongs to it", audience)
		}
	}
	switch {
	case len(c.Scopes) == 0:
		k.notef(rankClient, c.ID, "it gets no token here, because it has no scope; give it one")
	case len(c.DefaultScopes) == 0:
		k.notef(rankClient, c.ID, "a request without a scope gets all of its scopes here, and none of them there")
	case len(c.DefaultScopes) == len(c.Scopes):
		c.DefaultScopes = nil // the default
	}
}
