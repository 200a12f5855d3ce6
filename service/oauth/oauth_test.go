package oauth_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// long returns n letters.
func long(n int) string { return strings.Repeat("a", n) }

// expectCode compares the code of an error; "" means no error.
func expectCode(t *testing.T, err error, want oauth.Code) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
		return
	}
	var refusal *oauth.Error
	if !errors.As(err, &refusal) || refusal.Code != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestParseClientID(t *testing.T) {
	for s, want := range map[string]oauth.Code{
		"billing":                  "",
		"!":                        "",
		"a:b/c~":                   "",
		long(oauth.MaxID):          "",
		long(oauth.MaxID + 1):      oauth.InvalidRequest,
		"":                         oauth.InvalidRequest,
		"a b":                      oauth.InvalidRequest,
		"a\n":                      oauth.InvalidRequest,
		"a\x7f":                    oauth.InvalidRequest,
		"a\x00":                    oauth.InvalidRequest,
		"é":                        oauth.InvalidRequest,
		"\xff":                     oauth.InvalidRequest,
		strings.Repeat("a", 1<<20): oauth.InvalidRequest,
	} {
		t.Run(head(s), func(t *testing.T) {
			id, err := oauth.ParseClientID(s)
			expectCode(t, err, want)
			if err == nil && id.String() != s {
				t.Errorf("got %q", id)
			}
		})
	}
}

func head(s string) string { return s[:min(len(s), 40)] }

func TestParseResource(t *testing.T) {
	for s, ok := range map[string]bool{
		"https://orders.internal":                 true,
		"https://orders.internal/":                true,
		"https://orders.internal/v1?tenant=a":     true,
		"urn:example:orders":                      true,
		"api://orders":                            true,
		"spiffe://example.org/orders":             true,
		"https://o/" + long(oauth.MaxResource-10): true,
		"https://o/" + long(oauth.MaxResource-9):  false,
		"":                                        false,
		"orders":                                  false,
		"/orders":                                 false,
		"//orders.internal":                       false,
		"https:":                                  false,
		"https://":                                false,
		"https://orders.internal#":                false,
		"https://orders.internal#part":            false,
		"https://orders.internal/a b":             false,
		"https://orders.internal/\n":              false,
		"https://orders.internal/%zz":             false,
		"https://örders.internal":                 false,
		"1https://orders.internal":                false,
		"https://orders.internal:port/":           false,
	} {
		t.Run(head(s), func(t *testing.T) {
			want := oauth.InvalidTarget
			if ok {
				want = ""
			}
			resource, err := oauth.ParseResource(s)
			expectCode(t, err, want)
			if err == nil && resource.String() != s {
				t.Errorf("got %q", resource)
			}
		})
	}
}

func TestParseIssuer(t *testing.T) {
	for s, ok := range map[string]bool{
		"https://auth.example.com":           true,
		"https://auth.example.com/tenant":    true,
		"https://auth.example.com:8443":      true,
		"http://localhost:8080":              true,
		"http://127.0.0.1:8080":              true,
		"http://127.1.2.3":                   true,
		"http://[::1]:8080":                  true,
		"":                                   false,
		"auth.example.com":                   false,
		"https://":                           false,
		"https:///path":                      false,
		"http://auth.example.com":            false,
		"http://localhost.example.com":       false,
		"http://127.0.0.1.example.com":       false,
		"http://0.0.0.0":                     false,
		"http://localhost@evil.example":      false,
		"ftp://localhost":                    false,
		"https://auth.example.com/":          false,
		"https://auth.example.com/tenant/":   false,
		"https://auth.example.com/a/b-c/~d":  true,
		"https://auth.example.com/a%20b":     true,
		"https://auth.example.com/%74enant":  false,
		"https://auth.example.com/a%2fb":     false,
		"https://auth.example.com/a%2Fb":     false,
		"https://auth.example.com/a%5cb":     false,
		"https://auth.example.com/a%00b":     false,
		"https://auth.example.com/a%25b":     false,
		"https://auth.example.com/%C3%A9":    true,
		"https://auth.example.com/%c3%a9":    false,
		"https://auth.example.com/%C3":       false,
		"https://auth.example.com/%C2%A0":    false,
		"https://auth.example.com/%C2%85":    false,
		"https://auth.example.com/%0A":       false,
		"https://auth.example.com/%5C":       false,
		"https://auth.example.com/a%2F..":    false,
		"https://auth.example.com/a%3Fb":     false,
		"https://auth.example.com/a%23b":     false,
		"https://auth.example.com/a%21b":     false,
		"https://auth.example.com/a%22b":     true,
		"https://auth.example.com/%7Ba%7D":   true,
		"https://auth.example.com/a%zz":      false,
		"https://auth.example.com/[a]":       false,
		"https://auth.example.com/a|b^c":     false,
		"https://auth.example.com/a;b=c,d":   true,
		"https://auth.example.com/@a:b!(c)'": true,
		"https://auth.example.com:1/a":       true,
		"https://auth.example.com:65535":     true,
		"https://auth.example.com:65536":     false,
		"https://auth.example.com:99999/a":   false,
		"https://auth.example.com:0":         false,
		"https://auth.example.com:0443":      false,
		"https://auth.example.com:":          false,
		"https://auth.example.com:/a":        false,
		"https://[::1]:":                     false,
		"https://[::1]:0":                    false,
		"https://[2001:db8::1]:8443/a":       true,
		"https://[fe80::1%25eth0]":           false,
		"https://[fe80::1%eth0]":             false,
		"https://[192.0.2.1]":                false,
		"https://[auth.example.com]":         false,
		"https://[]":                         false,
		"https://::1":                        false,
		"https://192.0.2.1":                  true,
		"https://my_auth.example.com":        true,
		"https://Auth-1.example.com":         true,
		`https://auth"example.com`:           false,
		"https://auth<example>.com":          false,
		"https://auth,example.com":           false,
		"https://auth;example.com":           false,
		"https://$auth.example.com":          false,
		"https://auth*.example.com":          false,
		"https://auth%2eexample.com":         false,
		"https://%C3%A9.example.com":         false,
		"https://auth%22example.com":         false,
		"https://auth.example.com//a":        false,
		"https://auth.example.com/a//b":      false,
		"https://auth.example.com/./a":       false,
		"https://auth.example.com/a/..":      false,
		"https://auth.example.com/a/%2E%2e":  false,
		`https://auth.example.com/a\b`:       false,
		`https://auth.example.com/a"b`:       false,
		"https://auth.example.com/{tenant}":  false,
		"https://auth.example.com?":          false,
		"https://auth.example.com?a=b":       false,
		"https://auth.example.com#":          false,
		"https://auth.example.com#a":         false,
		"https://user@auth.example.com":      false,
		"https://auth.example.com/a b":       false,
		"https://auth.example.com/\r\n":      false,
		"https://" + long(oauth.MaxResource): false,
		"https://:8443":                      false,
	} {
		t.Run(head(s), func(t *testing.T) {
			issuer, err := oauth.ParseIssuer(s)
			if (err == nil) != ok {
				t.Errorf("got %v, want ok %v", err, ok)
			}
			if err == nil && issuer.String() != s {
				t.Errorf("got %q", issuer)
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.255.255.254": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "LOCALHOST.": false, "10.0.0.1": false, "0.0.0.0": false, "::": false, "128.0.0.1": false, "localhost.example": false,
	} {
		if got := oauth.Loopback(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}

func TestSecureURL(t *testing.T) {
	for raw, ok := range map[string]bool{
		"https://auth.example.com/keys": true, "http://localhost/keys": true, "http://[::1]:1/keys": true,
		"http://auth.example.com/keys": false, "file:///keys": false, "https:///keys": false, "": false, "keys": false,
		"http://localhost@evil.example/": false, "https://%zz": false, "https://:8443": false,
	} {
		if err := oauth.SecureURL(raw); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", raw, err, ok)
		}
	}
}

func FuzzParseClientID(f *testing.F) {
	for _, s := range []string{"billing", "", "a b", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := oauth.ParseClientID(s)
		if err == nil && (id.String() != s || len(s) == 0 || len(s) > oauth.MaxID || strings.ContainsAny(s, " \t\r\n\x00\x7f")) {
			t.Errorf("%q passes as %q", s, id)
		}
	})
}

func FuzzParseResource(f *testing.F) {
	for _, s := range []string{"https://orders.internal", "urn:a:b", "", "//a", "a:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		resource, err := oauth.ParseResource(s)
		if err != nil {
			return
		}
		u, err := url.Parse(resource.String())
		if err != nil || !u.IsAbs() || resource.String() != s || strings.ContainsAny(s, "# \t\r\n") {
			t.Errorf("%q passes", s)
		}
	})
}

func FuzzParseIssuer(f *testing.F) {
	for _, s := range []string{"https://auth.example.com", "http://localhost:8080", "http://a@localhost", "https://a/", "https://a:0/%2f", "https://[::1%25a]:1/b", `https://a"b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		issuer, err := oauth.ParseIssuer(s)
		if err != nil {
			return
		}
		if oauth.SecureURL(s) != nil || issuer.String() != s || strings.ContainsAny(s, "?# \t\r\n") {
			t.Errorf("%q passes", s)
		}
		// An appended path makes an endpoint on the same host.
		whole, part := must.Get(url.Parse(s+"/connect/token")), must.Get(url.Parse(s))
		if whole.Host != part.Host || whole.User != nil || whole.RawQuery != "" || !strings.HasSuffix(whole.Path, "/connect/token") {
			t.Errorf("%q makes the endpoint %s", s, whole)
		}
	})
}
