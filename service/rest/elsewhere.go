package rest

import (
	"net/http"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

// misplaced maps the last segment of a path, in lower case, at which other servers have an endpoint to the path of that
// endpoint here. Of the token endpoint, for example: /oauth/token (Auth0, UAA), /oauth2/token (Hydra, Cognito, Spring),
// /oauth2/v1/token (Okta), /oauth2/v2.0/token (Entra ID), /realms/{realm}/protocol/openid-connect/token (Keycloak),
// /as/token.oauth2 (PingFederate), /oauth2/access_token (ForgeRock), /oauth/v2/token (Zitadel), /application/o/token/
// (authentik), /dex/token, /oauth2/token.php.
var misplaced = map[string]struct{ what, path string }{
	"token":        {"token endpoint", tokenPath},
	"tokens":       {"token endpoint", tokenPath},
	"token.oauth2": {"token endpoint", tokenPath},
	"token.php":    {"token endpoint", tokenPath},
	"access_token": {"token endpoint", tokenPath},
	"accesstoken":  {"token endpoint", tokenPath},

	"introspect":        {"introspection endpoint", introspectPath},
	"introspection":     {"introspection endpoint", introspectPath},
	"introspect.oauth2": {"introspection endpoint", introspectPath},
	"check_token":       {"introspection endpoint", introspectPath},
	"tokeninfo":         {"introspection endpoint", introspectPath},

	"revoke":              {"revocation endpoint", revokePath},
	"revocation":          {"revocation endpoint", revokePath},
	"revoke_token":        {"revocation endpoint", revokePath},
	"revoke_token.oauth2": {"revocation endpoint", revokePath},

	"jwks":         {"key set", keySetPath},
	"jwks.json":    {"key set", keySetPath},
	"jwks_uri":     {"key set", keySetPath},
	"jwk":          {"key set", keySetPath},
	"certs":        {"key set", keySetPath},
	"keys":         {"key set", keySetPath},
	"openid-keys":  {"key set", keySetPath},
	"signing-keys": {"key set", keySetPath},

	"openid-configuration":       {"metadata document", oauth.WellKnownServer},
	"oauth-authorization-server": {"metadata document", oauth.WellKnownServer},
}

// elsewhere returns a sentence that names the endpoint which other servers have at the path of the request, where this one
// has nothing. It is empty if other servers have none there either. The sentence contains no part of the request.
func (h *handler) elsewhere(r *http.Request) oauth.Text {
	if route(r.URL.EscapedPath()) != "" {
		return ""
	}
	path := strings.ToLower(strings.TrimRight(r.URL.EscapedPath(), "/"))
	found, ok := misplaced[path[strings.LastIndexByte(path, '/')+1:]]
	if !ok {
		return ""
	}
	return oauth.Text("The " + found.what + " is " + h.realm + found.path + ".")
}

// notFound answers a request for a path at which there is nothing.
func (h *handler) notFound(w http.ResponseWriter, r *http.Request) {
	text := oauth.Text("There is nothing at this path.")
	if hint := h.elsewhere(r); hint != "" {
		text += " " + hint
	}
	(&failure{status: http.StatusNotFound, refusal: oauth.Refuse(oauth.InvalidRequest, text)}).write(w, h.realm)
}
