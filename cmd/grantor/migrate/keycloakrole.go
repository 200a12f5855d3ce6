package migrate

import "slices"

// serviceAccount is the user that Keycloak has for a client. A nil account is one that the export does not have.
type serviceAccount struct {
	off bool
	// roles are those of the realm, and "client: role" of a client.
	roles []string
}

func (a *serviceAccount) disabled() bool { return a != nil && a.off }

func (a *serviceAccount) has(role string) bool { return a != nil && slices.Contains(a.roles, role) }

// names returns the roles in printable form.
func (a *serviceAccount) names() (names []string) {
	if a == nil {
		return nil
	}
	for _, role := range a.roles {
		names = append(names, shown(role))
	}
	slices.Sort(names)
	return names
}

// readAccounts reads the service accounts among the users.
func (k *keycloakImport) readAccounts() error {
	everyone := ""
	if role := k.realm.byName["defaultrole"]; role != nil && role.is('{') {
		r, err := role.record()
		if err != nil {
			return err
		}
		if everyone, err = r.take("name").text(); err != nil {
			return err
		}
	}
	users := k.realm.byName["users"]
	if users == nil || !users.is('[') {
		return nil
	}
	return users.parts(func(part value) error {
		user, err := part.record()
		if err != nil {
			return err
		}
		client, err := user.take("serviceAccountClientId").text()
		if err != nil || client == "" {
			return err
		}
		enabled, err := user.take("enabled").boolean(true)
		if err != nil {
			return err
		}
		a := &serviceAccount{off: !enabled}
		if a.roles, err = user.take("realmRoles").list(""); err != nil {
			return err
		}
		a.roles = slices.DeleteFunc(a.roles, func(role string) bool { return role == everyone })
		err = eachClient(user.take("clientRoles").value, func(client string, roles value) error {
			names, err := roles.list("")
			for _, name := range names {
				a.roles = append(a.roles, clientRole(client, name))
			}
			return err
		})
		k.accounts[client] = a
		return err
	})
}

// clientRole returns the name of a role of a client.
func clientRole(client, role string) string { return client + ": " + role }

// eachClient calls fn for each member of an object whose names are client IDs, if there is one.
func eachClient(v value, fn func(client string, of value) error) error {
	if !v.is('{') {
		return nil
	}
	return v.parts(func(part value) error { return fn(part.name, part) })
}

// readScopeRoles reads which roles an account must have for a client scope.
func (k *keycloakImport) readScopeRoles() error {
	read := func(list value, name func(role string) string) error {
		if !list.is('[') {
			return nil
		}
		return list.parts(func(part value) error {
			mapping, err := part.record()
			if err != nil {
				return err
			}
			scope, err := mapping.take("clientScope").text()
			if err != nil || scope == "" { // the roles of a client are about the roles in its tokens
				return err
			}
			roles, err := mapping.take("roles").list("")
			for _, role := range roles {
				k.scopeRoles[scope] = append(k.scopeRoles[scope], name(role))
			}
			return err
		})
	}
	if f := k.realm.take("scopeMappings"); !f.empty() {
		if err := read(f.value, func(role string) string { return role }); err != nil {
			return err
		}
	}
	f := k.realm.take("clientScopeMappings")
	if f.empty() {
		return nil
	}
	return eachClient(f.value, func(client string, list value) error {
		return read(list, func(role string) string { return clientRole(client, role) })
	})
}
