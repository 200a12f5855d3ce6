package oauth_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

func TestParseScope(t *testing.T) {
	for s, ok := range map[string]bool{
		"orders.read": true, "!": true, "~": true, "#": true, "[": true, "]": true, "https://a/b": true, long(128): true,
		"": false, " ": false, "a b": false, `a"`: false, `a\`: false, "a\t": false, "a\x7f": false, "é": false, long(129): false,
	} {
		t.Run(head(s), func(t *testing.T) {
			scope, err := oauth.ParseScope(s)
			if (err == nil) != ok {
				t.Errorf("got %v, want ok %v", err, ok)
			}
			if err == nil && scope.String() != s {
				t.Errorf("got %q", scope)
			}
			if err != nil {
				want := oauth.InvalidScope
				if s == long(129) {
					want = oauth.InvalidRequest
				}
				expectCode(t, err, want)
			}
		})
	}
}

func names(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("s%d", i)
	}
	return strings.Join(all, " ")
}

func TestParseScopes(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want string
		code oauth.Code
	}{
		"none":                   {"", "", ""},
		"blanks":                 {"   ", "", ""},
		"one":                    {"a", "a", ""},
		"in the order given":     {"b a", "b a", ""},
		"blanks between":         {"  b   a ", "b a", ""},
		"repeats":                {"a b a", "a b", ""},
		"letter case":            {"a A", "a A", ""},
		"64":                     {names(64), names(64), ""},
		"64, and repeats":        {names(64) + " s0 s1", names(64), ""},
		"65":                     {names(65), "", oauth.InvalidRequest},
		"malformed":              {`a "b"`, "", oauth.InvalidScope},
		"tab":                    {"a\tb", "", oauth.InvalidScope},
		"long":                   {long(129), "", oauth.InvalidRequest},
		"many blanks":            {strings.Repeat(" ", 64*129+1), "", oauth.InvalidRequest},
		"above the size limit":   {strings.Repeat("a ", 64*129), "", oauth.InvalidRequest},
		"at the size limit":      {strings.Repeat("a ", 64*129/2), "a", ""},
		"malformed after the 64": {names(64) + ` "`, "", oauth.InvalidScope},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := oauth.ParseScopes(test.in)
			expectCode(t, err, test.code)
			if got.String() != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestHas(t *testing.T) {
	scopes := must.Get(oauth.ParseScopes("a b"))
	for in, want := range map[string]bool{"": true, "a": true, "b a": true, "c": false, "a c": false, "A": false} {
		if got := scopes.HasAll(must.Get(oauth.ParseScopes(in))); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
	if oauth.Scopes(nil).Has(must.Get(oauth.ParseScope("a"))) || !oauth.Scopes(nil).HasAll(nil) {
		t.Error("the empty set: want Has false and HasAll(nil) true")
	}
}

func FuzzParseScopes(f *testing.F) {
	for _, s := range []string{"", "a b", "  a  a", `"`, "\\", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		scopes, err := oauth.ParseScopes(s)
		if err != nil {
			return
		}
		if len(scopes) > oauth.MaxScopes || strings.ContainsAny(scopes.String(), "\"\\\t\r\n\x7f") {
			t.Errorf("%q passes", s)
		}
		reparsed, err := oauth.ParseScopes(scopes.String())
		if err != nil || !slices.Equal(reparsed, scopes) {
			t.Errorf("%q is parsed again as %q, %v", scopes, reparsed, err)
		}
		for field := range strings.FieldsSeq(s) {
			if !slices.Contains(scopes.Strings(), field) {
				t.Errorf("%q lost %q", s, field)
			}
		}
	})
}

func TestError(t *testing.T) {
	cause := errors.New("the cause")
	for name, test := range map[string]struct {
		err  error
		code oauth.Code
		text string
	}{
		"refusal": {oauth.Refuse(oauth.InvalidScope, "No."), oauth.InvalidScope, "invalid_scope: No."},
		"with a cause": {
			oauth.Errorf(oauth.InvalidClient, "No.", "it was %w", cause), oauth.InvalidClient, "invalid_client: No.: it was the cause",
		},
		"wrapped": {fmt.Errorf("around: %w", oauth.Refuse(oauth.InvalidTarget, "No.")), oauth.InvalidTarget, "invalid_target: No."},
		"any":     {cause, oauth.ServerError, "server_error: The server failed to answer; its log says why.: the cause"},
	} {
		got := oauth.From(test.err)
		if got.Code != test.code || got.Error() != test.text {
			t.Errorf("%s: got %v, want %s", name, got, test.text)
		}
		if errors.Is(test.err, cause) != errors.Is(got, cause) {
			t.Errorf("%s: the cause is lost", name)
		}
	}
}

// The scopes in a token of another issuer have the grammar of RFC 6749 §3.3, and no limit.
func TestCollectScopes(t *testing.T) {
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("https://orders.internal/%0120d", i))
	}
	many := strings.Join(names, " ")
	if got, err := oauth.CollectScopes(append(names, append([]string{""}, names...)...)); err != nil || got.String() != many {
		t.Errorf("1,000 scopes, twice: got %d, %v", len(got), err)
	}
	if got, err := oauth.ReadScopes(many + "  " + many); err != nil || got.String() != many {
		t.Errorf("a text: got %d scopes, %v, want %d", len(got), err, len(names))
	}
	if got, err := oauth.ReadScopes("a \t"); err == nil {
		t.Errorf("a tab: got %q", got)
	}
	if got, err := oauth.CollectScopes([]string{"", "b", "", "a", "b"}); err != nil || got.String() != "b a" {
		t.Errorf("got %q, %v, want b a", got, err)
	}
	for _, bad := range []string{"a\tb", `a"b`, `a\b`, "é", "a b"} {
		if got, err := oauth.CollectScopes([]string{bad}); err == nil {
			t.Errorf("%q: got %q, want an error", bad, got)
		}
	}
}
