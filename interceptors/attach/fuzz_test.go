package attach_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/oauth"
)

// FuzzAnswer checks that no answer of a token endpoint, at whatever URL, makes a client panic, whatever its settings.
func FuzzAnswer(f *testing.F) {
	f.Add("x", "x", 401, []byte(`{"error":"invalid_client","error_description":"Client authentication failed."}`), "audience", "a", "https://a")
	f.Add("inv", "inv", 200, []byte(`{"access_token":"a","token_type":"Bearer","expires_in":1e400}`), "scope", "", "")
	f.Add("a b", "service-secret-here", 400, []byte(`{"error":"service-secret-here","error":"`+"\xff"+`"}`), "", "b", "https://a:b@[::1")
	f.Add("\x00", "s", 200, []byte(`{"access_token":"a","token_type":"Bearer","expires_in":-1e-400,"scope":["a","b"]}`), "a\x00", "b", "https://a?b#c")
	f.Add("", "s", 204, []byte(strings.Repeat("[", 20_000)), "a", "b", "ftp://a")
	f.Add(strings.Repeat("a", 70_000), "ſ", 302, []byte("https://b"), "a", "client_secret_post", "HTTPS://a:65536/%zz")
	f.Add("a", "s", -1, []byte(`{"access_token":"a","token_type":"Bearer"}`), "client_assertion", "client_secret_basic", "http://localhost/\r\n")
	f.Fuzz(func(t *testing.T, id, secret string, code int, body []byte, name, value, endpoint string) {
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: code, Header: http.Header{"Location": {string(body)}}, Body: io.NopCloser(bytes.NewReader(body)),
				Request: r}, nil
		})
		source := attach.ClientCredentials(endpoint, id, secret, attach.TokenURL(endpoint), attach.Scopes(name, value), attach.Resources(value),
			attach.HTTPClient(&http.Client{Transport: transport}), attach.Parameter(name, value), attach.AuthMethod(value),
			attach.Telemetry(nil, nil))
		for range 2 {
			// The limit is for answers after which the request is retried.
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			token, err := source.TokenContext(ctx)
			cancel()
			var failure *attach.Error
			if err != nil && !errors.As(err, &failure) || err == nil && token.AccessToken == "" {
				t.Errorf("got %v, %v, want a token or an *attach.Error", token, err)
			}
			if err != nil && status.Code(err) == codes.OK {
				t.Errorf("%v has the code OK", err)
			}
		}
	})
}

// FuzzRefusal refuses any secret with any texts: known codes stay, and no secret that is distinct is shown.
func FuzzRefusal(f *testing.F) {
	f.Add("invalid_client", "Client authentication failed.", "x")
	f.Add("inv", "got Basic YTppbnY=", "inv")
	f.Add("invalid_client", "not service-secret-here", "service-secret-here")
	f.Fuzz(func(t *testing.T, code, description, secret string) {
		e := attach.Refusal(code, description, secret)
		if code == string(oauth.InvalidClient) && e.Code != oauth.InvalidClient {
			t.Errorf("got code %q", e.Code)
		}
		if len(e.Description) > 256 || len(e.Code) > 256 {
			t.Errorf("got texts of %d and %d bytes", len(e.Code), len(e.Description))
		}
		if len(secret) >= 20 && strings.Contains(e.Description, secret) {
			t.Errorf("%q is in %q", secret, e.Description)
		}
		if secret != "" && strings.TrimSpace(secret) == secret && description == secret && e.Description == secret {
			t.Errorf("%q is shown as a whole", secret)
		}
	})
}

// FuzzAuthMethods checks that no list of methods in the metadata, and no answer to the chosen method, makes a client panic or send a
// third request.
func FuzzAuthMethods(f *testing.F) {
	f.Add([]byte(`["client_secret_post",null]`), "", `{"error":"invalid_client"}`)
	f.Add([]byte(`{"a":[1e999]}`), "client_secret_basic", `{"access_token":"a","token_type":"bEARER"}`)
	f.Add([]byte(`["client_secret_basic","client_secret_post"]`), "", `{"error":"invalid_client","error":""}`)
	f.Add([]byte(`"client_secret_post"`), "private_key_jwt", `null`)
	f.Fuzz(func(t *testing.T, list []byte, method, answer string) {
		if !json.Valid(list) {
			return
		}
		const issuer = "https://auth.example.com"
		document := fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q,"token_endpoint_auth_methods_supported":%s}`, issuer, issuer+"/t", list)
		var found oauth.Metadata
		if err := json.Unmarshal([]byte(document), &found); err != nil || found.TokenEndpoint != issuer+"/t" {
			t.Errorf("got %v, %v", found, err)
		}
		requests := 0
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			text := document
			if r.Method == http.MethodPost {
				requests++
				text = answer
			}
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
		})
		source := attach.ClientCredentials(issuer, "a", "s3cret", attach.HTTPClient(&http.Client{Transport: transport}), attach.AuthMethod(method))
		token, err := source.Token()
		if (err == nil) != (token != nil) || requests > 2 {
			t.Errorf("got %v, %v after %d requests", token, err, requests)
		}
	})
}
