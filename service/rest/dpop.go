package rest

import (
	"net/http"
	"strings"

	"github.com/grantorhq/grantor/service/dpop"
)

// dpopHeader is the name of the header DPoP in [http.Header].
var dpopHeader = http.CanonicalHeaderKey(dpop.Header)

// withProof returns the request with a context that says what a DPoP proof must be for, if it has one: its method, and its URL
// below the issuer's, which is the one in the metadata, or below the host that it was sent to.
func (h *handler) withProof(r *http.Request) *http.Request {
	if len(r.Header[dpopHeader]) == 0 {
		return r
	}
	target := &dpop.Request{Method: r.Method, URLs: []string{h.realm + r.URL.EscapedPath()}}
	if strings.HasPrefix(r.RequestURI, "/") {
		target.URLs = append(target.URLs, dpop.URLs(r.Host, r.RequestURI, r.TLS != nil)...)
	}
	return r.WithContext(dpop.NewContext(r.Context(), target))
}
