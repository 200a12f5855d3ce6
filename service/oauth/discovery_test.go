package oauth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/oauth"
)

func TestRedactURL(t *testing.T) {
	const hidden = "(not shown, as it may contain a secret)"
	for raw, want := range map[string]string{
		"https://auth.example.com":                        "https://auth.example.com",
		"HTTPS://auth.example.com/a%2Fb/":                 "HTTPS://auth.example.com/a%2Fb/",
		"https://a:s3cret@auth.example.com/a%2Fb":         "https://auth.example.com/a%2Fb",
		"https://s3cret@auth.example.com:8080":            "https://auth.example.com:8080",
		"https://auth.example.com/keys?token=s3cret":      "https://auth.example.com/keys",
		"https://auth.example.com/keys#s3cret":            "https://auth.example.com/keys",
		"https://a:b@auth.example.com/@/?x=s3cret#s3cret": "https://auth.example.com/@/",
		"//a:s3cret@auth.example.com":                     "//auth.example.com",
		"grantor.auth.svc":                                "grantor.auth.svc",
		"":                                                "",
		"a:s3cret@auth.example.com":                       hidden,
		"https:a:s3cret@auth.example.com":                 hidden,
		"https://a:s3/cret@auth.example.com":              hidden,
		"https://a:s3?cret@auth.example.com":              hidden,
		"https://a:%zzs3cret@auth.example.com":            hidden,
		"https://a:s3 cret@auth.example.com\x00":          hidden,
		"/keys?token=s3cret":                              hidden,
	} {
		if got := oauth.RedactURL(raw); got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
}

// TestURLsInErrors checks that no error shows the userinfo or the query of a URL, for each way in which a request fails.
func TestURLsInErrors(t *testing.T) {
	answer := func(status int, body string, header http.Header) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Body: io.NopCloser(strings.NewReader(body)), Header: header, Request: r}, nil
		}
	}
	const secret = "https://a:s3cret@auth.example.com/x?token=s3cret#s3cret"
	for name, respond := range map[string]func(*http.Request) (*http.Response, error){
		"unreachable":     func(*http.Request) (*http.Response, error) { return nil, errors.New("down") },
		"status":          answer(http.StatusNotFound, "", nil),
		"too long":        answer(http.StatusOK, strings.Repeat("x", 300<<10), nil),
		"not JSON":        answer(http.StatusOK, "x", nil),
		"other issuer":    answer(http.StatusOK, `{"issuer":"`+strings.Replace(secret, "/x", "/y", 1)+`"}`, nil),
		"insecure":        answer(http.StatusOK, `{"issuer":"`+secret+`","jwks_uri":"`+strings.Replace(secret, "https", "http", 1)+`"}`, nil),
		"malformed":       answer(http.StatusOK, `{"issuer":"`+secret+`","jwks_uri":"https://a:%zzs3cret@auth.example.com"}`, nil),
		"redirect":        answer(http.StatusFound, "", http.Header{"Location": {strings.Replace(secret, "https", "http", 1)}}),
		"redirects":       answer(http.StatusFound, "", http.Header{"Location": {secret}}),
		"redirect to ftp": answer(http.StatusFound, "", http.Header{"Location": {strings.Replace(secret, "https", "ftp", 1)}}),
	} {
		client := &http.Client{Transport: transport(respond)}
		for _, plaintext := range []bool{false, true} {
			d := oauth.Discovery{Client: client, AllowPlaintext: plaintext}
			_, metadata := d.Metadata(t.Context(), secret)
			_, _, get := d.Get(t.Context(), secret, 100<<10)
			_, _, malformed := d.Get(t.Context(), "https://a:%zzs3cret@auth.example.com", 1)
			for call, err := range map[string]error{"Metadata": metadata, "Get": get, "malformed": malformed} {
				allowed := plaintext && name == "insecure" || call == "Get" && (name == "not JSON" || name == "other issuer" || name == "insecure" || name == "malformed")
				if err == nil && !allowed || strings.Contains(fmt.Sprint(err), "s3cret") {
					t.Errorf("%s, %s, plaintext %v: got %v", name, call, plaintext, err)
				}
			}
		}
	}
	for _, bad := range []string{
		"http://a:s3cret@auth.example.com", "ftp://auth.example.com/?s3cret", "a:s3cret@auth.example.com", "https://a:s3/cret@auth.example.com", "https:///?s3cret",
	} {
		for _, d := range []oauth.Discovery{{}, {AllowPlaintext: true}} {
			if err := d.Secure(bad); err == nil && !(d.AllowPlaintext && strings.HasPrefix(bad, "http:")) || strings.Contains(fmt.Sprint(err), "s3cret") {
				t.Errorf("%q: got %v", bad, err)
			}
		}
	}
}

// TestFrom checks where endpoints of an issuer are reached that is reached elsewhere.
func TestFrom(t *testing.T) {
	for _, test := range []struct{ issuer, from, endpoint, want string }{
		{"https://auth.example.com", "https://inside:8080", "https://auth.example.com/keys", "https://inside:8080/keys"},
		{"https://auth.example.com/a", "https://inside/b/", "https://auth.example.com/a/keys", "https://inside/b/keys"},
		{"https://auth.example.com/a", "https://inside/b", "https://auth.example.com/keys", "https://inside/keys"},
		{"https://auth.example.com", "https://inside", "https://AUTH.example.com:443/keys", "https://inside/keys"},
		{"https://auth.example.com:443", "https://inside", "https://auth.example.com/keys?a=b", "https://inside/keys?a=b"},
		{"https://auth.example.com", "https://inside", "https://auth.example.com:8443/keys", "https://auth.example.com:8443/keys"},
		{"https://auth.example.com", "https://inside", "https://keys.example.com/keys", "https://keys.example.com/keys"},
		{"https://auth.example.com", "https://inside", "https://auth.example.com.evil.example/keys", "https://auth.example.com.evil.example/keys"},
		{"https://auth\u017f.example.com", "https://inside", "https://auths.example.com/keys", "https://auths.example.com/keys"},
		{"http://localhost", "http://127.0.0.1:8080", "http://localhost:80/keys", "http://127.0.0.1:8080/keys"},
	} {
		client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			document := fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, test.issuer, test.endpoint)
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(document)), Request: r}, nil
		})}
		found, err := oauth.Discovery{Client: client, From: test.from}.Metadata(t.Context(), test.issuer)
		if err != nil || found.JWKSURI != test.want {
			t.Errorf("%+v: got %v, %v", test, found, err)
		}
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzMetadata reads any metadata of an issuer.
func FuzzMetadata(f *testing.F) {
	const issuer = "https://auth.example.com"
	f.Add([]byte(`{"issuer":"https://auth.example.com","jwks_uri":"https://auth.example.com/keys"}`), "https://inside")
	f.Add([]byte(`{"issuer":"https://auth.example.com","issuer":"https://b","token_endpoint":"http://auth.example.com/t"}`), "")
	f.Add([]byte(`{"issuer":"https://auth.example.com","jwks_uri":1,"grantor_grpc_endpoint":["a"]}`), "http://[::1")
	f.Add([]byte(`{"issuer":"https://auth.example.com","grantor_grpc_endpoint":"auth.example.com:1","jwks_uri":"https://AUTH.example.com?a"}`), "https://a/b")
	f.Add([]byte(strings.Repeat(`{"issuer":`, 20_000)), "https://inside")
	f.Fuzz(func(t *testing.T, document []byte, from string) {
		client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(document))), Request: r}, nil
		})}
		found, err := oauth.Discovery{Client: client, From: from}.Metadata(t.Context(), issuer)
		if err != nil {
			return
		}
		if found.Issuer != issuer {
			t.Errorf("got the issuer %q", found.Issuer)
		}
		for _, endpoint := range []string{found.TokenEndpoint, found.IntrospectionEndpoint, found.RevocationEndpoint, found.JWKSURI} {
			if endpoint != "" && oauth.SecureURL(endpoint) != nil {
				t.Errorf("got the insecure endpoint %q", endpoint)
			}
		}
	})
}
