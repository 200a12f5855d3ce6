package oauth_test

import (
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/oauth"
)

func TestEqualFold(t *testing.T) {
	for _, word := range []string{"", "Basic", "BEARER", "at+jwt", "application/at+JWT", "max-age", "é"} {
		for _, same := range []string{word, strings.Map(upper, word)} {
			if !oauth.EqualFold(word, same) || !oauth.EqualFold(same, word) {
				t.Errorf("%q and %q differ", word, same)
			}
		}
	}
	for _, pair := range [][2]string{
		{"Basic", "Baſic"}, {"basic", "BAſIC"}, {"k", "\u212a"}, {"K", "\u212a"}, {"é", "É"}, {"@", "`"}, {"[", "{"}, {"a", ""}, {"a", "ab"},
		{"ſ", "s"}, {"i", "ı"}, {"I", "İ"}, {"\x00", " "},
	} {
		if oauth.EqualFold(pair[0], pair[1]) || oauth.EqualFold(pair[1], pair[0]) {
			t.Errorf("%q and %q are equal", pair[0], pair[1])
		}
	}
}

// upper returns the capital of an ASCII letter.
func upper(r rune) rune {
	if 'a' <= r && r <= 'z' {
		return r - 'a' + 'A'
	}
	return r
}
