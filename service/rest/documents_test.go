package rest_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/rest"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestMetadata checks the metadata of the issuer (RFC 8414 §2 and §3), which is served at two paths.
func TestMetadata(t *testing.T) {
	issuer := newIssuer(t)
	var first *answer
	for _, target := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		a := send(t, issuer, request{method: http.MethodGet, target: target})
		if first == nil {
			first = a
		}
		wantSame(t, a, first)
	}
	wantDocument(t, first, "public, max-age=300")
	var got struct {
		Issuer    string   `json:"issuer"`
		Token     string   `json:"token_endpoint"`
		Keys      string   `json:"jwks_uri"`
		Scopes    []string `json:"scopes_supported"`
		Authorize string   `json:"authorization_endpoint"`
		Responses []string `json:"response_types_supported"`
		Subjects  []string `json:"subject_types_supported"`
		Signing   []string `json:"id_token_signing_alg_values_supported"`
		Grants    []string `json:"grant_types_supported"`
		Methods   []string `json:"token_endpoint_auth_methods_supported"`
		Challenge []string `json:"code_challenge_methods_supported"`
	}
	must.Succeed(t, json.Unmarshal([]byte(first.body), &got))
	if got.Issuer != issuer.URL || got.Token != issuer.URL+"/connect/token" || got.Keys != issuer.URL+"/.well-known/jwks.json" {
		t.Errorf("got %+v, want the endpoints of %s", got, issuer.URL)
	}
	// The members that OpenID Connect Discovery §3 requires, and RFC 8414 §2 too in part.
	if got.Authorize != issuer.URL+"/connect/authorize" || !slices.Equal(got.Responses, []string{"none"}) || !slices.Equal(got.Subjects, []string{"public"}) {
		t.Errorf("got the authorization endpoint %q, the response types %q and the subject types %q", got.Authorize, got.Responses, got.Subjects)
	}
	if !slices.Equal(got.Challenge, []string{"S256"}) { // clients of the Model Context Protocol require it
		t.Errorf("got the code challenge methods %q", got.Challenge)
	}
	if want := []string{"ES256", "EdDSA", "PS256", "RS256"}; !slices.Equal(got.Signing, want) {
		t.Errorf("got the algorithms %q, want those of the keys: %q", got.Signing, want)
	}
	if !slices.Equal(got.Grants, []string{"client_credentials"}) || !slices.Equal(got.Methods, []string{"client_secret_basic", "client_secret_post", "private_key_jwt"}) {
		t.Errorf("got the grants %q and the methods %q, want those that are offered", got.Grants, got.Methods)
	}
	// RFC 8414 §2 requires the algorithms of a method with signatures; "none" is never one of them.
	var at map[string]json.RawMessage
	must.Succeed(t, json.Unmarshal([]byte(first.body), &at))
	for _, endpoint := range []string{"token", "introspection", "revocation"} {
		var algorithms, methods []string
		must.Succeed(t, json.Unmarshal(at[endpoint+"_endpoint_auth_signing_alg_values_supported"], &algorithms))
		must.Succeed(t, json.Unmarshal(at[endpoint+"_endpoint_auth_methods_supported"], &methods))
		if want := []string{"ES256", "ES384", "ES512", "Ed25519", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}; !slices.Equal(algorithms, want) || !slices.Equal(methods, got.Methods) {
			t.Errorf("%s endpoint: got %q by %q, want %q by %q", endpoint, methods, algorithms, got.Methods, want)
		}
	}
	if !slices.Contains(got.Scopes, "api1") || slices.Contains(got.Scopes, "later") {
		t.Errorf("got the scopes %q, want the registered ones", got.Scopes)
	}

	issuer.Apply(t, registry.Manifest{Resources: []registry.Resource{{ID: resource(t, "https://later.internal"), Scopes: scopes(t, "later")}}})
	next := send(t, issuer, request{method: http.MethodGet, target: "/.well-known/openid-configuration"})
	must.Succeed(t, json.Unmarshal([]byte(next.body), &got))
	if !slices.Contains(got.Scopes, "later") || next.header.Get("ETag") == first.header.Get("ETag") {
		t.Errorf("got %s with ETag %s after a scope was registered, want both changed", next.body, next.header.Get("ETag"))
	}
}

// TestNamedEndpointsAnswer requests every endpoint that the metadata name, with an issuer's path and without one.
func TestNamedEndpointsAnswer(t *testing.T) {
	for _, path := range []string{"", "/tenant1"} {
		issuer := tokentest.New(t, tokentest.Path(path))
		places, err := oauth.MetadataURLs(issuer.URL)
		must.Succeed(t, err)
		var first []byte
		for _, place := range places {
			document, _, err := oauth.Get(t.Context(), http.DefaultClient, place, 1<<20)
			must.Succeed(t, err)
			if first == nil {
				first = document
			}
			if !bytes.Equal(document, first) {
				t.Errorf("%s: got %s, want %s as at the other place", place, document, first)
			}
		}
		var members map[string]any
		must.Succeed(t, json.Unmarshal(first, &members))
		named := 0
		for name, value := range members {
			endpoint, _ := value.(string)
			if name == "issuer" || !strings.HasPrefix(endpoint, "http") {
				continue
			}
			named++
			answer, err := http.Get(endpoint)
			must.Succeed(t, err)
			must.Succeed(t, answer.Body.Close())
			if answer.StatusCode == http.StatusNotFound || !strings.HasPrefix(endpoint, issuer.URL+"/") {
				t.Errorf("%s: got %s for %s, want an answer below %s", name, answer.Status, endpoint, issuer.URL)
			}
		}
		if named != 5 {
			t.Errorf("got %d endpoints in %s, want 5", named, first)
		}
	}
}

// TestAuthorizationEndpoint checks that the endpoint, which the metadata name for the sake of their readers, refuses every
// request itself: it never redirects, whatever the request contains (RFC 6749 §4.1.2.1).
func TestAuthorizationEndpoint(t *testing.T) {
	issuer := newIssuer(t)
	for _, r := range []request{
		{method: http.MethodGet, target: "/connect/authorize"},
		{method: http.MethodGet, target: "/connect/authorize?response_type=none&client_id=svc&redirect_uri=https%3A%2F%2Fevil.test%2F"},
		{method: http.MethodGet, target: "/connect/authorize?response_type=code&client_id=svc&prompt=none&scope=openid"},
		{method: http.MethodPost, target: "/connect/authorize", body: "response_type=code&client_id=svc&client_secret=" + secret},
	} {
		wantRefusal(t, send(t, issuer, r), http.StatusBadRequest, "unauthorized_client", "svc", "evil.test", secret)
	}
	head := send(t, issuer, request{method: http.MethodHead, target: "/connect/authorize"})
	if head.status != http.StatusBadRequest || head.body != "" {
		t.Errorf("HEAD: got %d and %q, want 400 without a body", head.status, head.body)
	}
	put := send(t, issuer, request{method: http.MethodPut, target: "/connect/authorize"})
	wantRefusal(t, put, http.StatusMethodNotAllowed, "invalid_request")
	if got, want := put.header.Get("Allow"), "GET, HEAD, POST"; got != want {
		t.Errorf("PUT: got Allow %q, want %q", got, want)
	}
}

// wantDocument checks the headers of a public document.
func wantDocument(t *testing.T, a *answer, cache string) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": cache, "Content-Type": "application/json;charset=UTF-8", "X-Content-Type-Options": "nosniff", "Pragma": "", "Accept-Ranges": "",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if a.status != http.StatusOK || len(a.header.Get("ETag")) < 10 {
		t.Errorf("got %d with ETag %q, want 200 with an ETag", a.status, a.header.Get("ETag"))
	}
}

// TestDocumentsAreCached sends conditional requests as a cache does (RFC 9110 §13).
func TestDocumentsAreCached(t *testing.T) {
	issuer := newIssuer(t)
	for _, target := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/.well-known/jwks.json"} {
		whole := send(t, issuer, request{method: http.MethodGet, target: target})
		tag := whole.header.Get("ETag")
		for _, c := range []struct {
			name, method string
			headers      []string
			want         int
		}{
			{"again", "GET", nil, 200},
			{"HEAD", "HEAD", nil, 200},
			{"the same tag", "GET", []string{"If-None-Match: " + tag}, 304},
			{"the same tag, weak", "GET", []string{"If-None-Match: W/" + tag}, 304},
			{"one of two tags", "GET", []string{`If-None-Match: "other", ` + tag}, 304},
			{"any tag", "GET", []string{"If-None-Match: *"}, 304},
			{"HEAD with the same tag", "HEAD", []string{"If-None-Match: " + tag}, 304},
			{"another tag", "GET", []string{`If-None-Match: "other"`}, 200},
		} {
			t.Run(c.name+" "+target, func(t *testing.T) {
				a := send(t, issuer, request{method: c.method, target: target, contentType: "-", headers: c.headers})
				if a.status != c.want {
					t.Fatalf("got %d, want %d", a.status, c.want)
				}
				for _, name := range []string{"ETag", "Cache-Control", "X-Content-Type-Options"} {
					if got, want := a.header.Get(name), whole.header.Get(name); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
				switch {
				case c.want == http.StatusNotModified || c.method == http.MethodHead:
					if a.body != "" {
						t.Errorf("got the body %s, want none", a.body)
					}
				case a.body != whole.body:
					t.Errorf("got %s, want %s", a.body, whole.body)
				}
				if c.want == http.StatusOK && !maps.EqualFunc(a.header, whole.header, slices.Equal[[]string]) {
					t.Errorf("got the headers %v, want %v", a.header, whole.header)
				}
			})
		}
	}
}

// TestKeySet checks the published keys (RFC 7517, RFC 7638).
func TestKeySet(t *testing.T) {
	issuer := newIssuer(t)
	a := send(t, issuer, request{method: http.MethodGet, target: "/.well-known/jwks.json"})
	wantDocument(t, a, "public, max-age=300")
	var document map[string]json.RawMessage
	must.Succeed(t, json.Unmarshal([]byte(a.body), &document))
	var keys []map[string]string
	must.Succeed(t, json.Unmarshal(document["keys"], &keys))
	if len(document) != 1 || len(keys) != 4 {
		t.Fatalf("got %d members and %d keys, want only keys, one for each algorithm", len(document), len(keys))
	}
	// members maps an alg to the members of a public key of it.
	members := map[string][]string{
		"ES256": {"alg", "crv", "kid", "kty", "use", "x", "y"},
		"RS256": {"alg", "e", "kid", "kty", "n", "use"},
		"PS256": {"alg", "e", "kid", "kty", "n", "use"},
		"EdDSA": {"alg", "crv", "kid", "kty", "use", "x"},
	}
	for _, key := range keys {
		t.Run(key["alg"], func(t *testing.T) {
			if got := slices.Sorted(maps.Keys(key)); !slices.Equal(got, members[key["alg"]]) || key["use"] != "sig" {
				t.Errorf("got the members %q and use %q, want %q for signatures", got, key["use"], members[key["alg"]])
			}
			raw, err := json.Marshal(key)
			must.Succeed(t, err)
			parsed, err := jwk.ParseKey(raw)
			must.Succeed(t, err)
			sum, err := parsed.Thumbprint(crypto.SHA256)
			must.Succeed(t, err)
			if want := base64.RawURLEncoding.EncodeToString(sum); key["kid"] != want {
				t.Errorf("got kid %s, want the thumbprint %s", key["kid"], want)
			}
			delete(members, key["alg"])
		})
	}
	if len(members) > 0 {
		t.Errorf("got no key for %v", members)
	}
}

// TestTokenAnswer compares the JSON of tokens with that of protojson, for every field of the message.
func TestTokenAnswer(t *testing.T) {
	full, plain := &grantorv1.IssueTokenResponse{}, &grantorv1.IssueTokenResponse{}
	fields := full.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		switch field := fields.Get(i); field.Kind() {
		case protoreflect.StringKind:
			full.ProtoReflect().Set(field, protoreflect.ValueOfString("<"+field.TextName()+`"é`))
			plain.ProtoReflect().Set(field, protoreflect.ValueOfString(field.TextName()))
		case protoreflect.Int32Kind:
			full.ProtoReflect().Set(field, protoreflect.ValueOfInt32(7))
			plain.ProtoReflect().Set(field, protoreflect.ValueOfInt32(-7))
		default:
			t.Errorf("%s is a %s, which this test does not fill", field.Name(), field.Kind())
		}
	}
	messages := []*grantorv1.IssueTokenResponse{full, plain, {}, {AccessToken: "a", ExpiresIn: 1}}
	for c := range rune(utf8.RuneSelf + 1) { // every character of ASCII, and one beyond
		messages = append(messages, &grantorv1.IssueTokenResponse{AccessToken: "a", TokenType: "Bearer", ExpiresIn: 1, Scope: "a" + string(c)})
	}
	for _, m := range messages {
		var got, want map[string]any
		written, err := rest.MarshalDocument(m)
		must.Succeed(t, err)
		must.Succeed(t, json.Unmarshal(written, &got))
		written, err = protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		must.Succeed(t, err)
		must.Succeed(t, json.Unmarshal(written, &want))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
