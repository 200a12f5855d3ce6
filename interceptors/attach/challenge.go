package attach

import "strings"

// tokenRefused reports whether one of the WWW-Authenticate values has a Bearer challenge that says that the token was
// the reason (RFC 6750 §3.1), and so that the request itself was not looked at.
func tokenRefused(values []string) bool {
	for _, value := range values {
		scheme := ""
		for _, item := range splitList(value) {
			// RFC 9110 §11.6.1: one list has challenges and the further parameters of each. An item with a space before
			// its "=", or without one, begins a challenge.
			name, setting, isParam := strings.Cut(item, "=")
			name = strings.TrimSpace(name)
			if first, param, begins := strings.Cut(name, " "); begins || !isParam {
				scheme, name = first, param
			}
			if strings.EqualFold(scheme, "Bearer") && strings.EqualFold(name, "error") &&
				strings.Trim(setting, ` "`) == "invalid_token" {
				return true
			}
		}
	}
	return false
}

// splitList splits a header's list at the commas outside quoted strings, and leaves empty items out (RFC 9110 §5.6.1,
// §5.6.4).
func splitList(value string) []string {
	var items []string
	start, quoted := 0, false
	for i := 0; i <= len(value); i++ {
		switch {
		case i == len(value) || value[i] == ',' && !quoted:
			if item := strings.TrimSpace(value[start:i]); item != "" {
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
