package rest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

// Origin is the origin of a web page as a browser sends it (RFC 6454 §6.2), such as "https://console.example.com".
type Origin struct{ text string }

// serialized matches an origin in the only form in which a browser sends it: in lower case, and without a path.
var serialized = regexp.MustCompile(`^https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$`)

// ParseOrigin parses an origin. It must be exactly as a browser sends it, because origins are compared byte for byte.
func ParseOrigin(s string) (Origin, error) {
	u, err := url.Parse(s)
	if err == nil && u.Port() != "" {
		_, err = strconv.ParseUint(u.Port(), 10, 16)
	}
	switch {
	case s == "*" || s == "null":
		return Origin{}, fmt.Errorf("%s stands for any page; name each origin", s)
	case err != nil || !serialized.MatchString(s):
		return Origin{}, fmt.Errorf("%.100q is not an origin such as https://console.example.com: lower case, no wildcard, no slash at the end", s)
	case u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80":
		return Origin{}, fmt.Errorf("%.100q has the port that browsers omit; omit it too", s)
	case u.Scheme == "http" && !oauth.Loopback(u.Hostname()):
		return Origin{}, errors.New("an origin is https; http is accepted on loopback only")
	}
	return Origin{s}, nil
}

// String returns the origin.
func (o Origin) String() string { return o.text }

// callHeaders are the headers that a page may send with a call by Connect or gRPC-Web, and exposed those of the answers
// to calls and token requests that it may read. The status of gRPC-Web is in headers if the answer has no message.
const (
	callHeaders = "Authorization, Connect-Protocol-Version, Connect-Timeout-Ms, Content-Type, DPoP, Grpc-Timeout, X-Grpc-Web, X-User-Agent"
	exposed     = "DPoP-Nonce, Retry-After, WWW-Authenticate"
	exposedGRPC = exposed + ", Grpc-Message, Grpc-Status, Grpc-Status-Details-Bin"
)

// preflightMaxAge is how long a browser may remember the answer to a preflight, in seconds. Chromium keeps none longer.
const preflightMaxAge = "7200"

// admitOrigin reports whether the request is one of a page of a configured origin to the token endpoint, or a call. If
// so, it sets the headers that let the page read the response, refusals included
// (https://fetch.spec.whatwg.org/#http-cors-protocol). The header Vary is set for pages of other origins too, because
// caches must not serve them the response. Credentials in the sense of that protocol, which a browser would add without
// the page, are never allowed.
//
// Any page may read the responses at the paths of the public documents, those of refusals included.
func (h *handler) admitOrigin(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.EscapedPath() {
	case oauth.WellKnownServer, oauth.WellKnownOpenID, keySetPath:
		w.Header().Set("Access-Control-Allow-Origin", "*")
		return false
	}
	if len(h.origins) == 0 {
		return false
	}
	readable := exposed
	if h.calls.Has(r.URL.EscapedPath()) {
		readable = exposedGRPC
	} else if !strings.HasSuffix(r.URL.EscapedPath(), tokenPath) { // the suffix, because the issuer's URL may have a path
		return false
	}
	w.Header().Add("Vary", "Origin")
	sent := r.Header["Origin"]
	if len(sent) != 1 || !h.origins[sent[0]] {
		return false
	}
	w.Header().Set("Access-Control-Allow-Origin", sent[0])
	w.Header().Set("Access-Control-Expose-Headers", readable)
	return true
}

// isPreflight reports whether a browser asks for permission before it makes the request of a page.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// answerPreflight permits requests with the methods and the headers.
func answerPreflight(w http.ResponseWriter, methods, headers string) {
	w.Header().Set("Access-Control-Allow-Methods", methods)
	w.Header().Set("Access-Control-Allow-Headers", headers)
	w.Header().Set("Access-Control-Max-Age", preflightMaxAge)
	w.WriteHeader(http.StatusNoContent)
}
