package verify

import "net/http"

// HTTP returns middleware that passes a request to next if rule allows it; [CallerFrom] then returns the caller. The
// token must be in the Authorization header: one in the query or in a form is ignored (RFC 6750 §5.3).
//
// HTTP panics if the rule is malformed, because a server with such a rule must not start.
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
			r.Pattern = admitted.Pattern // set if next is a ServeMux, and a label of the metrics
		})
		if i := verifier.instruments; i != nil {
			guarded = i.http.Handler(guarded, route)
		}
		return guarded
	}
}
