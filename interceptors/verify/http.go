package verify

import "net/http"

// HTTP makes a middleware that lets a request through to next where rule allows it; there [CallerFrom] gives the
// caller. A token counts in the Authorization header alone: one in the query or in a form is not looked at (RFC 6750
// §5.3).
//
// HTTP panics if the rule is malformed, as a server with such a rule must not start.
func HTTP(verifier *Verifier, rule Rule) func(next http.Handler) http.Handler {
	if err := rule.check(); err != nil {
		panic("verify: " + err.Error())
	}
	return func(next http.Handler) http.Handler {
		var guarded http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, refused := verifier.admit(r.Context(), rule, r.Header["Authorization"])
			if refused != nil {
				verifier.report(r.Context(), r.Method+" "+r.URL.Path, refused)
				refused.write(w)
				return
			}
			admitted := r.WithContext(ctx)
			next.ServeHTTP(w, admitted)
			r.Pattern = admitted.Pattern // where next is a ServeMux: whoever measures wants to know
		})
		if i := verifier.instruments; i != nil {
			guarded = i.http.Handler(guarded, route)
		}
		return guarded
	}
}
