package extauthz_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/guard/extauthz"
	"github.com/grantorhq/grantor/service/must"
)

// expected maps what is decided to the requests for which a proxy that leaves them as they are asks it.
var expected = map[string][]string{
	"200 billing orders.read": {
		"an order",
		"a token in the query",
		"a header in two lines",
		"HEAD",
		"an imitation",
		"an imitation in lower case, twice",
		"an imitation in upper case",
		"an imitation with underscores",
		"an imitation with one underscore",
		"a value that is invalid UTF-8",
		"an imitation that is a hop",
		"headers of the proxy that are a hop",
		"a name that is not a token",
	},
	"200": {
		"a path in the query",
		"an absolute URI with another host",
		"a body that never comes, of a public path",
		"an imitation on a public path",
	},
	"401 invalid_token": {
		"no token",
		"a token in the query and nowhere else",
		"64 Authorization values",
		"a second token",
		"a second token in another case",
		"two tokens in one value",
		"Basic",
	},
	"403 insufficient_scope": {
		"an escaped letter",
		"a trailing slash",
		"an absolute URI",
		"an absolute URI with user information",
		"a host in mixed case",
		"a host with a trailing dot",
		"a host with a port",
		"a method in lower case",
		"/admin with X-Forwarded-Uri: /public/1, X-Forwarded-Method: GET, X-Forwarded-Host: orders.example.com, X-Forwarded-Proto: https",
		"/admin with X_Forwarded_Uri: /public/1, X_Forwarded_Method: GET",
		"/admin with X-Original-URI: /public/1, X-Original-Method: GET, X-Original-Host: orders.example.com, X-Original-Proto: https",
		"/admin with X-Original-Uri: /public/1, X-ORIGINAL-URI: /public/2",
		"/admin with X_Original_URI: /public/1",
		"/admin with X-Envoy-Original-Path: /public/1, X-Envoy-Original-Host: other.example.com",
		"/admin with Forwarded: host=other.example.com;proto=https",
	},
	"403 no_rule": {
		"an escaped letter in upper case",
		"another case",
		"a trailing dot",
		"a method that no rule names",
		"a body that never comes",
		"chunks that never come",
		"a length and chunks",
	},
	"403 ambiguous_request": {
		"an invalid escape",
		"raw UTF-8",
		"an encoded slash",
		"an encoded slash in lower case",
		"an encoded slash in an order",
		"a dot segment",
		"an encoded dot segment",
		"a half encoded dot segment",
		"a dot segment in the middle",
		"a dot segment at the end",
		"a dot segment above the root",
		"two leading slashes",
		"two slashes after a public path",
		"an empty segment",
		"matrix parameters",
		"matrix parameters of the protected path",
		"encoded matrix parameters",
		"a backslash",
		"an encoded backslash",
		"a double escape",
		"a doubly escaped slash",
		"an escaped NUL",
		"an escaped line feed",
		"an overlong slash",
		"invalid UTF-8",
		"a fragment",
		"a question mark that is escaped",
		"an asterisk",
		"a path of 9000 bytes",
		"no host",
		"X-HTTP-Method-Override",
		"X-HTTP-Method",
		"X-Method-Override",
		"X_HTTP_Method_Override",
		"X-Original-URL",
		"X-Rewrite-URL",
		"SCRIPT_NAME",
		"X-Script-Name",
		"PATH_INFO",
		"an escape that ends early",
		"two hosts",
		"two hosts in one",
		"a host with a space",
	},
}

// expectedOf maps a proxy and a request to what is decided where the proxy has made another request of it: Envoy and Traefik
// normalize paths, Caddy escapes them, and nginx drops headers with underscores. Traefik itself removes those that imitate the
// guard's, but only after it has asked. An upgrade that a proxy does not pass on is no part of what it asks about.
var expectedOf = map[string]string{
	"envoy: an upgrade to HTTP/2":                          "200",
	"nginx: an upgrade to HTTP/2":                          "200",
	"nginx: an upgrade to HTTP/2 after one to WebSocket":   "200",
	"nginx: an upgrade to HTTP/2 or WebSocket":             "200",
	"traefik: an upgrade to HTTP/2 after one to WebSocket": "200",
	"nginx: SCRIPT_NAME":                                   "200 billing orders.read",
	"nginx: PATH_INFO":                                     "200 billing orders.read",
	"envoy: a dot segment":                                 "403 insufficient_scope",
	"envoy: an encoded dot segment":                        "403 insufficient_scope",
	"envoy: a half encoded dot segment":                    "403 insufficient_scope",
	"envoy: a dot segment in the middle":                   "403 insufficient_scope",
	"envoy: a dot segment at the end":                      "403 insufficient_scope",
	"envoy: a dot segment above the root":                  "403 insufficient_scope",
	"envoy: two slashes after a public path":               "200",
	"envoy: matrix parameters":                             "403 insufficient_scope",
	"envoy: a backslash":                                   "403 insufficient_scope",
	"envoy: an escaped line feed":                          "200",
	"caddy: raw UTF-8":                                     "200",
	"envoy: a question mark that is escaped":               "403 insufficient_scope",
	"nginx: X_HTTP_Method_Override":                        "200 billing orders.read",
	"envoy: an invalid escape":                             "200",
	"envoy: an imitation that is a hop":                    "401 invalid_token",
	"traefik: a dot segment":                               "403 insufficient_scope",
	"traefik: an encoded dot segment":                      "403 insufficient_scope",
	"traefik: a half encoded dot segment":                  "403 insufficient_scope",
	"traefik: a dot segment in the middle":                 "403 insufficient_scope",
	"traefik: a dot segment at the end":                    "403 insufficient_scope",
	"traefik: a dot segment above the root":                "403 insufficient_scope",
	"traefik: two leading slashes":                         "403 insufficient_scope",
	"traefik: two slashes after a public path":             "403 insufficient_scope",
	"traefik: an empty segment":                            "403 insufficient_scope",
	"traefik: an escaped line feed":                        "200",
	"traefik: raw UTF-8":                                   "200",
	"traefik: invalid UTF-8":                               "200",
	"traefik: a question mark that is escaped":             "403 insufficient_scope",
	"traefik: an imitation with underscores":               "403 ambiguous_request",
	"traefik: an imitation with one underscore":            "403 ambiguous_request",
	"traefik: an imitation on a public path":               "403 ambiguous_request",
	"traefik: an imitation that is a hop":                  "401 invalid_token",
}

// recording is what a real proxy made of hostile requests, as testdata/README.md says.
type recording struct {
	Proxy     string     `json:"proxy"`
	Exchanges []exchange `json:"exchanges"`
}

type exchange struct {
	Name     string            `json:"name"`
	Asked    []string          `json:"asked"`
	Upstream []string          `json:"upstream"`
	Checks   []json.RawMessage `json:"checks"`
}

// TestRecordings decides about what real proxies asked when they received hostile requests, and checks that what they passed on is
// harmless if it is admitted.
func TestRecordings(t *testing.T) {
	names := make(map[string]string)
	for want, all := range expected {
		for _, name := range all {
			names[name] = want
		}
	}
	raw := newToken("orders.read")
	g := newGuard(t, newVerifier(), guard.Config{})
	server := extauthz.New(g)
	forward := func(headers guard.ForwardHeaders) http.Handler {
		return must.Get(guard.ForwardAuth(g, guard.ForwardConfig{Headers: headers, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}))
	}
	handlers := map[string]http.Handler{
		"nginx": forward(guard.XOriginal), "haproxy": forward(guard.XOriginal), "caddy": forward(guard.XForwarded), "traefik": forward(guard.XForwarded),
	}
	decided := 0
	for _, file := range must.Get(filepath.Glob("../testdata/*.json")) {
		var r recording
		must.Succeed(t, json.Unmarshal(must.Get(os.ReadFile(file)), &r))
		for _, e := range r.Exchanges {
			var got []string
			for _, c := range e.Checks {
				got = append(got, resultOf(t, must.Get(server.Check(t.Context(), readCheck(t, c, raw)))).String())
			}
			for _, a := range e.Asked {
				got = append(got, askRecorded(t, handlers[r.Proxy], strings.ReplaceAll(latin1(a), "TOKEN", raw)))
			}
			want, ok := expectedOf[r.Proxy+": "+e.Name]
			if !ok {
				want = names[e.Name]
			}
			for _, g := range got {
				decided++
				if g != want && g != unreadable {
					t.Errorf("%s: %s: got %q, want %q", r.Proxy, e.Name, g, want)
				}
			}
			if slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, "200") }) {
				checkUpstream(t, r.Proxy+": "+e.Name, e.Upstream)
			}
		}
	}
	if decided < 250 {
		t.Errorf("%d decisions, so this test checks little", decided)
	}
}

// readCheck returns a recorded question of Envoy, with the token.
func readCheck(t *testing.T, recorded json.RawMessage, raw string) *authv3.CheckRequest {
	t.Helper()
	m := new(authv3.CheckRequest)
	must.Succeed(t, protojson.Unmarshal(recorded, m))
	attributes := m.GetAttributes().GetRequest().GetHttp()
	attributes.Path = strings.ReplaceAll(attributes.GetPath(), "TOKEN", raw)
	for _, h := range attributes.GetHeaderMap().GetHeaders() {
		h.RawValue = []byte(strings.ReplaceAll(string(h.GetRawValue()), "TOKEN", raw))
	}
	for name, value := range attributes.GetHeaders() {
		attributes.Headers[name] = strings.ReplaceAll(value, "TOKEN", raw)
	}
	return m
}

// unreadable is the result of a subrequest that the HTTP server of the guard refuses by itself.
const unreadable = "400"

// askRecorded sends a recorded subrequest to a handler.
func askRecorded(t *testing.T, handler http.Handler, head string) string {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		return unreadable
	}
	r.RemoteAddr = "127.0.0.1:1"
	return forwardResult(t, handler, r).String()
}

// latin1 returns the bytes of a recorded text.
func latin1(text string) string {
	var b strings.Builder
	for _, c := range text {
		b.WriteByte(byte(c))
	}
	return b.String()
}

// checkUpstream checks that requests which the service received are none for its protected paths, however it reads them, and
// have no other headers for it than those that the authorization service of the recording had set.
func checkUpstream(t *testing.T, name string, upstream []string) {
	t.Helper()
	for _, head := range upstream {
		line, fields, _ := strings.Cut(latin1(head), "\r\n")
		target := strings.Fields(line)[1]
		target, _, _ = strings.Cut(target, "?")
		decoded, err := url.PathUnescape(target)
		if err != nil {
			t.Errorf("%s: the service received %q", name, target)
		}
		host := ""
		for field := range strings.SplitSeq(fields, "\r\n") {
			key, value, _ := strings.Cut(field, ": ")
			switch strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(key)) {
			case "host":
				host = value
			case "x-grantor-client-id":
				if value != "recorder" {
					t.Errorf("%s: the service received %q", name, field)
				}
			case "x-grantor-scopes":
				if value != "orders.read" {
					t.Errorf("%s: the service received %q", name, field)
				}
			}
		}
		clean := strings.ToLower(path.Clean(strings.ReplaceAll(decoded, `\`, "/")))
		if strings.HasPrefix(clean, "/admin") && host != "other.example.com" {
			t.Errorf("%s: the service received %q of %q", name, target, host)
		}
	}
}
