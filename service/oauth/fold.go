package oauth

// EqualFold reports whether s and t are equal, ignoring the case of ASCII letters. Protocols compare their keywords in this
// way, such as the name of an authentication scheme (RFC 9110 §11.1). [strings.EqualFold] is not suitable, because it
// equates characters beyond ASCII with ASCII letters, such as "ſ" with "s".
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
