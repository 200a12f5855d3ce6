package guard_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
)

// rule returns the rule of a route in a test.
func rule(text string) verify.Rule {
	switch text {
	case "public":
		return verify.Public()
	case "authenticated":
		return verify.Authenticated()
	}
	return verify.Scopes(strings.Fields(text)...)
}

// route returns a route from "METHOD,METHOD host/path !exception → rule @resource", where all but the path and the rule may
// be missing.
func route(text string) guard.Route {
	r := guard.Route{Source: text}
	match, effect, _ := strings.Cut(text, " → ")
	effect, r.Resource, _ = strings.Cut(effect, " @")
	r.Rule = rule(effect)
	for _, word := range strings.Fields(match) {
		exception, isException := strings.CutPrefix(word, "!")
		switch {
		case isException:
			r.Except = append(r.Except, exception)
		case strings.Contains(word, "/"):
			slash := strings.IndexByte(word, '/')
			r.Host, r.Path = word[:slash], word[slash:]
		default:
			r.Methods = strings.Split(word, ",")
		}
	}
	return r
}

func routes(texts ...string) []guard.Route {
	var all []guard.Route
	for _, text := range texts {
		all = append(all, route(text))
	}
	return all
}

// TestFind looks up requests. The source of each route is its text; want is a prefix of that, or the reason of a refusal.
func TestFind(t *testing.T) {
	table := must.Get(guard.NewTable(routes(
		"GET orders.example.com/orders/{id} !/orders/export → orders.read",
		"GET orders.example.com/orders/export → orders.export",
		"POST,PUT orders.example.com/orders/{id} → orders.write",
		"GET orders.example.com/ → public",
		"orders.example.com/files/{name...} !/files/secret/{rest...} → files",
		"orders.example.com/files/secret/{rest...} → secret",
		"orders.example.com/users/{id} !/users/@me → users",
		"orders.example.com/users/@me → authenticated",
		"GET *.example.org/a → public",
		"GET deep.example.org/b → public",
		"GET *.deep.example.org/b → deep",
		"POST /orders.v1.Orders/Get → orders.read",
		"/any/{a}/{b} → any",
		"/any/x/{b}/c → any3",
		"OPTIONS /preflight → public",
		"GET [::1]/v6 → public",
	)))
	tests := []struct{ method, host, path, want string }{
		{"GET", "orders.example.com", "/orders/7", "GET orders.example.com/orders/{id}"},
		{"HEAD", "orders.example.com", "/orders/7", "GET orders.example.com/orders/{id}"},
		{"GET", "ORDERS.example.com.:8443", "/orders/7/?x=y", "GET orders.example.com/orders/{id}"},
		{"GET", "orders.example.com", "/%6frders/export", "GET orders.example.com/orders/export"},
		{"GET", "orders.example.com", "/orders/export/", "GET orders.example.com/orders/export"},
		{"HEAD", "orders.example.com", "/orders/expor%74", "GET orders.example.com/orders/export"},
		{"GET", "orders.example.com", "/orders/Export", "no rule"},
		{"PUT", "orders.example.com", "/orders/export", "POST,PUT"},
		{"GET", "orders.example.com", "/orders", "no rule"},
		{"GET", "orders.example.com", "/orders/7/items", "no rule"},
		{"DELETE", "orders.example.com", "/orders/7", "no rule"},
		{"get", "orders.example.com", "/orders/7", "no rule"},
		{"GET", "other.example.com", "/orders/7", "no rule"},
		{"GET", "orders.example.com.evil.test", "/orders/7", "no rule"},
		{"GET", "orders.example.com", "/", "GET orders.example.com/ "},
		{"GET", "orders.example.com", "/?x", "GET orders.example.com/ "},
		{"GET", "orders.example.com", "/x", "no rule"},
		{"PATCH", "orders.example.com", "/files", "orders.example.com/files/{name...}"},
		{"PATCH", "orders.example.com", "/files/a/b/c", "orders.example.com/files/{name...}"},
		{"PATCH", "orders.example.com", "/files/secret", "orders.example.com/files/secret"},
		{"PATCH", "orders.example.com", "/files/secret/a", "orders.example.com/files/secret"},
		{"PATCH", "orders.example.com", "/files/secrets", "orders.example.com/files/{name...}"},
		{"PATCH", "orders.example.com", "/files/secret%2fa", "escaped slash"},
		{"PATCH", "orders.example.com", "/files/./secret", "dot segment"},
		{"PATCH", "orders.example.com", "/files//secret", "empty segment"},
		{"GET", "orders.example.com", "/users/@me", "orders.example.com/users/@me"},
		{"GET", "orders.example.com", "/users/%40me", "another path to some servers"},
		{"GET", "orders.example.com", "/users/%40you", "orders.example.com/users/{id}"},
		{"GET", "orders.example.com", "/users/you%40example.com", "orders.example.com/users/{id}"},
		{"GET", "orders.example.com", "/users/a%20b", "orders.example.com/users/{id}"},
		{"GET", "orders.example.com", "/nothing/%40me", "no rule"},
		{"GET", "x.example.org", "/a", "GET *.example.org/a"},
		{"GET", "x.y.z.example.org", "/a", "GET *.example.org/a"},
		{"GET", "example.org", "/a", "no rule"},
		{"GET", "xexample.org", "/a", "no rule"},
		{"GET", "deep.example.org", "/a", "GET *.example.org/a"},
		{"GET", "deep.example.org", "/b", "GET deep.example.org/b"},
		{"GET", "very.deep.example.org", "/b", "GET *.deep.example.org/b"},
		{"GET", "very.deep.example.org", "/a", "GET *.example.org/a"},
		{"POST", "10.0.0.1:50051", "/orders.v1.Orders/Get", "POST /orders.v1.Orders/Get"},
		{"GET", "10.0.0.1:50051", "/orders.v1.Orders/Get", "no rule"},
		{"POST", "10.0.0.1:50051", "/orders.v1.Orders/get", "no rule"},
		{"GET", "h", "/any/x/y", "/any/{a}/{b}"},
		{"GET", "h", "/any/x/y/c", "/any/x/{b}/c"},
		{"GET", "h", "/any/x/y/d", "no rule"},
		{"OPTIONS", "h", "/preflight", "OPTIONS /preflight"},
		{"OPTIONS", "h", "*", "does not begin with a slash"},
		{"GET", "[0:0::1]:80", "/v6", "GET [::1]/v6"},
		{"GET", "", "/preflight", "no host"},
		{"", "h", "/preflight", "no method"},
		{"GET ", "h", "/preflight", "malformed one"},
		{strings.Repeat("A", 33), "h", "/preflight", "malformed one"},
		{"GET", "h:port", "/preflight", "malformed one"},
	}
	for _, test := range tests {
		name := fmt.Sprintf("%s %s%s", test.method, test.host, test.path)
		found, err := table.Find(test.method, test.host, test.path)
		var got string
		switch {
		case errors.Is(err, verify.ErrNoRule):
			got = "no rule"
		case err != nil:
			got = err.Error()
		default:
			got = found.Source
		}
		matches := strings.HasPrefix(got, test.want) || err != nil && strings.Contains(got, test.want)
		if !matches || (err == nil) != (found != nil) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
	if got := table.Len(); got != 16 {
		t.Errorf("Len: got %d, want 16", got)
	}
}

// TestNoTable checks that a table without routes, and a nil table, have no route of a request.
func TestNoTable(t *testing.T) {
	for _, table := range []*guard.Table{nil, new(guard.Table), must.Get(guard.NewTable(nil))} {
		if found, err := table.Find("GET", "example.com", "/"); found != nil || !errors.Is(err, verify.ErrNoRule) || table.Len() != 0 {
			t.Errorf("got %v, %v, %d routes, want ErrNoRule", found, err, table.Len())
		}
	}
}

// TestOverlaps compares two routes. want is a part of the error, or empty if the routes agree.
func TestOverlaps(t *testing.T) {
	tests := []struct{ a, b, want string }{
		{"/a → x", "/b → y", ""},
		{"/a → x", "/a → x", ""},
		{"/a → x y", "/a → y x", ""},
		{"/a → x", "/a → y", "disagree about GET /a: scopes x, but scopes y"},
		{"/a → public", "/a/ → authenticated", "GET /a: public, but authenticated"},
		{"/a → x @https://a.test", "/a → x @https://b.test", `GET /a: scopes x for "https://a.test", but scopes x for "https://b.test"`},
		{"/a → x @https://a.test", "/a → x", "GET /a"},
		{"/a → public", "/A → x", ""},
		{"/a/{id} → x", "/a/b → y", "GET /a/b"},
		{"/a/{id} !/a/b → x", "/a/b → y", ""},
		{"/a/{id} !/a/b → x", "/a/{name} !/a/b → y", "GET /a/"},
		{"/a/{id} → x", "/{name}/b → y", "GET /a/b"},
		{"/a/{id} !/a/b → x", "/{name}/b → y", ""},
		{"/a/{id} → x", "/{name}/{id} → y", "GET /a/id"},
		{"/a/{id} !/a/id !/a/id2 → x", "/a/{id} → y", "GET /a/id3"},
		{"/a/{id} → x", "/a → y", ""},
		{"/a/{rest...} → x", "/a → y", "GET /a"},
		{"/a/{rest...} !/a → x", "/a → y", ""},
		{"/a/{rest...} !/a → x", "/a/{id} → y", "GET /a/id"},
		{"/{rest...} → x", "/a/b/c → y", "GET /a/b/c"},
		{"/{rest...} !/a/{rest...} → x", "/a/b/{rest...} → y", ""},
		{"/{rest...} !/a → x", "/a/b/{rest...} → y", "GET /a/b"},
		{"/{rest...} → x", "/ → y", "GET /"},
		{"/{rest...} !/ → x", "/ → y", ""},
		{"/{a...} !/ !/{b} !/{b}/{c} → x", "/{b...} → y", "GET /b/b/b"},
		{"/{a...} !/ !/{b} !/{b}/{c...} → x", "/{b...} → y", ""},
		{"/{a...} !/a/{rest...} → x", "/{b...} !/b/{rest...} → y", "GET /"},
		{"/x/{a...} !/x !/x/a/{rest...} → x", "/x/{a...} !/x/a2/{rest...} → y", "GET /x/a3"},
		{"GET /a → x", "POST /a → y", ""},
		{"GET /a → x", "HEAD /a → y", "HEAD /a"},
		{"GET /a → x", "HEAD /a → x", ""},
		{"POST,PUT /a → x", "PUT,PATCH /a → y", "PUT /a"},
		{"DELETE /a → x", "/a → y", "DELETE /a"},
		{"a.test/a → x", "b.test/a → y", ""},
		{"a.test/a → x", "A.TEST./a → y", "GET https://a.test/a"},
		{"a.test/a → x", "/a → y", "GET https://a.test/a"},
		{"*.a.test/a → x", "a.test/a → y", ""},
		{"*.a.test/a → x", "b.a.test/a → y", "GET https://b.a.test/a"},
		{"*.a.test/a → x", "*.b.a.test/a → y", "GET https://www.b.a.test/a"},
		{"*.a.test/a → x", "*.b.test/a → y", ""},
		{"*.a.test/a → x", "/a → y", "GET https://www.a.test/a"},
		{"c.b.a.test/{x} → x", "*.a.test/{y} → y", "GET https://c.b.a.test/x"},
	}
	for _, test := range tests {
		for _, pair := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			_, err := guard.NewTable(routes(pair[:]...))
			switch {
			case test.want == "" && err != nil:
				t.Errorf("%q: got the error %v", pair, err)
			case test.want == "":
			case err == nil:
				t.Errorf("%q: got no error, want %q", pair, test.want)
			case !strings.Contains(err.Error(), pair[0]+" and "+pair[1]+" disagree about "):
				t.Errorf("%q: got %v, want the sources in order", pair, err)
			case pair[0] == test.a && !strings.Contains(err.Error(), test.want):
				t.Errorf("%q: got %v, want %q", pair, err, test.want)
			}
		}
	}
}

// TestManyOverlaps checks that the error lists several pairs, and not all.
func TestManyOverlaps(t *testing.T) {
	all := []guard.Route{{Path: "/{rest...}", Rule: verify.Public(), Source: "everything"}}
	for i := range 100 {
		all = append(all, guard.Route{Path: fmt.Sprintf("/%d", i), Rule: verify.Authenticated(), Source: fmt.Sprintf("route %d", i)})
	}
	_, err := guard.NewTable(all)
	if err == nil || strings.Count(err.Error(), "everything and route") != 10 {
		t.Errorf("got %v, want 10 pairs", err)
	}
}

// TestOverlapsExact compares random routes over few segments with what an enumeration of paths finds, both the overlaps and
// the routes of requests.
func TestOverlapsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	words := []string{"a", "b", "A", "{x}", "{y}"}
	template := func() string {
		var b strings.Builder
		for i := range random.IntN(4) {
			word := words[random.IntN(len(words))]
			if word[0] == '{' {
				word = fmt.Sprintf("{%c%d}", word[1], i)
			}
			b.WriteString("/" + word)
		}
		if random.IntN(3) == 0 {
			b.WriteString("/{rest...}")
		}
		if b.Len() == 0 {
			return "/"
		}
		return b.String()
	}
	paths := []string{"/"}
	last := []string{""}
	for range 4 {
		var next []string
		for _, p := range last {
			for _, s := range []string{"a", "b", "A", "z"} {
				next = append(next, p+"/"+s)
			}
		}
		paths, last = append(paths, next...), next
	}
	conflicts := 0
	for range 1000 {
		var all []guard.Route
		for i := range 3 {
			r := guard.Route{Path: template(), Rule: verify.Scopes(fmt.Sprint("s", i%2)), Source: fmt.Sprint("route", i)}
			for range random.IntN(3) {
				if e := template(); matches(e, r.Path) {
					r.Except = append(r.Except, e)
				}
			}
			all = append(all, r)
		}
		disagree := slices.ContainsFunc(paths, func(path string) bool {
			return len(effects(all, path)) > 1
		})
		table, err := guard.NewTable(all)
		if disagree != (err != nil) {
			t.Fatalf("%+v: got %v, want an error: %t", all, err, disagree)
		}
		if err != nil {
			conflicts++
			continue
		}
		for _, path := range paths {
			want := effects(all, path)
			found, err := table.Find("GET", "h", path)
			if (err == nil) != (len(want) == 1) || err == nil && found.Rule.String() != want[0] {
				t.Fatalf("%+v: %s: got %v, %v, want %v", all, path, found, err, want)
			}
		}
	}
	if conflicts < 100 || conflicts > 900 {
		t.Errorf("%d of 1000 conflict, so this test checks little", conflicts)
	}
}

// effects returns the different rules of the routes that match a path.
func effects(all []guard.Route, path string) []string {
	var found []string
	for _, r := range all {
		excepted := slices.ContainsFunc(r.Except, func(e string) bool { return matchesPath(strings.ToLower(e), strings.ToLower(path)) })
		if matchesPath(r.Path, path) && !excepted && !slices.Contains(found, r.Rule.String()) {
			found = append(found, r.Rule.String())
		}
	}
	return found
}

// split returns the segments of a path or a template, and whether more may follow.
func split(path string) ([]string, bool) {
	path, rest := strings.CutSuffix(strings.Trim(path, "/"), "{rest...}")
	path = strings.Trim(path, "/")
	if path == "" {
		return nil, rest
	}
	return strings.Split(path, "/"), rest
}

// matchesPath reports whether a template matches a path.
func matchesPath(template, path string) bool {
	want, rest := split(template)
	got, _ := split(path)
	if len(got) < len(want) || len(got) > len(want) && !rest {
		return false
	}
	for i, s := range want {
		if s[0] != '{' && s != got[i] {
			return false
		}
	}
	return true
}

// matches reports whether a path matches both templates.
func matches(a, b string) bool {
	x, xRest := split(a)
	y, yRest := split(b)
	if len(x) < len(y) && !xRest || len(y) < len(x) && !yRest {
		return false
	}
	for i := range min(len(x), len(y)) {
		if x[i][0] != '{' && y[i][0] != '{' && x[i] != y[i] {
			return false
		}
	}
	return true
}

// TestRouteMistakes checks that a malformed route is named in the error.
func TestRouteMistakes(t *testing.T) {
	public := verify.Public()
	deep := strings.Repeat("/a", 33)
	tests := map[string]guard.Route{
		"does not begin with a slash":          {Path: "a", Rule: public},
		"has a query":                          {Path: "/a?b", Rule: public},
		"empty segment":                        {Path: "/a//b", Rule: public},
		"dot segment":                          {Path: "/a/../b", Rule: public},
		"semicolon":                            {Path: "/a;b", Rule: public},
		"escaped slash":                        {Path: "/a%2fb", Rule: public},
		"beyond ASCII":                         {Path: "/café", Rule: public},
		"write the character itself":           {Path: "/%40me", Rule: public},
		"is neither text nor {name}":           {Path: "/a{b}", Rule: public},
		`"{}" is neither text`:                 {Path: "/{}", Rule: public},
		`"{...}" is neither text`:              {Path: "/{...}", Rule: public},
		`"{1a}" is neither text`:               {Path: "/{1a}", Rule: public},
		`"{a-b}" is neither text`:              {Path: "/{a-b}", Rule: public},
		`"{a" is neither text`:                 {Path: "/{a", Rule: public},
		`"a}" is neither text`:                 {Path: "/a}", Rule: public},
		"{a...} is not the last segment":       {Path: "/{a...}/b", Rule: public},
		"two segments have the name a":         {Path: "/{a}/{a}", Rule: public},
		"more than 32 segments":                {Path: deep, Rule: public},
		"more than 1024 bytes":                 {Path: "/" + strings.Repeat("a", 1024), Rule: public},
		"the rule is empty":                    {Path: "/a"},
		"a rule of no scopes":                  {Path: "/a", Rule: verify.Scopes()},
		`"get" is no method in upper case`:     {Path: "/a", Rule: public, Methods: []string{"get"}},
		`"" is no method`:                      {Path: "/a", Rule: public, Methods: []string{""}},
		"more than 32 methods":                 {Path: "/a", Rule: public, Methods: make([]string, 33)},
		"or 1000 exceptions":                   {Path: "/a", Rule: public, Except: make([]string, 1001)},
		`the exception "b"`:                    {Path: "/a", Rule: public, Except: []string{"b"}},
		`the exception "/b" is no path of "/a`: {Path: "/a/{b}", Rule: public, Except: []string{"/b"}},
		`"a.test:80" is no host`:               {Path: "/a", Rule: public, Host: "a.test:80"},
		`"[::1]:80" is no host`:                {Path: "/a", Rule: public, Host: "[::1]:80"},
		`"*" is no host`:                       {Path: "/a", Rule: public, Host: "*"},
		`"*." is no host`:                      {Path: "/a", Rule: public, Host: "*."},
		`"a.*.test" is no host`:                {Path: "/a", Rule: public, Host: "a.*.test"},
		`"*.[::1]" is no host`:                 {Path: "/a", Rule: public, Host: "*.[::1]"},
		`"https://a.test" is no host`:          {Path: "/a", Rule: public, Host: "https://a.test"},
		"the resource":                         {Path: "/a", Rule: public, Resource: "no URI"},
	}
	for want, r := range tests {
		r.Source = "rules.yaml:12"
		if _, err := guard.NewTable([]guard.Route{r}); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "rules.yaml:12: ") {
			t.Errorf("%+.200v: got %v, want %q", r, err, want)
		}
	}
	if _, err := guard.NewTable([]guard.Route{{Path: "x", Rule: public}, {Path: "/{", Rule: public}}); err == nil ||
		!strings.Contains(err.Error(), `"x"`) || !strings.Contains(err.Error(), `"/{"`) {
		t.Errorf("two mistakes: got %v, want both", err)
	}
}

// TestTableBounds checks that neither many routes nor the product of their sizes takes memory or time without bound.
func TestTableBounds(t *testing.T) {
	public := verify.Public()
	for want, all := range map[string][]guard.Route{
		"more than 100000 routes": make([]guard.Route, 100_001),
		"more than 1000000 segments": slices.Repeat([]guard.Route{
			{Path: strings.Repeat("/a", 32), Rule: public, Except: slices.Repeat([]string{strings.Repeat("/a", 32)}, 100)},
		}, 1000),
		"too many routes overlap": func() (all []guard.Route) { // each half overlaps with the other, but for the methods
			for i := range 20_000 {
				all = append(all,
					guard.Route{Methods: []string{"POST"}, Path: fmt.Sprintf("/{a}/%d", i), Rule: public},
					guard.Route{Methods: []string{"PUT"}, Path: fmt.Sprintf("/%d/{b}", i), Rule: verify.Authenticated()})
			}
			return all
		}(),
		"too many routes overlap ": func() (all []guard.Route) { // the same, but for exceptions
			for i := range 3000 {
				all = append(all,
					guard.Route{Path: fmt.Sprintf("/{a}/x%d/{c...}", i), Except: []string{"/{a}/{b}/{c...}"}, Rule: public},
					guard.Route{Path: fmt.Sprintf("/y%d/{b}/{c...}", i), Rule: verify.Authenticated()})
			}
			return all
		}(),
	} {
		if _, err := guard.NewTable(all); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("got %.200v, want %q", err, want)
		}
	}
}
