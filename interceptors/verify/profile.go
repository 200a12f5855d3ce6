package verify

import "github.com/grantorhq/grantor/service/token"

// Profile says how the access tokens of an issuer differ from RFC 9068: which "typ" they have, which claims contain the
// client's id and the scopes, and which claims may be missing. Pass it to [Accept].
type Profile = token.Profile

// Profiles of the default access tokens of well-known issuers, as their documentation describes them. Each accepts the
// tokens of RFC 9068 of the same issuer as well, if it has a setting for them. Roles are not read unless they are asked
// for by [token.Profile.WithRoles].
//
// Of tokens whose type is JWT or absent, the audience is what keeps the issuer's ID tokens out, beside the claims that
// [token.Profile] names. Give the API an audience of its own: not the id of a client.
var (
	// Keycloak accepts access tokens of Keycloak: the client is "azp", and a claim "typ" says what a token is for. A
	// token has an audience only if a client scope of the client has an audience mapper. Realm roles are
	// WithRoles("realm_access", "roles").
	Keycloak = Profile{
		Types: []string{"JWT"}, Use: "typ", UseValue: "Bearer", ClientID: []string{"azp", "client_id"},
		Scopes: []string{"scope"}, OptionalSubject: true,
	}
	// EntraID accepts access tokens of Microsoft Entra ID, versions 1.0 and 2.0: the client is "azp" or "appid", the
	// delegated permissions are in "scp", and there is no "jti". The permissions of a client that acts for itself are
	// roles: WithRoles("roles").
	EntraID = Profile{
		Types: []string{"JWT"}, ClientID: []string{"azp", "appid"}, Scopes: []string{"scp"}, OptionalID: true,
	}
	// Auth0 accepts access tokens of both profiles of Auth0: in its own, the client is "azp", and there is no "jti". The
	// permissions of role-based access control are WithRoles("permissions").
	Auth0 = Profile{
		Types: []string{"JWT"}, ClientID: []string{"azp", "client_id"}, Scopes: []string{"scope"}, OptionalID: true,
	}
	// Okta accepts access tokens of a custom authorization server of Okta: no "typ", the client is "cid", and the scopes
	// are the list "scp".
	Okta = Profile{
		Types: []string{"", "JWT"}, ClientID: []string{"cid"}, Scopes: []string{"scp"},
	}
	// Hydra accepts JWT access tokens of Ory Hydra with each of its settings of strategies.jwt.scope_claim: the scopes
	// are the list "scp", the string "scope", or both.
	Hydra = Profile{
		Types: []string{"JWT"}, ClientID: []string{"client_id"}, Scopes: []string{"scp", "scope"},
	}
	// SpringAuthorizationServer accepts access tokens of Spring Authorization Server: no "typ", the scopes are the list
	// "scope", and the client is the subject. In the token of a user the subject is the user, whose name could be a
	// client's id: if the issuer has users, make it add "client_id" by an OAuth2TokenCustomizer, which is then preferred.
	SpringAuthorizationServer = Profile{
		Types: []string{"", "JWT"}, ClientID: []string{"client_id", "sub"}, Scopes: []string{"scope"}, OptionalID: true,
		Forbidden: []string{"azp", "auth_time", "sid"},
	}
	// IdentityServer accepts access tokens of Duende IdentityServer: the type is at+jwt, the scopes are the list "scope",
	// and a client that acts for itself has no "sub".
	IdentityServer = Profile{
		Scopes: []string{"scope"}, OptionalID: true, OptionalSubject: true,
	}
)
