package rest_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// The resources of the tests' issuer.
const (
	res1 = "https://res1.internal"
	res2 = "https://res2.internal"
)

// secret is the secret of most clients. It is a generated one, which needs no slow hash. wrong is the secret of no
// client. oddID and oddSecret, a chosen one, need escapes.
var (
	secret, wrong = clientsecret.New(), clientsecret.New()
	oddID         = "odd+id%:"
	oddSecret     = "a-secret+with%odd:marks"
)

// signer has the key of the client jwk, which has no secret.
var (
	signer     = jwstest.NewSigner(jwks.ES256)
	clientKeys = must.Get(jwks.ParseDocument(jwstest.Set(signer)))
)

// newIssuer starts an issuer with the resources and clients of all cases.
func newIssuer(t *testing.T) *tokentest.Issuer {
	t.Helper()
	issuer := tokentest.New(t)
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{
			{ID: resource(t, res1), Scopes: scopes(t, "api1 api2")},
			{ID: resource(t, res2), Scopes: scopes(t, "other.read "+strings.Repeat("s", 128)), AccessTokenLifetime: 10 * time.Minute},
			{ID: resource(t, "https://many.internal"), Scopes: scopes(t, numbered(64))},
			{ID: resource(t, longResource), Scopes: scopes(t, "long")},
		},
		Clients: []registry.ClientSpec{
			client(t, "svc", registry.Client{Scopes: scopes(t, "api1")}),
			client(t, "multi", registry.Client{Scopes: scopes(t, "api1 api2 other.read")}),
			client(t, "default", registry.Client{Scopes: scopes(t, "api1 api2"), DefaultScopes: scopes(t, "api2")}),
			client(t, "brief", registry.Client{Scopes: scopes(t, "api1"), AccessTokenLifetime: 5 * time.Minute}),
			client(t, "many", registry.Client{Scopes: scopes(t, numbered(64))}),
			client(t, "long", registry.Client{Scopes: scopes(t, "long "+strings.Repeat("s", 128))}),
			client(t, "noscope", registry.Client{}),
			client(t, "res1", registry.Client{Resources: []oauth.Resource{resource(t, res1)}}),
			client(t, "other", registry.Client{Resources: []oauth.Resource{resource(t, res2)}}),
			client(t, "plain", registry.Client{Scopes: scopes(t, "api1")}),
			client(t, "disabled", registry.Client{Scopes: scopes(t, "api1"), Disabled: true}),
			client(t, "expired", registry.Client{Scopes: scopes(t, "api1")}),
			client(t, "basiconly", registry.Client{Scopes: scopes(t, "api1"), AuthMethods: []string{oauth.ClientSecretBasic}}),
			client(t, "postonly", registry.Client{Scopes: scopes(t, "api1"), AuthMethods: []string{oauth.ClientSecretPost}}),
			withSecret(client(t, oddID, registry.Client{Scopes: scopes(t, "api1")}), oddSecret),
			withSecret(client(t, "longsecret", registry.Client{Scopes: scopes(t, "api1")}), longSecret),
			client(t, longID, registry.Client{Scopes: scopes(t, "api1")}),
			{Secret: secret, Client: registry.Client{ID: clientID(t, "nogrant"), Scopes: scopes(t, "api1")}},
			{Client: registry.Client{ID: clientID(t, "jwk"), Scopes: scopes(t, "api1"), GrantTypes: []string{oauth.GrantClientCredentials}, Keys: clientKeys}},
		},
	})
	issuer.ExpireSecrets(t, "expired")
	return issuer
}

// Values of the maximum length.
var (
	longID       = strings.Repeat("i", 255)
	longSecret   = strings.Repeat("p", 512)
	longResource = "https://" + strings.Repeat("r", 504)
)

// numbered returns n scopes: "n1 n2 n3 …".
func numbered(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = "n" + strconv.Itoa(i+1)
	}
	return strings.Join(names, " ")
}

func client(t *testing.T, id string, c registry.Client) registry.ClientSpec {
	t.Helper()
	c.ID, c.GrantTypes = clientID(t, id), []string{oauth.GrantClientCredentials}
	return registry.ClientSpec{Secret: secret, Client: c}
}

func withSecret(spec registry.ClientSpec, secret string) registry.ClientSpec {
	spec.Secret = secret
	return spec
}

func clientID(t *testing.T, s string) oauth.ClientID {
	t.Helper()
	id, err := oauth.ParseClientID(s)
	must.Succeed(t, err)
	return id
}

func resource(t *testing.T, s string) oauth.Resource {
	t.Helper()
	r, err := oauth.ParseResource(s)
	must.Succeed(t, err)
	return r
}

func scopes(t *testing.T, s string) oauth.Scopes {
	t.Helper()
	parsed, err := oauth.ParseScopes(s)
	must.Succeed(t, err)
	return parsed
}

// basic returns the Authorization header of RFC 6749 §2.3.1.
func basic(id, secret string) string {
	return rawBasic(url.QueryEscape(id) + ":" + url.QueryEscape(secret))
}

func rawBasic(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

// good returns the form of a request that gets a token, with changes, which are pairs of names and values, applied to
// it. An empty value is sent as an empty value.
func good(changes ...string) url.Values {
	values := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"svc"}, "client_secret": {secret}, "scope": {"api1"},
	}
	for i := 0; i < len(changes); i += 2 {
		values.Set(changes[i], changes[i+1])
	}
	return values
}

// without returns values without the parameters named.
func without(values url.Values, names ...string) url.Values {
	values = maps.Clone(values)
	for _, name := range names {
		values.Del(name)
	}
	return values
}

// request is an HTTP/1.1 request, written byte for byte. The zero value posts an empty form to the token endpoint.
type request struct {
	method, target string
	// contentType is the value of one header line; "-" omits the line.
	contentType string
	// headers are complete lines.
	headers []string
	body    string
	chunked bool
}

func (r request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: issuer.test\r\nConnection: close\r\n", or(r.method, "POST"), or(r.target, "/connect/token"))
	if r.contentType != "-" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", or(r.contentType, "application/x-www-form-urlencoded"))
	}
	for _, line := range r.headers {
		b.WriteString(line + "\r\n")
	}
	if r.chunked {
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for part := range slices.Chunk([]byte(r.body), 1000) {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
		}
		b.WriteString("0\r\n\r\n")
		return b.String()
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(r.body), r.body)
	return b.String()
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// send sends the request over a new connection.
func send(t *testing.T, issuer *tokentest.Issuer, r request) *answer {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(issuer.URL, "http://"))
	must.Succeed(t, err)
	defer func() { _ = conn.Close() }()
	must.Succeed(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, r.String()) // a server that refuses early does not read all of it
	}()
	defer func() { <-sent }()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: or(r.method, "POST")})
	must.Succeed(t, err)
	body, err := io.ReadAll(response.Body)
	must.Succeed(t, err)
	response.Header.Del("Date") // the only header that differs between equal answers
	return &answer{response.StatusCode, response.Header, string(body)}
}

// post sends a form.
func post(t *testing.T, issuer *tokentest.Issuer, values url.Values, headers ...string) *answer {
	t.Helper()
	return send(t, issuer, request{headers: headers, body: values.Encode()})
}

// tokenAnswer is the body of RFC 6749 §5.1.
type tokenAnswer struct {
	AccessToken string  `json:"access_token"`
	TokenType   string  `json:"token_type"`
	ExpiresIn   float64 `json:"expires_in"`
	Scope       string  `json:"scope"`
}

// wantToken checks that the answer is a complete token response.
func wantToken(t *testing.T, a *answer) tokenAnswer {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("got %d %s, want a token", a.status, a.body)
	}
	wantHeaders(t, a)
	var fields map[string]any
	must.Succeed(t, json.Unmarshal([]byte(a.body), &fields))
	if got, want := slices.Sorted(maps.Keys(fields)), []string{"access_token", "expires_in", "scope", "token_type"}; !slices.Equal(got, want) {
		t.Errorf("got the fields %q, want %q", got, want)
	}
	var body tokenAnswer
	must.Succeed(t, json.Unmarshal([]byte(a.body), &body))
	if body.AccessToken == "" || body.TokenType != "Bearer" || body.ExpiresIn <= 0 || body.Scope == "" {
		t.Errorf("got %s, want a Bearer token with a lifetime and a scope", a.body)
	}
	return body
}

// described is the character set of error_description (RFC 6749 §5.2).
var described = regexp.MustCompile(`^[\x20\x21\x23-\x5b\x5d-\x7e]+$`)

// wantRefusal checks that the answer is a complete error response that contains none of the values sent.
func wantRefusal(t *testing.T, a *answer, status int, code string, sent ...string) {
	t.Helper()
	if a.status != status {
		t.Fatalf("got %d %s, want %d %s", a.status, a.body, status, code)
	}
	var want []string
	switch status {
	case http.StatusUnauthorized:
		want = []string{"Www-Authenticate"}
	case http.StatusMethodNotAllowed:
		want = []string{"Allow"}
	case http.StatusUnsupportedMediaType:
		want = []string{"Accept-Encoding"}
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		want = []string{"Retry-After"}
	}
	wantHeaders(t, a, want...)
	var body map[string]string
	must.Succeed(t, json.Unmarshal([]byte(a.body), &body))
	if len(body) != 2 || body["error"] != code || !described.MatchString(body["error_description"]) {
		t.Errorf("got %s, want %q and a description in the characters of RFC 6749 section 5.2", a.body, code)
	}
	for _, value := range sent {
		if len(value) > 3 && value != "client_credentials" && strings.Contains(a.body, value) {
			t.Errorf("the answer %s contains %q of the request", a.body, value)
		}
	}
}

// wantHeaders checks that the answer has the headers of every answer, more, and no others.
func wantHeaders(t *testing.T, a *answer, more ...string) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "Pragma": "no-cache", "X-Content-Type-Options": "nosniff",
		"Content-Length": strconv.Itoa(len(a.body)),
	} {
		if got := a.header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	mediaType, parameters, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" || !strings.EqualFold(parameters["charset"], "utf-8") {
		t.Errorf("Content-Type: got %q, want JSON in UTF-8", a.header.Get("Content-Type"))
	}
	want := append([]string{"Cache-Control", "Content-Length", "Content-Type", "Pragma", "X-Content-Type-Options"}, more...)
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(a.header)); !slices.Equal(got, want) {
		t.Errorf("got the headers %q, want %q", got, want)
	}
}

// wantSame checks that two answers are equal except for their Date.
func wantSame(t *testing.T, got, want *answer) {
	t.Helper()
	if got.status != want.status || got.body != want.body || !maps.EqualFunc(got.header, want.header, slices.Equal[[]string]) {
		t.Errorf("got %d %v %s, want %d %v %s", got.status, got.header, got.body, want.status, want.header, want.body)
	}
}
