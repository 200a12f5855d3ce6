package guard_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/grantorhq/grantor/interceptors/guard"
)

// TestNormalizePath checks the form of paths. An error is a part of the reason.
func TestNormalizePath(t *testing.T) {
	long := "/" + strings.Repeat("a", 8<<10-1)
	tests := []struct{ raw, want, refused string }{
		{raw: "/", want: "/"},
		{raw: "/orders", want: "/orders"},
		{raw: "/orders/", want: "/orders"},
		{raw: "/orders/7", want: "/orders/7"},
		{raw: "/Orders", want: "/Orders"},
		{raw: "/orders?id=../..//;%2f", want: "/orders"},
		{raw: "/orders/?", want: "/orders"},
		{raw: "/?", want: "/"},
		{raw: "/%6frders", want: "/orders"},
		{raw: "/%6Frders/%7e%2D%5f", want: "/orders/~-_"},
		{raw: "/caf%c3%a9", want: "/caf%C3%A9"},
		{raw: "/%e2%82%ac/%f0%9f%98%80", want: "/%E2%82%AC/%F0%9F%98%80"},
		{raw: "/%ef%bf%bd", want: "/%EF%BF%BD"},
		{raw: "/a%20b", want: "/a%20b"},
		{raw: "/a%3fb%23c", want: "/a%3Fb%23c"},
		{raw: "/me%40example.com", want: "/me%40example.com"},
		{raw: "/100%25", want: "/100%25"},
		{raw: "/100%25x1", want: "/100%25x1"},
		{raw: "/...", want: "/..."},
		{raw: "/.well-known/x", want: "/.well-known/x"},
		{raw: "/a:b@c!$&'()*+,=", want: "/a:b@c!$&'()*+,="},
		{raw: "/orders.v1.Orders/Get", want: "/orders.v1.Orders/Get"},
		{raw: long, want: long},
		{raw: long + "?" + long, want: long},

		{raw: "", refused: "slash"},
		{raw: "*", refused: "slash"},
		{raw: "orders", refused: "slash"},
		{raw: "?/orders", refused: "slash"},
		{raw: "http://h/orders", refused: "slash"},
		{raw: long + "a", refused: "8 KiB"},
		{raw: "//", refused: "empty segment"},
		{raw: "//orders", refused: "empty segment"},
		{raw: "/orders//", refused: "empty segment"},
		{raw: "/orders//7", refused: "empty segment"},
		{raw: "/.", refused: "dot segment"},
		{raw: "/..", refused: "dot segment"},
		{raw: "/./orders", refused: "dot segment"},
		{raw: "/public/../orders", refused: "dot segment"},
		{raw: "/public/..", refused: "dot segment"},
		{raw: "/public/../", refused: "dot segment"},
		{raw: "/public/%2e%2e/orders", refused: "dot segment"},
		{raw: "/public/.%2E/orders", refused: "dot segment"},
		{raw: "/public/%2e/orders", refused: "dot segment"},
		{raw: "/public%2forders", refused: "escaped slash"},
		{raw: "/public%2Forders", refused: "escaped slash"},
		{raw: "/..%2forders", refused: "escaped slash"},
		{raw: `/public\orders`, refused: "backslash"},
		{raw: "/public%5corders", refused: "backslash"},
		{raw: "/public%5Corders", refused: "backslash"},
		{raw: "/orders;v=1", refused: "semicolon"},
		{raw: "/orders%3bv=1", refused: "semicolon"},
		{raw: "/..;/orders", refused: "semicolon"},
		{raw: "/%2541", refused: "twice"},
		{raw: "/%252e%252e/orders", refused: "twice"},
		{raw: "/%25%32%65", refused: "twice"},
		{raw: "/%25%322e", refused: "twice"},
		{raw: "/100%25ff", refused: "twice"},
		{raw: "/a%25%2541", refused: "twice"},
		{raw: "/orders%00", refused: "control"},
		{raw: "/orders\x00", refused: "control"},
		{raw: "/orders\n", refused: "control"},
		{raw: "/orders%0a", refused: "control"},
		{raw: "/orders%7f", refused: "control"},
		{raw: "/orders\x7f", refused: "control"},
		{raw: "/orders%c2%85", refused: "control"},
		{raw: "/or ders", refused: "control"},
		{raw: "/orders%", refused: "malformed escape"},
		{raw: "/orders%2", refused: "malformed escape"},
		{raw: "/orders%zz", refused: "malformed escape"},
		{raw: "/orders%2%65", refused: "malformed escape"},
		{raw: "/café", refused: "beyond ASCII"},
		{raw: "/\xff", refused: "beyond ASCII"},
		{raw: "/%ff", refused: "not UTF-8"},
		{raw: "/%c0%ae%c0%ae/orders", refused: "not UTF-8"},
		{raw: "/%c0%af", refused: "not UTF-8"},
		{raw: "/%e2%82", refused: "not UTF-8"},
		{raw: "/%e2%82x", refused: "not UTF-8"},
		{raw: "/%ed%a0%80", refused: "not UTF-8"},
		{raw: "/orders#x", refused: "fragment"},
		{raw: "/public#/../orders", refused: "fragment"},
	}
	for _, test := range tests {
		got, err := guard.NormalizePath(test.raw)
		switch {
		case test.refused == "" && (err != nil || got != test.want):
			t.Errorf("%.60q: got %.60q, %v, want %.60q", test.raw, got, err, test.want)
		case test.refused != "" && (!errors.Is(err, guard.ErrAmbiguous) || !strings.Contains(err.Error(), test.refused)):
			t.Errorf("%.60q: got %.60q, %v, want the reason %q", test.raw, got, err, test.refused)
		}
	}
}

// TestNormalizeHost checks the form of hosts. An empty one is refused.
func TestNormalizeHost(t *testing.T) {
	tests := map[string]string{
		"orders.example.com":       "orders.example.com",
		"Orders.EXAMPLE.com":       "orders.example.com",
		"orders.example.com.":      "orders.example.com",
		"orders.example.com:443":   "orders.example.com",
		"ORDERS.example.com.:8443": "orders.example.com",
		"localhost":                "localhost",
		"127.0.0.1:80":             "127.0.0.1",
		"my_service":               "my_service",
		"[::1]":                    "[::1]",
		"[0:0:0:0:0:0:0:1]:8443":   "[::1]",
		"[2001:DB8::1]":            "[2001:db8::1]",
		"":                         "",
		".":                        "",
		"..":                       "",
		".example.com":             "",
		"a..example.com":           "",
		"example.com..":            "",
		"example.com:":             "",
		"example.com:x":            "",
		"example.com:123456":       "",
		"example.com:80:80":        "",
		"user@example.com":         "",
		"example.com/x":            "",
		"example.com?":             "",
		"example.com#":             "",
		"example.com, other.com":   "",
		"exa mple.com":             "",
		"example.com\x00":          "",
		"ex%61mple.com":            "",
		"bücher.example":           "",
		"[::1":                     "",
		"[::1]x":                   "",
		"[::1]:":                   "",
		"[::1%eth0]":               "",
		"[127.0.0.1]":              "",
		"::1":                      "",
		strings.Repeat("a", 256):   "",
	}
	for raw, want := range tests {
		got, err := guard.NormalizeHost(raw)
		if got != want || (want == "") != errors.Is(err, guard.ErrAmbiguous) {
			t.Errorf("%.60q: got %q, %v, want %q", raw, got, err, want)
		}
	}
}

// FuzzNormalizePath checks that the form of a path has itself as its form, and that all usual ways of reading a path that is
// not refused lead to the same segments.
func FuzzNormalizePath(f *testing.F) {
	for _, seed := range []string{
		"/orders/7?x", "/%6frders/%7e/", "/..%2f", "/%252e", "/%25%32%65", "/caf%c3%a9", "//", "/a;b", "/%c0%ae", "/me%40x", "/a#b", "/%",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := guard.NormalizePath(raw)
		if err != nil {
			if !errors.Is(err, guard.ErrAmbiguous) {
				t.Fatalf("the error %v is no ambiguity", err)
			}
			return
		}
		if again, err := guard.NormalizePath(got); err != nil || again != got {
			t.Fatalf("%q: the form of its form %q is %q, %v", raw, got, again, err)
		}
		before, _, _ := strings.Cut(raw, "?")
		decoded, err := url.PathUnescape(before)
		if err != nil || !utf8.ValidString(decoded) || strings.ContainsAny(decoded, "\\;\x00") {
			t.Fatalf("%q was accepted: %q, %v", raw, decoded, err)
		}
		if twice, err := url.PathUnescape(decoded); err == nil && twice != decoded {
			t.Fatalf("%q was accepted: %q decodes to %q", raw, decoded, twice)
		}
		segments := strings.Split(strings.TrimSuffix(decoded, "/"), "/")
		own := strings.Split(strings.TrimSuffix(got, "/"), "/")
		if len(segments) != len(own) || segments[0] != "" {
			t.Fatalf("%q was accepted: the segments %q are %q here", raw, segments, own)
		}
		for i, segment := range segments[1:] {
			if mine, err := url.PathUnescape(own[i+1]); err != nil || mine != segment || segment == "" || segment == "." || segment == ".." {
				t.Fatalf("%q was accepted: the segment %q is %q here", raw, segment, own[i+1])
			}
		}
	})
}
