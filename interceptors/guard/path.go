package guard

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Bounds of what a request may have.
const (
	maxPath    = 8 << 10
	maxHost    = 255
	maxMethod  = 32
	maxHeaders = 1000
)

// ambiguity is why a request is ambiguous: one of the constants below, which the client gets too. It wraps [ErrAmbiguous].
type ambiguity string

const (
	errPathForm      ambiguity = "the path does not begin with a slash"
	errPathLong      ambiguity = "the path is longer than 8 KiB"
	errPathEmpty     ambiguity = "the path has an empty segment"
	errPathDot       ambiguity = "the path has a dot segment"
	errPathSlash     ambiguity = "the path has an escaped slash"
	errPathBackslash ambiguity = "the path has a backslash"
	errPathMatrix    ambiguity = "the path has a semicolon"
	errPathTwice     ambiguity = "the path is escaped twice"
	errPathControl   ambiguity = "the path has a space or a control character"
	errPathEscape    ambiguity = "the path has a malformed escape"
	errPathASCII     ambiguity = "the path has a character beyond ASCII that is not escaped"
	errPathUTF8      ambiguity = "the path has an escape that is not UTF-8"
	errPathFragment  ambiguity = "the path has a fragment"
	errPathReadings  ambiguity = "the path has an escape with which it is another path to some servers"
	errHostForm      ambiguity = "the request has no host, or a malformed one"
	errMethodForm    ambiguity = "the request has no method, or a malformed one"
	errHeaderMethod  ambiguity = "a header overrides the method or the path"
	errHeaderUpgrade ambiguity = "the request would upgrade its connection to another protocol than WebSocket"
	errHeaderMany    ambiguity = "the request has more than 1000 headers"
	errHeaderName    ambiguity = "a header has a name that servers read as another"
	errHeaderValue   ambiguity = "the id of the client cannot be sent in a header"
	errForwardForm   ambiguity = "the proxy does not describe the request"
)

// Error returns the reason.
func (a ambiguity) Error() string { return string(a) }

// Unwrap returns ErrAmbiguous.
func (a ambiguity) Unwrap() error { return ErrAmbiguous }

// normalPath is a path in the form in which paths are compared: "/" or segments, each after a slash.
type normalPath struct {
	path string
	// reserved is true if the path has an escape of a printable ASCII character, such as %40, which stays an escape. Some servers
	// compare such a path without decoding it, and others decode it first.
	reserved bool
}

// Classes of characters in a path.
const (
	plain = iota
	slash
	percent
	refused
)

// classes maps a byte to its class. why maps those that are refused to the reason.
var classes, why = func() (classes [256]uint8, why [256]ambiguity) {
	refuse := func(c int, reason ambiguity) { classes[c], why[c] = refused, reason }
	for c := range 0x20 {
		refuse(c, errPathControl)
	}
	for c := 0x80; c <= 0xff; c++ {
		refuse(c, errPathASCII)
	}
	refuse(0x7f, errPathControl)
	refuse(' ', errPathControl)
	refuse('\\', errPathBackslash)
	refuse(';', errPathMatrix)
	refuse('#', errPathFragment)
	classes['/'], classes['%'] = slash, percent
	return classes, why
}()

// normalizePath returns the form in which the path of a request is compared, as the package comment says. The error is an
// ambiguity.
func normalizePath(raw string) (normalPath, error) {
	if i := strings.IndexByte(raw, '?'); i >= 0 {
		raw = raw[:i]
	}
	switch {
	case raw == "" || raw[0] != '/':
		return normalPath{}, errPathForm
	case len(raw) > maxPath:
		return normalPath{}, errPathLong
	}
	normal := normalPath{path: raw}
	for i := range len(raw) {
		switch c := raw[i]; classes[c] {
		case refused:
			return normalPath{}, why[c]
		case percent:
			var err error
			if normal, err = decodeEscapes(raw, i); err != nil {
				return normalPath{}, err
			}
			return normal, normal.checkSegments()
		}
	}
	return normal, normal.checkSegments()
}

// checkSegments removes one trailing slash, and refuses empty segments and dot segments.
func (p *normalPath) checkSegments() error {
	if p.path == "/" {
		return nil
	}
	p.path = strings.TrimSuffix(p.path, "/")
	for rest := p.path; rest != ""; {
		var segment string
		segment, rest = cutSegment(rest)
		switch segment {
		case "":
			return errPathEmpty
		case ".", "..":
			return errPathDot
		}
	}
	return nil
}

// cutSegment returns the first segment of a path that begins with a slash, and the rest, which does so too or is empty.
func cutSegment(path string) (segment, rest string) {
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			return path[1:i], path[i:]
		}
	}
	return path[1:], ""
}

// decodeEscapes decodes the escapes of unreserved characters and spells the others in upper case (RFC 3986 §6.2.2). The
// first escape is at start; the bytes before it are checked.
func decodeEscapes(raw string, start int) (normalPath, error) {
	out := append(make([]byte, 0, len(raw)), raw[:start]...)
	reserved := false
	for i := start; i < len(raw); {
		c := raw[i]
		switch classes[c] {
		case refused:
			return normalPath{}, why[c]
		case plain, slash:
			out = append(out, c)
			i++
			continue
		}
		c, ok := unescape(raw[i:])
		size := 1
		switch {
		case !ok:
			return normalPath{}, errPathEscape
		case c == '/':
			return normalPath{}, errPathSlash
		case unreserved(c):
			out = append(out, c)
			i += 3
			continue
		case c >= utf8.RuneSelf:
			var err error
			if size, err = runeSize(raw[i:]); err != nil {
				return normalPath{}, err
			}
		case c != ' ' && classes[c] == refused && why[c] != errPathFragment:
			return normalPath{}, why[c]
		case c != ' ' && c != '%':
			reserved = true
		}
		for _, digit := range []byte(raw[i : i+3*size]) {
			if 'a' <= digit && digit <= 'f' {
				digit -= 'a' - 'A'
			}
			out = append(out, digit)
		}
		i += 3 * size
	}
	path := string(out)
	return normalPath{path, reserved}, checkOnce(path)
}

// checkOnce refuses a path whose escapes, decoded, contain an escape.
func checkOnce(path string) error {
	for rest := path; ; {
		_, after, found := strings.Cut(rest, "%25")
		if !found {
			return nil
		}
		if len(after) >= 2 && isHex(after[0]) && isHex(after[1]) {
			return errPathTwice
		}
		rest = after
	}
}

// readings yields the other paths that the path is to some servers: with the escapes of printable ASCII characters decoded, and
// then up to a question mark or number sign, which rewriting takes for the begin of a query or fragment.
func (p *normalPath) readings(yield func(string) bool) {
	if !p.reserved {
		return
	}
	decoded := p.decodeReserved()
	if !yield(decoded) {
		return
	}
	if i := strings.IndexAny(decoded, "?#"); i >= 0 {
		yield(decoded[:i])
	}
}

// decodeReserved decodes the escapes of printable ASCII characters, as some servers do before they compare paths.
func (p *normalPath) decodeReserved() string {
	out := make([]byte, 0, len(p.path))
	for i := 0; i < len(p.path); i++ {
		c := p.path[i]
		if c == '%' {
			if decoded, ok := unescape(p.path[i:]); ok && decoded > ' ' && decoded < 0x7f && decoded != '%' {
				c = decoded
				i += 2
			}
		}
		out = append(out, c)
	}
	return string(out)
}

// runeSize returns the number of bytes of the character whose escapes s begins with.
func runeSize(s string) (int, error) {
	var encoded [utf8.UTFMax]byte
	n := 0
	for n < len(encoded) {
		c, ok := unescape(s[3*n:])
		if !ok || c < utf8.RuneSelf {
			break
		}
		encoded[n] = c
		n++
	}
	r, size := utf8.DecodeRune(encoded[:n])
	switch {
	case r == utf8.RuneError && size <= 1:
		return 0, errPathUTF8
	case r < 0xa0: // C1 controls
		return 0, errPathControl
	}
	return size, nil
}

// unescape returns the byte whose escape s begins with.
func unescape(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' || !isHex(s[1]) || !isHex(s[2]) {
		return 0, false
	}
	return unhex(s[1])<<4 | unhex(s[2]), true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0xf + 9
}

// unreserved reports whether c is an unreserved character (RFC 3986 §2.3).
func unreserved(c byte) bool {
	return alphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~'
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// normalizeHost returns the form in which the host of a request is compared: in lower case, without the port and one
// trailing dot. The error is an ambiguity.
func normalizeHost(raw string) (string, error) {
	if len(raw) > maxHost {
		return "", errHostForm
	}
	if strings.HasPrefix(raw, "[") {
		return normalizeAddress(raw)
	}
	host, port, hasPort := strings.Cut(raw, ":")
	host = strings.TrimSuffix(host, ".")
	if host == "" || hasPort && !isPort(port) {
		return "", errHostForm
	}
	upper := false
	for i := range len(host) {
		switch c := host[i]; {
		case 'A' <= c && c <= 'Z':
			upper = true
		case c == '.' && (i == 0 || host[i-1] == '.'):
			return "", errHostForm
		case !alphanumeric(c) && c != '-' && c != '.' && c != '_':
			return "", errHostForm
		}
	}
	if host[len(host)-1] == '.' { // there were two
		return "", errHostForm
	}
	if upper {
		host = strings.ToLower(host)
	}
	return host, nil
}

// normalizeAddress returns the form of a host that is an IPv6 address (RFC 3986 §3.2.2).
func normalizeAddress(raw string) (string, error) {
	text, port, closed := strings.Cut(raw[1:], "]")
	address, err := netip.ParseAddr(text)
	if !closed || err != nil || !address.Is6() || address.Zone() != "" || port != "" && (port[0] != ':' || !isPort(port[1:])) {
		return "", errHostForm
	}
	return "[" + address.String() + "]", nil
}

func isPort(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 5
}

// checkMethod refuses what is no method (RFC 9110 §9.1).
func checkMethod(method string) error {
	if method == "" || len(method) > maxMethod || !isToken(method) {
		return errMethodForm
	}
	return nil
}

// isToken reports whether s has only characters of a token (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(s[i])) {
			return false
		}
	}
	return s != ""
}
