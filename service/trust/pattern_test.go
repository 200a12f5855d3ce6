package trust_test

import (
	"maps"
	"testing"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/trust"
)

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          trust.Captures // nil for no match
	}{
		{"a", "a", trust.Captures{}},
		{"a", "b", nil},
		{"a", "ab", nil},
		{"a", "a/", nil},
		{"a/", "a/", trust.Captures{}},
		{"a/b", "a:b", nil},
		{"*", "a", trust.Captures{}},
		{"*", "a/b", nil},
		{"*", "", nil},
		{"{x}", "a", trust.Captures{"x": "a"}},
		{"{x}", "a:b", nil},
		{"{x}/", "a/", trust.Captures{"x": "a"}},
		{"{x}/{y}", "a/b", trust.Captures{"x": "a", "y": "b"}},
		{"{x}/{x}", "a/a", trust.Captures{"x": "a"}},
		{"{x}/{x}", "a/b", nil},
		{"{x}/{y}", "a/", nil},
		{"system:serviceaccount:{ns}:{name}", "system:serviceaccount:shop:orders", trust.Captures{"ns": "shop", "name": "orders"}},
		{"system:serviceaccount:{ns}:{name}", "system:serviceaccount:shop:orders:x", nil},
		{"repo:acme/*:ref:refs/heads/main", "repo:acme/orders:ref:refs/heads/main", trust.Captures{}},
		{"repo:acme/*:ref:refs/heads/main", "repo:acme/orders:ref:refs/heads/main/x", nil},
		{"spiffe://prod.example.com/{ns}/{name}", "spiffe://prod.example.com/shop/orders", trust.Captures{"ns": "shop", "name": "orders"}},
		{"spiffe://prod.example.com/{name}", "spiffe://prod.example.com.evil.com/orders", nil},
	} {
		captures := make(trust.Captures)
		ok := must.Get(trust.ParsePattern(test.pattern)).Match(test.text, captures)
		if ok != (test.want != nil) || ok && !maps.Equal(captures, test.want) {
			t.Errorf("%q with %q: got %t, %v, want %v", test.pattern, test.text, ok, captures, test.want)
		}
	}
	if (trust.Pattern{}).Match("", make(trust.Captures)) {
		t.Error("the zero pattern matches")
	}
}
