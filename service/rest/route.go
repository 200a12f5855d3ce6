package rest

import (
	"net/http"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

// routes has the shape of a path, with * for an id, → its route, as the mapping of the REST mirror has it.
var routes = map[string]string{ //nolint:gosec // paths, no credentials
	tokenPath: tokenPath, introspectPath: introspectPath, revokePath: revokePath,
	oauth.WellKnownServer: oauth.WellKnownServer, oauth.WellKnownOpenID: oauth.WellKnownOpenID,
	"/.well-known/jwks.json": "/.well-known/jwks.json",

	"/v1/clients":                  "/v1/clients",
	"/v1/clients/*":                "/v1/clients/{client_id}",
	"/v1/clients/*/tokens:revoke":  "/v1/clients/{client_id}/tokens:revoke",
	"/v1/clients/*/secrets":        "/v1/clients/{client_id}/secrets",
	"/v1/clients/*/secrets:rotate": "/v1/clients/{client_id}/secrets:rotate",
	"/v1/clients/*/secrets/*":      "/v1/clients/{client_id}/secrets/{secret_id}",
	"/v1/resources":                "/v1/resources",
	"/v1/resources/*":              "/v1/resources/{resource}",
	"/v1/keys":                     "/v1/keys",
	"/v1/keys:rotate":              "/v1/keys:rotate",
	"/v1/keys/*:retire":            "/v1/keys/{kid}:retire",
	"/v1/keys/*:compromise":        "/v1/keys/{kid}:compromise",
}

// Route gives the route that a path is of, whatever the method; empty where there is nothing at the path.
func Route(r *http.Request) string {
	path := r.URL.EscapedPath()
	if !strings.HasPrefix(path, adminPath) {
		return routes[path]
	}
	segments := strings.SplitN(path, "/", 7) // no path has as many
	for i := 3; i < len(segments); i += 2 {
		verb := ""
		if colon := strings.LastIndexByte(segments[i], ':'); colon >= 0 && segments[2] == "keys" {
			verb = segments[i][colon:]
		}
		segments[i] = "*" + verb
	}
	return routes[strings.Join(segments, "/")]
}
