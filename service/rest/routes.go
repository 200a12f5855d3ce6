package rest

import (
	"net/http"
	"regexp"
	"strings"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
)

// The paths of the root, of the endpoints that take forms, of the key set (RFC 7517 §5), and of the authorization
// endpoint.
const (
	frontPath      = "/"
	tokenPath      = "/connect/token"
	introspectPath = "/connect/introspect"
	revokePath     = "/connect/revoke"
	keySetPath     = "/.well-known/jwks.json"
	authorizePath  = "/connect/authorize"
)

// adminPath is the prefix of the paths of the administrative services, keyPath that of the paths of one key.
const (
	adminPath = "/v1/"
	keyPath   = adminPath + "keys/"
)

// routes maps the template of each path of the REST mirror to the methods that it takes, as an Allow header lists them
// (RFC 9110 §10.2.1). The gateway dispatches by proto/gateway.yaml, which no generated code carries in a form that can
// be read at run time; a test holds this table equal to it.
var routes = map[string]string{
	frontPath:             "GET, HEAD", // not in the mapping: it has no call
	tokenPath:             "POST",
	introspectPath:        "POST",
	revokePath:            "POST",
	oauth.WellKnownServer: "GET, HEAD",
	oauth.WellKnownOpenID: "GET, HEAD",
	keySetPath:            "GET, HEAD",
	authorizePath:         "GET, HEAD, POST", // not in the mapping: it has no call

	// Calls by Connect, gRPC-Web and gRPC, whose paths the protocols define. They are not in the mapping.
	grantorv1.TokenService_IssueToken_FullMethodName:         "POST",
	grantorv1.TokenService_IntrospectToken_FullMethodName:    "POST",
	grantorv1.TokenService_IntrospectTokens_FullMethodName:   "POST",
	grantorv1.TokenService_RevokeToken_FullMethodName:        "POST",
	grantorv1.TokenService_RevokeClientTokens_FullMethodName: "POST",
	grantorv1.TokenService_GetServerMetadata_FullMethodName:  "POST",
	grantorv1.TokenService_GetKeySet_FullMethodName:          "POST",

	"/v1/clients":                                 "GET, POST",
	"/v1/clients/{client_id}":                     "DELETE, GET, PATCH",
	"/v1/clients/{client_id}/tokens:revoke":       "POST",
	"/v1/clients/{client_id}/secrets":             "POST",
	"/v1/clients/{client_id}/secrets:rotate":      "POST",
	"/v1/clients/{client_id}/secrets/{secret_id}": "DELETE, PATCH",
	"/v1/resources":                               "GET, POST",
	"/v1/resources/{resource}":                    "DELETE, GET, PATCH",
	"/v1/trusted-issuers":                         "GET, POST",
	"/v1/trusted-issuers/{id}":                    "DELETE, GET, PATCH",
	"/v1/workloads":                               "GET, POST",
	"/v1/workloads/{client_id}":                   "DELETE, GET, PATCH",
	"/v1/keys":                                    "GET",
	"/v1/keys:rotate":                             "POST",
	"/v1/keys/{kid}:retire":                       "POST",
	"/v1/keys/{kid}:compromise":                   "POST",
}

// variable matches the variable of a template.
var variable = regexp.MustCompile(`\{[^}]*\}`)

// templates maps the shape of each path, which is its template with * for every variable, to its template.
var templates = func() map[string]string {
	shapes := make(map[string]string, len(routes))
	for template := range routes {
		shapes[variable.ReplaceAllLiteralString(template, "*")] = template
	}
	return shapes
}()

// Route returns a function that returns the template of the path of a request to the issuer, whatever its method, such
// as "/v1/clients/{client_id}". It returns the empty string if there is nothing at the path.
func Route(issuer oauth.Issuer) func(r *http.Request) string {
	base := issuer.Path()
	return func(r *http.Request) string { return route(below(base, r.URL.EscapedPath())) }
}

// below returns the part of path that is below base, the issuer's own path. The metadata are below it (OpenID Connect
// Discovery §4) and before it (RFC 8414 §3.1). A path that is not below base is returned as it is, because a proxy may
// have removed base.
func below(base, path string) string {
	if base == "" {
		return path
	}
	for _, document := range []string{oauth.WellKnownServer, oauth.WellKnownOpenID} {
		if path == document+base {
			return document
		}
	}
	rest, ok := strings.CutPrefix(path, base)
	if !ok || (rest != "" && rest[0] != '/') {
		return path
	}
	if rest == "" {
		rest = "/"
	}
	if known := route(rest); (known == "" || known == frontPath) && route(path) != "" {
		return path // the issuer's path is the beginning or the whole of one of ours, such as /v1, and a proxy removed it
	}
	return rest
}

// route returns the template of a path below the issuer's.
func route(path string) string {
	if !strings.HasPrefix(path, adminPath) {
		return templates[path]
	}
	segments := strings.SplitN(path, "/", 7) // one more than the longest template has
	for i := 3; i < len(segments); i += 2 {
		verb := ""
		// The id of a key contains no colon. That of a client may, and no path ends in {client_id}:verb.
		if colon := strings.LastIndexByte(segments[i], ':'); colon >= 0 && strings.HasPrefix(path, keyPath) {
			verb = segments[i][colon:]
		}
		segments[i] = "*" + verb
	}
	return templates[strings.Join(segments, "/")]
}
