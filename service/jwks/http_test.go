package jwks_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// site serves a text for each path. In the text, SELF stands for the site's own URL, and "-> URL" is a redirect.
func site(t *testing.T, pages map[string]string, header http.Header) *httptest.Server {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.EscapedPath()]
		switch to, redirect := strings.CutPrefix(page, "-> "); {
		case !ok:
			http.NotFound(w, r)
		case page == "500":
			http.Error(w, "trouble", http.StatusInternalServerError)
		case redirect:
			http.Redirect(w, r, strings.ReplaceAll(to, "SELF", server.URL), http.StatusFound)
		default:
			for name, values := range header {
				w.Header()[name] = values
			}
			_, _ = w.Write([]byte(strings.ReplaceAll(page, "SELF", server.URL)))
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestHTTP(t *testing.T) {
	k := newKey()
	keys := string(must.Get(json.Marshal(map[string]any{"keys": []jwks.JWK{must.Get(k.JWK())}})))
	const good = `{"issuer":"SELF","token_endpoint":"SELF/connect/token","jwks_uri":"SELF/keys"}`
	other := errors.New("any error")
	tests := map[string]struct {
		path  string // of the issuer
		pages map[string]string
		want  error
	}{
		"RFC 8414":           {"", map[string]string{oauth.WellKnownServer: good, "/keys": keys}, nil},
		"OpenID Connect":     {"", map[string]string{oauth.WellKnownOpenID: good, "/keys": keys}, nil},
		"path, RFC 8414":     {"/a/b", map[string]string{oauth.WellKnownServer + "/a/b": strings.Replace(good, "SELF", "SELF/a/b", 1), "/keys": keys}, nil},
		"path, OpenID":       {"/a/b", map[string]string{"/a/b" + oauth.WellKnownOpenID: strings.Replace(good, "SELF", "SELF/a/b", 1), "/keys": keys}, nil},
		"escaped path":       {"/a%2Fb", map[string]string{oauth.WellKnownServer + "/a%2Fb": strings.Replace(good, "SELF", "SELF/a%2Fb", 1), "/keys": keys}, nil},
		"trailing slash":     {"/", map[string]string{oauth.WellKnownOpenID: strings.Replace(good, "SELF", "SELF/", 1), "/keys": keys}, nil},
		"path with slash":    {"/a/", map[string]string{"/a" + oauth.WellKnownOpenID: strings.Replace(good, "SELF", "SELF/a/", 1), "/keys": keys}, nil},
		"start page first":   {"", map[string]string{oauth.WellKnownServer: "<html>", oauth.WellKnownOpenID: good, "/keys": keys}, nil},
		"other tenant first": {"/a", map[string]string{oauth.WellKnownServer + "/a": good, "/a" + oauth.WellKnownOpenID: strings.Replace(good, "SELF", "SELF/a", 1), "/keys": keys}, nil},
		"redirected":         {"", map[string]string{oauth.WellKnownServer: "-> SELF/moved", "/moved": good, "/keys": keys}, nil},

		"slash missing":         {"/", map[string]string{oauth.WellKnownOpenID: good, "/keys": keys}, oauth.ErrOtherIssuer},
		"slash too many":        {"", map[string]string{oauth.WellKnownOpenID: strings.Replace(good, "SELF", "SELF/", 1), "/keys": keys}, oauth.ErrOtherIssuer},
		"another issuer":        {"", map[string]string{oauth.WellKnownServer: strings.Replace(good, "SELF", "https://evil.example", 1), "/keys": keys}, oauth.ErrOtherIssuer},
		"no issuer":             {"", map[string]string{oauth.WellKnownServer: `{"jwks_uri":"SELF/keys"}`, "/keys": keys}, oauth.ErrOtherIssuer},
		"nothing there":         {"", nil, other},
		"trouble":               {"", map[string]string{oauth.WellKnownServer: "500"}, other},
		"oversize":              {"", map[string]string{oauth.WellKnownServer: good + strings.Repeat(" ", 256<<10), "/keys": keys}, other},
		"no jwks_uri":           {"", map[string]string{oauth.WellKnownServer: `{"issuer":"SELF"}`}, other},
		"keys without TLS":      {"", map[string]string{oauth.WellKnownServer: `{"issuer":"SELF","jwks_uri":"http://keys.example/keys"}`}, other},
		"keys from a file":      {"", map[string]string{oauth.WellKnownServer: `{"issuer":"SELF","jwks_uri":"file:///keys"}`}, other},
		"tokens without TLS":    {"", map[string]string{oauth.WellKnownServer: `{"issuer":"SELF","jwks_uri":"SELF/keys","token_endpoint":"http://auth.example/token"}`, "/keys": keys}, other},
		"redirect to plaintext": {"", map[string]string{oauth.WellKnownServer: good, "/keys": "-> http://keys.example/keys"}, other},
		"redirect loop":         {"", map[string]string{oauth.WellKnownServer: good, "/keys": "-> SELF/keys"}, other},
		"keys missing":          {"", map[string]string{oauth.WellKnownServer: good}, other},
		"keys in trouble":       {"", map[string]string{oauth.WellKnownServer: good, "/keys": "500"}, other},
		"keys oversize":         {"", map[string]string{oauth.WellKnownServer: good, "/keys": keys + strings.Repeat(" ", jwks.MaxDocument)}, other},
		"keys no JSON":          {"", map[string]string{oauth.WellKnownServer: good, "/keys": "<html>"}, other},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := site(t, test.pages, nil)
			client := server.Client()
			client.Transport = localOnly{t, client.Transport}
			set, age, err := jwks.HTTP(client, server.URL+test.path)(t.Context())
			switch {
			case test.want == nil:
				if err != nil || !set.Trusts(k) || age != 5*time.Minute {
					t.Errorf("got %v, %v, %v, want the key for 5 minutes", set, age, err)
				}
			case err == nil:
				t.Error("got no error")
			case errors.Is(test.want, oauth.ErrOtherIssuer) != errors.Is(err, oauth.ErrOtherIssuer):
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// localOnly fails a test that makes a request to another machine.
type localOnly struct {
	t    *testing.T
	next http.RoundTripper
}

func (l localOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if !oauth.Loopback(r.URL.Hostname()) {
		l.t.Errorf("a request to %s", r.URL)
		return nil, errors.New("not local")
	}
	return l.next.RoundTrip(r)
}

func TestHTTPRefusesPlainIssuer(t *testing.T) {
	client := &http.Client{Transport: localOnly{t, nil}}
	if _, _, err := jwks.HTTP(client, "http://auth.example")(t.Context()); err == nil {
		t.Error("got no error")
	}
}

func TestHTTPMaxAge(t *testing.T) {
	k := newKey()
	pages := map[string]string{
		oauth.WellKnownServer: `{"issuer":"SELF","jwks_uri":"SELF/keys"}`,
		"/keys":               string(must.Get(json.Marshal(must.Get(k.JWK())))),
	}
	const absent = 5 * time.Minute
	for header, want := range map[string]time.Duration{
		"":                             absent,
		"max-age=60":                   time.Minute,
		"public, Max-Age=3600":         time.Hour,
		"max-age=0":                    0,
		"max-age=":                     absent,
		"max-age=x":                    absent,
		"max-age=99999999999999999999": absent,
		"s-maxage=7":                   absent,
		"no-cache":                     absent,
		"public,\tmax-age=60\t":        time.Minute,
		"public,\u00a0max-age=60":      absent,
		"public,\u2003max-age=60":      absent,
	} {
		server := site(t, pages, http.Header{"Cache-Control": {header}})
		if _, age, err := jwks.HTTP(server.Client(), server.URL)(t.Context()); err != nil || age != want {
			t.Errorf("%q: got %v, %v, want %v", header, age, err, want)
		}
	}
}
