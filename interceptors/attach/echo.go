package attach

import (
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

const (
	// A shorter secret may occur in a text by chance, and so may a longer one that consists of letters only.
	minDistinct, minDistinctLetters = 8, 20
	// minCore is the minimum length of a part of a base64 encoding that does not occur in a text by chance.
	minCore = 8
)

// sanitize returns up to 256 bytes of text in printable ASCII, without the secret.
func sanitize(text, secret string) string {
	const maxText = 256
	text = conceal(text, secret)
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text[:min(len(text), maxText)])
}

// conceal returns text without the secret, which servers echo in every form in which it is sent: verbatim, form-encoded
// or inside Basic credentials. The whole text is omitted, unless the secret is one that may occur in it by chance: such a
// secret is compared with whole values in the text only, and only these are replaced.
func conceal(text, secret string) string {
	switch {
	case secret == "":
		return text
	case containsEncoded(text, secret), isDistinct(secret) && containsVerbatim(text, secret):
		return placeholder(secret, "(omitted: it contains the secret)", "***", "###")
	case isDistinct(secret):
		return text
	}
	for _, form := range forms(secret) {
		text = replaceValues(text, form, placeholder(secret, "***", "###"))
	}
	return text
}

// concealError returns err, or an error that has its text without the secret. Of an error of [http.Client] only the
// part that may quote the server is searched, and the URL is redacted.
func concealError(err error, secret string) error {
	failed, ok := err.(*url.Error) //nolint:errorlint // an error that wraps it has further text
	if ok && failed.Err != nil {
		return &url.Error{Op: failed.Op, URL: oauth.RedactURL(failed.URL), Err: concealError(failed.Err, secret)}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	text := err.Error()
	if concealed := conceal(text, secret); concealed != text {
		return errors.New(sanitize(text, secret))
	}
	return err
}

// isDistinct reports whether the secret is too long to occur in a text by chance.
func isDistinct(secret string) bool {
	letters := strings.Trim(secret, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_ ") == ""
	return len(secret) >= minDistinctLetters || len(secret) >= minDistinct && !letters
}

// placeholder returns the first of texts that does not contain the secret itself, or the empty string.
func placeholder(secret string, texts ...string) string {
	for _, text := range texts {
		if !strings.Contains(text, secret) {
			return text
		}
	}
	return ""
}

// forms returns the secret verbatim and percent-encoded.
func forms(secret string) []string {
	return []string{secret, url.QueryEscape(secret), url.PathEscape(secret)}
}

func containsVerbatim(text, secret string) bool {
	for _, form := range forms(secret) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// containsEncoded reports whether text contains the secret inside Basic credentials. In other text that is encoded in
// base64, the secret may begin at any of three offsets.
func containsEncoded(text, secret string) bool {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	escaped := url.QueryEscape(secret)
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(":", before) + escaped))
		// The first and last characters also depend on the bytes next to the secret.
		first, last := 2*before, len(encoded)-2
		if last-first >= minCore && strings.Contains(text, encoded[first:last]) {
			return true
		}
	}
	for _, value := range strings.FieldsFunc(text, func(r rune) bool { return !isBase64(r) }) {
		decoded, err := base64.RawStdEncoding.DecodeString(value)
		if err == nil && strings.HasSuffix(string(decoded), ":"+escaped) {
			return true
		}
	}
	return false
}

func isBase64(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '+' || r == '/'
}

// replaceValues replaces value in text wherever it stands between two delimiters or ends of the text.
func replaceValues(text, value, replacement string) string {
	var out strings.Builder
	for start := 0; ; {
		at := strings.Index(text[start:], value)
		if at < 0 || value == "" {
			out.WriteString(text[start:])
			return out.String()
		}
		at += start
		end := at + len(value)
		if (at == 0 || isDelimiter(text[at-1])) && (end == len(text) || isDelimiter(text[end])) {
			out.WriteString(text[start:at])
			out.WriteString(replacement)
			start = end
			continue
		}
		out.WriteString(text[start : at+1])
		start = at + 1
	}
}

// isDelimiter reports whether c ends a value in a text. A byte beyond ASCII does, because it may belong to a quotation
// mark.
func isDelimiter(c byte) bool {
	return c <= ' ' || c > '~' || strings.IndexByte("\"'`()[]{}<>,;:=&/|?!.", c) >= 0
}
