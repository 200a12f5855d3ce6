package clientauth_test

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/clientauth"
)

// FuzzParseBasic parses arbitrary credentials. Accepted ones are the same after another round of encoding and parsing.
func FuzzParseBasic(f *testing.F) {
	for _, pair := range []string{"svc:secret", "svc:", ":secret", ":", "svc", "", "a%3Ab:c%2B+%25", "a:b:c", "%zz:a", "a:%2", "\x00:\xff", strings.Repeat("a", 5000) + ":b"} {
		f.Add(base64.StdEncoding.EncodeToString([]byte(pair)))
	}
	for _, credentials := range []string{" c3ZjOnM= ", "c3ZjOnM", "c3Zj_nM=", "c3Zj\nOnM=", "~", "====", "YTpi Yzpk"} {
		f.Add(credentials)
	}
	f.Fuzz(func(t *testing.T, credentials string) {
		id, secret, ok := clientauth.ParseBasic(credentials)
		if !ok {
			if id != "" || secret != "" {
				t.Errorf("%q: got %q and %q with a refusal, want neither", credentials, id, secret)
			}
			return
		}
		if len(id)+len(secret) >= len(credentials) {
			t.Errorf("%d bytes decoded to %d", len(credentials), len(id)+len(secret))
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id) + ":" + url.QueryEscape(secret)))
		if gotID, gotSecret, ok := clientauth.ParseBasic(encoded); len(id) <= 255 && len(secret) <= 512 && (!ok || gotID != id || gotSecret != secret) {
			t.Errorf("%q: got %q, %q, %t in the second round, want %q, %q", credentials, gotID, gotSecret, ok, id, secret)
		}
	})
}
