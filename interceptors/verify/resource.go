package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// wellKnownResource is where a server publishes its metadata; the path of the resource follows (RFC 9728 §3.1).
const wellKnownResource = "/.well-known/oauth-protected-resource"

// ProtectedResource is what a server publishes about itself, besides its issuer (RFC 9728 §2).
type ProtectedResource struct {
	// Identifier is the URL at which clients reach this server, and for which they request tokens, such as
	// "https://orders.internal/mcp". It must be one of the identifiers of [Audience]; the default is the only one. Plain http
	// is accepted on loopback, or with [AllowInsecurePlaintextToRemoteHosts].
	Identifier string
	// Scopes are those that a client may request for the resource. By default the document lists none.
	Scopes []string
	// Name is a name for people, and Documentation the URL of a page for developers. Both may be empty.
	Name, Documentation string
	// ClientCertificates says that the server asks its clients for certificates, so that it accepts tokens which are bound to
	// them (RFC 8705 §3). With [RequireBoundTokens] and without certificates, the document demands tokens that are bound to a
	// key of DPoP proofs: the server can then accept no others.
	ClientCertificates bool
}

// DescribeResource sets the protected resource metadata of this server (RFC 9728), by which clients that know its URL alone
// find its issuer and its scopes. [MetadataHandler] serves them. The challenges of [HTTP] name their URL and the scopes of the
// rule, as with [ResourceMetadata].
func DescribeResource(r ProtectedResource) Option {
	r.Scopes = slices.Clone(r.Scopes)
	return func(c *config) { c.resource = &r }
}

// MetadataHandler returns the handler of the document of [DescribeResource], and the pattern under which it belongs on an
// [http.ServeMux]:
//
//	mux.Handle(verify.MetadataHandler(verifier))
//	mux.Handle("/mcp", verify.HTTP(verifier, rule)(server))
//
// The pattern is the well-known path followed by that of the resource (RFC 9728 §3.1), such as
// "/.well-known/oauth-protected-resource/mcp". The document is public: it needs no token, and pages of any origin may read it.
// The handler responds 404 if the verifier has no DescribeResource.
func MetadataHandler(verifier *Verifier) (pattern string, handler http.Handler) {
	if verifier == nil || verifier.resource == nil {
		return wellKnownResource, http.NotFoundHandler()
	}
	return verifier.resource.pattern, verifier.resource
}

// resource is a described resource. It is the handler of its document.
type resource struct {
	described ProtectedResource
	pattern   string
	document  []byte
}

// newResource returns what [DescribeResource] describes, without its document, and sets the URL that challenges name. It
// returns nil without the option.
func (c *config) newResource() (*resource, error) {
	if c.resource == nil {
		return nil, c.checkResourceMetadata()
	}
	described := *c.resource
	switch {
	case described.Identifier == "" && len(c.audience) == 1:
		described.Identifier = c.audience[0]
	case described.Identifier == "":
		return nil, errors.New("verify: DescribeResource: the identifier is missing, and Audience has several")
	case !slices.Contains(c.audience, described.Identifier):
		return nil, fmt.Errorf("verify: DescribeResource: Audience lacks the identifier %.200q", oauth.RedactURL(described.Identifier))
	}
	u, err := c.resourceURL(described.Identifier)
	if err != nil {
		return nil, fmt.Errorf("verify: DescribeResource: %.200q %w", oauth.RedactURL(described.Identifier), err)
	}
	for _, scope := range described.Scopes {
		if _, err := oauth.ParseScope(scope); err != nil {
			return nil, fmt.Errorf("verify: DescribeResource: the scope %.100q: %w", scope, err)
		}
	}
	if page, err := url.Parse(described.Documentation); described.Documentation != "" && (err != nil || !isWeb(page)) {
		return nil, fmt.Errorf("verify: DescribeResource: the documentation %.200q is not the URL of a page", oauth.RedactURL(described.Documentation))
	}
	suffix := strings.TrimPrefix(u.EscapedPath(), "/")
	if suffix != "" {
		suffix = "/" + suffix
	}
	location := u.Scheme + "://" + u.Host + wellKnownResource + suffix
	if u.RawQuery != "" {
		location += "?" + u.RawQuery
	}
	if c.resourceMetadata != nil && *c.resourceMetadata != location {
		return nil, fmt.Errorf("verify: ResourceMetadata is %.200q, but DescribeResource publishes at %.200q",
			oauth.RedactURL(*c.resourceMetadata), oauth.RedactURL(location))
	}
	c.resourceMetadata = &location
	if strings.HasSuffix(suffix, "/") {
		suffix += "{$}" // without it, the pattern would be that of all paths below
	}
	return &resource{described: described, pattern: wellKnownResource + suffix}, c.checkResourceMetadata()
}

// resourceURL parses the identifier of a resource that publishes its metadata. The error completes a sentence.
func (c *config) resourceURL(identifier string) (*url.URL, error) {
	u, err := url.Parse(identifier)
	_, malformed := oauth.ParseResource(identifier)
	switch {
	case err != nil || malformed != nil || !isWeb(u) || u.User != nil:
		return nil, errors.New("is not an https URL without userinfo and fragment")
	case u.Scheme == "http" && !c.plaintext && !oauth.Loopback(u.Hostname()):
		return nil, errors.New("is plain http beyond loopback")
	case u.Path != "" && u.Path != "/" && path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/"):
		return nil, errors.New("has an empty segment or a dot segment in its path, which an http.ServeMux never matches")
	}
	return u, nil
}

// isWeb reports whether u is an absolute URL of a web server.
func isWeb(u *url.URL) bool {
	return (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

// publish returns the resource with its document, for a server that accepts the tokens of verifiers, each that of one issuer.
// An issuer whose tokens for the resource would be refused is not listed.
func (r *resource) publish(verifiers ...*Verifier) (*resource, error) {
	if r == nil {
		return nil, nil
	}
	document := struct {
		Resource      string   `json:"resource"`
		Issuers       []string `json:"authorization_servers"`
		Scopes        []string `json:"scopes_supported,omitempty"`
		BearerMethods []string `json:"bearer_methods_supported"`
		Algorithms    []string `json:"dpop_signing_alg_values_supported"`
		RequiresDPoP  bool     `json:"dpop_bound_access_tokens_required,omitempty"`
		Certificates  bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
		Name          string   `json:"resource_name,omitempty"`
		Documentation string   `json:"resource_documentation,omitempty"`
	}{
		Resource: r.described.Identifier, Scopes: r.described.Scopes, BearerMethods: []string{"header"},
		Algorithms: dpop.Algorithms(), RequiresDPoP: !r.described.ClientCertificates, Certificates: r.described.ClientCertificates,
		Name: r.described.Name, Documentation: r.described.Documentation,
	}
	for _, v := range verifiers {
		if slices.Contains(v.streams.audience, r.described.Identifier) {
			document.Issuers = append(document.Issuers, v.tokens.Issuer())
			document.RequiresDPoP = document.RequiresDPoP && v.requireBound
		}
	}
	text, err := json.Marshal(document)
	return &resource{described: r.described, pattern: r.pattern, document: text}, err
}

// ServeHTTP implements [http.Handler].
func (r *resource) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	switch request.Method {
	case http.MethodGet, http.MethodHead:
		header.Set("Content-Type", "application/json")
		header.Set("Content-Length", strconv.Itoa(len(r.document)))
		header.Set("Cache-Control", "public, max-age=300")
		header.Set("X-Content-Type-Options", "nosniff")
		if request.Method == http.MethodGet {
			_, _ = w.Write(r.document) // fails only if the client has disconnected
		}
	case http.MethodOptions:
		// A page that adds a header, such as MCP-Protocol-Version, first asks for permission
		// (https://fetch.spec.whatwg.org/#cors-preflight-fetch).
		header.Set("Allow", "GET, HEAD, OPTIONS")
		header.Set("Access-Control-Allow-Methods", "GET, HEAD")
		header.Set("Access-Control-Allow-Headers", "*")
		header.Set("Access-Control-Max-Age", "7200")
		w.WriteHeader(http.StatusNoContent)
	default:
		header.Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, "The method is not allowed here.", http.StatusMethodNotAllowed)
	}
}
