package guard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/oauth"
)

// Default names of the headers for the upstream.
const (
	defaultClientIDHeader = "x-grantor-client-id"
	defaultScopesHeader   = "x-grantor-scopes"
)

// maxHeaderName is the maximum length of a name in Config.
const maxHeaderName = 63

// headerKind is what a header means to the guard.
type headerKind int

const (
	authorization headerKind = iota
	dpopProof
	// override is a header by which some upstreams replace the method or the path.
	override
	// upgrade asks for another protocol on the connection.
	upgrade
	// own is a header for the upstream, or one that the upstream may read as that.
	own
)

// headers recognizes headers by name. It is not modified.
type headers struct {
	clientID, scopes string
	// known is indexed by the length of the name. Requests have other headers for the most part, whose names then need not be
	// compared at all.
	known [maxHeaderName + 1][]knownHeader
}

type knownHeader struct {
	// folded is the name after fold.
	folded string
	kind   headerKind
}

// unusable lists names that mean something to proxies and servers, which Config must not take.
var unusable = []string{
	"host", "authorization", "dpop", "connection", "content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade",
	"cookie", "keep-alive", "proxy-authorization", "proxy-connection", "forwarded", "x-forwarded-for", "x-forwarded-host",
	"x-forwarded-proto", "x-forwarded-client-cert", "grpc-timeout", "grpc-encoding",
}

// overrides lists headers by which some upstreams replace the method or the path. With SCRIPT_NAME, gunicorn cuts the beginning off
// the path if its peer is on loopback, as a proxy is; so do the usual middlewares for X-Script-Name.
var overrides = []string{
	"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url", "script-name", "path-info",
	"x-script-name",
}

// newHeaders returns the headers with the names of a Config.
func newHeaders(clientID, scopes string) (*headers, error) {
	h := &headers{
		clientID: strings.ToLower(cmp.Or(clientID, defaultClientIDHeader)),
		scopes:   strings.ToLower(cmp.Or(scopes, defaultScopesHeader)),
	}
	h.know(authorization, "authorization")
	h.know(dpopProof, "dpop")
	h.know(override, overrides...)
	h.know(upgrade, "upgrade")
	for _, name := range []string{h.clientID, h.scopes} {
		if !isToken(name) || len(name) > maxHeaderName {
			return nil, fmt.Errorf("guard: %.200q is no name of a header of at most %d bytes", name, maxHeaderName)
		}
		folded := fold(name)
		if _, known := h.kind(name); known || slices.ContainsFunc(unusable, func(other string) bool { return fold(other) == folded }) {
			return nil, fmt.Errorf("guard: the header %s means something else, or is set twice", name)
		}
		h.know(own, name)
	}
	return h, nil
}

// know adds names.
func (h *headers) know(kind headerKind, names ...string) {
	for _, name := range names {
		h.known[len(name)] = append(h.known[len(name)], knownHeader{fold(name), kind})
	}
}

// fold returns a name in the form that is equal for all that a server may read as the same: CGI and its successors replace
// characters that are neither letters nor digits by an underscore.
func fold(name string) string {
	folded := []byte(name)
	for i, c := range folded {
		folded[i] = foldByte(c)
	}
	return string(folded)
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case alphanumeric(c):
		return c
	}
	return '-'
}

// kind returns what a header means; known is false if it means nothing.
func (h *headers) kind(name string) (_ headerKind, known bool) {
	if len(name) > maxHeaderName {
		return 0, false
	}
	for _, k := range h.known[len(name)] {
		i := 0
		for i < len(name) && foldByte(name[i]) == k.folded[i] {
			i++
		}
		if i == len(name) {
			return k.kind, true
		}
	}
	return 0, false
}

// sentHeaders are the headers of a request that mean something.
type sentHeaders struct {
	authorization, dpop []string
	// own are the names of those of kind own, in lower case and without repetition.
	own []string
}

// maxOwn is the maximum number of different names that a request may have for the headers of the upstream. Honest requests
// have two at most, from a guard in front of this one.
const maxOwn = 16

// read reads the headers of a request. The error is an ambiguity.
func (h *headers) read(r *Request, sent *sentHeaders) error {
	if r.Header == nil {
		return nil
	}
	count := 0
	var err error
	r.Header(func(name, value string) bool {
		if count++; count > maxHeaders {
			err = errHeaderMany
			return false
		}
		if kind, known := h.kind(name); known {
			err = h.add(sent, kind, r.Wire, Header{name, value})
		}
		return err == nil
	})
	return err
}

// add adds a header to those of a request.
func (h *headers) add(sent *sentHeaders, kind headerKind, wire Wire, header Header) error {
	switch kind {
	case authorization:
		sent.authorization = append(sent.authorization, header.Value)
	case dpopProof:
		sent.dpop = append(sent.dpop, header.Value)
	case override:
		return errHeaderMethod
	case upgrade:
		// After an upgrade to HTTP/2 (h2c), the proxy passes on what the client sends without asking.
		if !oauth.EqualFold(header.Value, "websocket") {
			return errHeaderUpgrade
		}
	case own:
		name := strings.ToLower(header.Name)
		// The answer to a subrequest cannot remove headers: the proxy overwrites those with the exact names, and no others.
		if !isToken(name) || wire == Forward && name != h.clientID && name != h.scopes {
			return errHeaderName
		}
		if slices.Contains(sent.own, name) {
			return nil
		}
		if len(sent.own) == maxOwn {
			return errHeaderName
		}
		sent.own = append(sent.own, name)
	}
	return nil
}

// set returns the headers for the upstream, or nil if there is no caller. The error is an ambiguity.
func (h *headers) set(caller verify.Caller) ([]Header, error) {
	if caller.Claims == nil {
		return nil, nil
	}
	// The ids of Grantor's clients are plain; another issuer's may have any characters.
	id := caller.ClientID
	for i := range len(id) {
		if c := id[i]; c < ' ' || c > '~' || c == ' ' && (i == 0 || i == len(id)-1) {
			return nil, errHeaderValue
		}
	}
	return []Header{{h.clientID, id}, {h.scopes, caller.Scopes.String()}}, nil
}

// remove returns the names of the headers that the upstream must not get. A proxy removes after it has set, as Envoy does, so
// names that are set are not among them.
func (h *headers) remove(sent *sentHeaders, set, tokens bool) []string {
	var names []string
	for _, name := range sent.own {
		if !set || name != h.clientID && name != h.scopes {
			names = append(names, name)
		}
	}
	if tokens && len(sent.authorization) > 0 {
		names = append(names, "authorization")
	}
	if tokens && len(sent.dpop) > 0 {
		names = append(names, "dpop")
	}
	return names
}
