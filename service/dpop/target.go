package dpop

import (
	"net/url"
	"strings"
)

// withoutQuery returns a URL up to its query or fragment.
func withoutQuery(raw string) string {
	if i := strings.IndexAny(raw, "?#"); i >= 0 {
		return raw[:i]
	}
	return raw
}

// sameTarget reports whether the "htu" of a proof is one of the URLs (RFC 9449 §4.3). Query and fragment are ignored on both
// sides. Two URLs are the same if they are after the normalization of RFC 3986 §6.2.2 and §6.2.3: scheme and host in lower
// case, without the scheme's default port, an empty path as "/", dot segments removed, and percent-encodings in upper case
// unless they are of unreserved characters, which are decoded. The letter case of the path, another port, a trailing slash
// and a host's trailing dot count.
func sameTarget(claimed string, urls []string) bool {
	claimed = withoutQuery(claimed)
	for _, u := range urls {
		if claimed == withoutQuery(u) {
			// The common case costs no parsing. What is equal is also equal after normalization.
			return true
		}
	}
	claimed, ok := normalize(claimed)
	if !ok {
		return false
	}
	for _, u := range urls {
		if normal, ok := normalize(withoutQuery(u)); ok && normal == claimed {
			return true
		}
	}
	return false
}

// normalize returns the normal form of a URL without query and fragment. ok is false unless it is an absolute URL of http or
// https in ASCII without userinfo.
func normalize(raw string) (_ string, ok bool) {
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", false
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil {
		return "", false
	}
	port := u.Port()
	switch { // the parser has put the scheme in lower case
	case u.Scheme != "http" && u.Scheme != "https":
		return "", false
	case u.Scheme == "http" && port == "80", u.Scheme == "https" && port == "443", port == "":
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	resolved := (&url.URL{}).ResolveReference(u) // removes the dot segments
	path := normalizeEscapes(resolved.EscapedPath())
	if path == "" {
		path = "/"
	}
	return u.Scheme + "://" + strings.ToLower(u.Host) + path, true
}

// normalizeEscapes normalizes the percent-encodings in a path (RFC 3986 §6.2.2.1, §6.2.2.2), which the parser has found valid.
func normalizeEscapes(path string) string {
	if strings.IndexByte(path, '%') < 0 {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) {
			b.WriteByte(path[i])
			continue
		}
		escape := strings.ToUpper(path[i : i+3])
		if plain, err := url.PathUnescape(escape); err == nil && unreserved(plain) {
			escape = plain
		}
		b.WriteString(escape)
		i += 2
	}
	return b.String()
}

// unreserved reports whether s is an unreserved character (RFC 3986 §2.3).
func unreserved(s string) bool {
	const others = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	return len(s) == 1 && strings.Contains(others, s)
}

// URLs returns the URLs under which the client of a request may know its target: https, the authority that the client named
// (the header Host or the pseudo-header :authority) and the path. Unless the connection has TLS, http as well, since the client
// may have meant this connection, or one to a proxy that ends TLS.
//
// A server that takes the authority from the request accepts a proof that was made for whatever authority the sender of the
// request names. An attacker that obtains a token together with an unused proof, which is only sent to the server that the
// client meant, could therefore send both on to another server for which the token is valid.
func URLs(authority, path string, secure bool) []string {
	if secure {
		return []string{"https://" + authority + path}
	}
	return []string{"https://" + authority + path, "http://" + authority + path}
}
