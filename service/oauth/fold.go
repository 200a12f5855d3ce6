package oauth

// EqualFold reports whether s and t are equal if upper and lower case of ASCII letters are not distinguished. Protocols
// compare their words so, such as the name of an authentication scheme (RFC 9110 §11.1). [strings.EqualFold] takes characters
// beyond ASCII for letters of them, such as "ſ" for "s".
func EqualFold(s, t string) bool {
	if len(s) != len(t) {
		return false
	}
	for i := range len(s) {
		if lower(s[i]) != lower(t[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
