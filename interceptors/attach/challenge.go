package attach

import (
	"strings"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// tokenRefused reports whether any of the WWW-Authenticate values contains a challenge of the scheme with the error
// invalid_token (RFC 6750 §3.1, RFC 9449 §7.1). It means that the server refused the token without processing the request.
func tokenRefused(scheme string, values []string) bool {
	return challenged(scheme, values, oauth.InvalidToken)
}

// proofRefused reports whether the values contain a challenge whose reason is the DPoP proof and not the token.
func proofRefused(values []string) bool {
	return challenged(dpop.Scheme, values, oauth.InvalidDPoPProof) || challenged(dpop.Scheme, values, oauth.UseDPoPNonce)
}

// challenged reports whether any of the WWW-Authenticate values contains a challenge of the scheme with the error code.
func challenged(scheme string, values []string, code oauth.Code) bool {
	for _, value := range values {
		current := ""
		for _, item := range splitList(value) {
			// RFC 9110 §11.6.1: one list contains both challenges and their further parameters. An item with a space
			// before its "=", or without "=", begins a challenge.
			name, setting, isParam := strings.Cut(item, "=")
			name = strings.Trim(name, " \t")
			if first, param, begins := strings.Cut(name, " "); begins || !isParam {
				current, name = first, param
			}
			if oauth.EqualFold(current, scheme) && oauth.EqualFold(name, "error") &&
				strings.Trim(setting, " \t\"") == string(code) {
				return true
			}
		}
	}
	return false
}

// splitList splits a list-valued header at commas outside quoted strings, and omits empty items (RFC 9110 §5.6.1,
// §5.6.4).
func splitList(value string) []string {
	var items []string
	start, quoted := 0, false
	for i := 0; i <= len(value); i++ {
		switch {
		case i == len(value) || value[i] == ',' && !quoted:
			if item := strings.Trim(value[start:i], " \t"); item != "" {
				items = append(items, item)
			}
			start = i + 1
		case quoted && value[i] == '\\':
			i++
		case value[i] == '"':
			quoted = !quoted
		}
	}
	return items
}
