package verify

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// HTTP returns middleware that passes a request to next if rule allows it; [CallerFrom] then returns the caller. The
// token must be in the Authorization header: one in the query or in a form is ignored (RFC 6750 §5.3).
//
// HTTP panics if the rule is malformed, because a server with such a rule must not start.
func HTTP(verifier *Verifier, rule Rule) func(next http.Handler) http.Handler {
	if err := rule.Err(); err != nil {
		panic("verify: " + err.Error())
	}
	verifier = orZero(verifier)
	return func(next http.Handler) http.Handler {
		var guarded http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			call := request{authorization: r.Header["Authorization"], http: r}
			ctx, refused := verifier.admit(r.Context(), rule, &call)
			if refused != nil {
				verifier.report(r.Context(), r.Method+" "+r.URL.Path, refused)
				verifier.describe(refused, rule)
				refused.WriteHTTP(w)
				return
			}
			if call.nonce != "" {
				w.Header().Set(dpop.NonceHeader, call.nonce)
			}
			admitted := r.WithContext(ctx)
			next.ServeHTTP(w, admitted)
			r.Pattern = admitted.Pattern // set if next is a ServeMux, and a label of the metrics
		})
		if i := verifier.instruments; i != nil {
			guarded = i.http.Handler(guarded, route)
		}
		return guarded
	}
}

// checkResourceMetadata returns an error if the URL of [ResourceMetadata] cannot stand in a challenge.
func (c *config) checkResourceMetadata() error {
	if c.resourceMetadata == nil {
		return nil
	}
	raw := *c.resourceMetadata
	u, err := url.Parse(raw)
	if _, malformed := oauth.ParseResource(raw); malformed != nil || err != nil || strings.ContainsAny(raw, `"\`) || u.User != nil {
		return fmt.Errorf("verify: the URL of the resource metadata: %.200q is not an absolute URL without userinfo", oauth.RedactURL(raw))
	}
	return nil
}

// describe adds to the first challenge where the resource is described, and the scopes of the rule (RFC 9728 §5.1, RFC
// 6750 §3).
func (v *Verifier) describe(r *Refusal, rule Rule) {
	if v.resourceMetadata == nil || len(r.Challenges) == 0 {
		return
	}
	challenge := &r.Challenges[0]
	separator := " "
	if strings.Contains(*challenge, "=") {
		separator = ", "
	}
	if r.Scope == "" && len(rule.scopes) > 0 {
		*challenge += separator + `scope="` + rule.scopes.String() + `"`
		separator = ", "
	}
	*challenge += separator + `resource_metadata="` + *v.resourceMetadata + `"`
}
