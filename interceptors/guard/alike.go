package guard

import (
	"net/url"
	"strings"
	"unicode"
)

// Exceptions are compared by likeness: Express and ASP.NET find /admin for /Admin, and file systems of Windows for "/admin." and
// "/admin%20". A request that only looks like an exception matches neither the route nor, for the most part, another, and is refused.

// alikePath returns the form of a normal path in which it is equal to each path that it is like.
func alikePath(path string) string {
	if isPlain(path) {
		return path
	}
	var b strings.Builder
	for rest := path; rest != "" && rest != "/"; {
		var segment string
		segment, rest = cutSegment(rest)
		b.WriteByte('/')
		b.WriteString(alike(segment))
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// isPlain reports whether alikePath returns the path itself: most paths have neither capitals nor escapes nor dots at the end of a
// segment.
func isPlain(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case 'A' <= c && c <= 'Z', c == '%', c == '.' && (i+1 == len(path) || path[i+1] == '/'):
			return false
		}
	}
	return true
}

// alike returns the form of a segment in which it is equal to each segment that it is like: decoded, without regard to letter case,
// and without spaces around it and dots at its end.
func alike(segment string) string {
	if decoded, err := url.PathUnescape(segment); err == nil { // the escapes of a normal path are well-formed
		segment = decoded
	}
	folded := strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return unicode.ToLower(least)
	}, segment)
	trimmed := strings.TrimRight(strings.TrimLeft(folded, " "), " .")
	if trimmed == "" {
		return "." // of dots and spaces alone
	}
	return trimmed
}
