package attach_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

const basicOnly, postOnly = attach.ClientSecretBasic, attach.ClientSecretPost

// methodServer is an issuer whose client uses one authentication method. It records the methods of the requests.
type methodServer struct {
	*httptest.Server

	accepts, secret string
	// limited makes the issuer refuse as at its limit of failed authentications.
	limited bool
	seen    []string
}

// newMethodServer starts an issuer. methods is the JSON of token_endpoint_auth_methods_supported, or empty.
func newMethodServer(t *testing.T, accepts, methods string) *methodServer {
	t.Helper()
	s := &methodServer{accepts: accepts, secret: "s3cret"}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/") {
			document := fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q`, s.URL, s.URL+"/token")
			if methods != "" {
				document += `,"token_endpoint_auth_methods_supported":` + methods
			}
			_, _ = fmt.Fprint(w, document+"}")
			return
		}
		_ = r.ParseForm()
		method, secret := postOnly, r.PostForm.Get("client_secret")
		if _, sent, ok := r.BasicAuth(); ok {
			method, secret = basicOnly, sent
			if r.PostForm.Has("client_id") || r.PostForm.Has("client_secret") {
				method = "both"
			}
		}
		s.seen = append(s.seen, method)
		if method != s.accepts || secret != s.secret {
			if s.limited {
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = fmt.Fprint(w, `{"error":"temporarily_unavailable"}`)
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprint(w, `{"error":"invalid_client"}`)
			return
		}
		_, _ = fmt.Fprint(w, `{"access_token":"a","token_type":"Bearer"}`)
	}))
	t.Cleanup(func() {
		s.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return s
}

func TestAuthMethod(t *testing.T) {
	const both = `["client_secret_post","client_secret_basic","private_key_jwt"]`
	for _, test := range []struct {
		name, accepts, metadata, choice string
		tokenURL                        bool
		seen                            []string // the methods of the first request for a token
		fails                           bool
	}{
		{name: "metadata without a list", accepts: basicOnly, seen: []string{basicOnly}},
		{name: "metadata without a list, post", accepts: postOnly, seen: []string{basicOnly}, fails: true},
		{name: "post by metadata", accepts: postOnly, metadata: `["client_secret_post"]`, seen: []string{postOnly}},
		{name: "post by a single string", accepts: postOnly, metadata: `"client_secret_post"`, seen: []string{postOnly}},
		{name: "basic by metadata", accepts: basicOnly, metadata: `["none","client_secret_basic"]`, seen: []string{basicOnly}},
		{name: "list of another shape", accepts: basicOnly, metadata: `[{"a":1}]`, seen: []string{basicOnly}},
		{name: "list of other methods", accepts: basicOnly, metadata: `["private_key_jwt"]`, seen: []string{basicOnly}},
		{name: "both, basic", accepts: basicOnly, metadata: both, seen: []string{basicOnly}},
		{name: "both, post", accepts: postOnly, metadata: both, seen: []string{basicOnly, postOnly}},
		{name: "both, post by choice", accepts: postOnly, metadata: both, choice: postOnly, seen: []string{postOnly}},
		{name: "both, basic by a wrong choice", accepts: postOnly, metadata: both, choice: basicOnly, seen: []string{basicOnly}, fails: true},
		{name: "choice against metadata", accepts: postOnly, metadata: `["client_secret_basic"]`, choice: postOnly, seen: []string{postOnly}},
		{name: "no metadata, post", accepts: postOnly, tokenURL: true, seen: []string{basicOnly, postOnly}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := newMethodServer(t, test.accepts, test.metadata)
			options := []attach.Option{attach.AuthMethod(test.choice)}
			if test.tokenURL {
				options = append(options, attach.TokenURL(server.URL+"/token"))
			}
			source := attach.ClientCredentials(server.URL, "a", "s3cret", options...)
			_, err := source.Token()
			if (err != nil) != test.fails || !slices.Equal(server.seen, test.seen) {
				t.Errorf("got %v with %q, want %q", err, server.seen, test.seen)
			}
			if test.fails {
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("got %v, want UNAUTHENTICATED", err)
				}
				return
			}
			// The method that was accepted is remembered.
			server.seen = nil
			if _, err := attach.Issue(t.Context(), source); err != nil || !slices.Equal(server.seen, []string{test.accepts}) {
				t.Errorf("the next request: got %v with %q, want %q", err, server.seen, test.accepts)
			}
		})
	}
}

// A wrong secret is sent twice once, then once for each request, and a new one at once with the method that was
// accepted before.
func TestWrongSecretCountsOnce(t *testing.T) {
	server := newMethodServer(t, postOnly, `["client_secret_basic","client_secret_post"]`)
	path := secretFile(t, "wrong")
	source := attach.ClientCredentials(server.URL, "a", "", attach.SecretFile(path))
	ask := func(fails bool, want ...string) {
		t.Helper()
		server.seen = nil
		if _, err := attach.Issue(t.Context(), source); (err != nil) != fails || !slices.Equal(server.seen, want) {
			t.Errorf("got %v with %q, want %q", err, server.seen, want)
		}
	}
	ask(true, basicOnly, postOnly)
	ask(true, basicOnly)
	ask(true, postOnly)
	write(t, path, "s3cret")
	ask(false, basicOnly, postOnly)
	ask(false, postOnly)
	server.secret = "new-secret"
	ask(true, postOnly) // the method is proven: one failure
	ask(true, basicOnly)
	write(t, path, "new-secret")
	ask(false, postOnly)
	// The client's registration changes to the other method.
	server.accepts = basicOnly
	ask(true, postOnly)
	ask(false, basicOnly)
	ask(false, basicOnly)
}

// A client finds its method beyond the issuer's limit of failed authentications, where the other one is refused with 429.
// A wrong secret is still sent twice once, and then once for each request.
func TestMethodBeyondFailureLimit(t *testing.T) {
	server := newMethodServer(t, postOnly, `["client_secret_basic","client_secret_post"]`)
	server.limited = true
	path := secretFile(t, "wrong")
	source := attach.ClientCredentials(server.URL, "a", "", attach.SecretFile(path))
	request := func(code codes.Code, want ...string) {
		t.Helper()
		server.seen = nil
		if _, err := attach.Issue(t.Context(), source); status.Code(err) != code || !slices.Equal(server.seen, want) {
			t.Errorf("got %v with %q, want %v with %q", err, server.seen, code, want)
		}
	}
	request(codes.Unavailable, basicOnly, postOnly)
	request(codes.Unavailable, basicOnly)
	request(codes.Unavailable, postOnly)
	server.limited = false
	request(codes.Unauthenticated, basicOnly)
	server.limited = true
	request(codes.Unavailable, postOnly)
	write(t, path, "s3cret")
	request(codes.OK, basicOnly, postOnly)
	request(codes.OK, postOnly)
	// The method is proven: a limit does not make the client try the other one.
	server.secret = "new-secret"
	request(codes.Unavailable, postOnly)
	request(codes.Unavailable, postOnly)
	// A client that names its method does not try another.
	source = attach.ClientCredentials(server.URL, "a", "new-secret", attach.AuthMethod(basicOnly))
	request(codes.Unavailable, basicOnly)
	request(codes.Unavailable, basicOnly)
}

// A client that is registered for one method gets tokens over both wires, with and without a choice.
func TestClientOfOneMethod(t *testing.T) {
	issuer := tokentest.New(t)
	issuer.AddClient(t, "billing", resource, "orders.read")
	for _, method := range []string{basicOnly, postOnly} {
		issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Secret: "some-secret", Client: registry.Client{
			ID: must.Get(oauth.ParseClientID(method)), Scopes: must.Get(oauth.ParseScopes("orders.read")),
			GrantTypes: []string{oauth.GrantClientCredentials}, AuthMethods: []string{method},
		}}}})
		for _, choice := range []string{"", method} {
			for wire, options := range map[string][]attach.Option{
				"HTTP": {attach.AuthMethod(choice)},
				"gRPC": {attach.AuthMethod(choice), attach.OverGRPC(issuer.Conn(t))},
			} {
				source := attach.ClientCredentials(issuer.URL, method, "some-secret", options...)
				for range 2 {
					if _, err := attach.Issue(t.Context(), source); err != nil {
						t.Errorf("%s, choice %q over %s: %v", method, choice, wire, err)
					}
				}
				wrong := attach.ClientCredentials(issuer.URL, method, "wrong-secret", options...)
				if _, err := wrong.Token(); status.Code(err) != codes.Unauthenticated {
					t.Errorf("%s, choice %q over %s: got %v, want UNAUTHENTICATED", method, choice, wire, err)
				}
			}
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestParameter(t *testing.T) {
	server := newTokenServer(t, nil)
	source := attach.ClientCredentials(server.URL, "a", "s3cret", attach.Parameter("audience", "https://a b&c=d"),
		attach.Parameter("organization", "org_1"), attach.Parameter("empty", ""))
	accessToken(t, source)
	want := "audience=https%3A%2F%2Fa+b%26c%3Dd&grant_type=client_credentials&organization=org_1"
	if got := server.requestForms(); !slices.Equal(got, []string{want}) {
		t.Errorf("got form %q, want %q", got, want)
	}
	over := &grantor{}
	accessToken(t, attach.ClientCredentials("", "a", "s3cret", attach.OverGRPC(tokenService(t, over)), attach.Parameter("audience", "https://a")))
	if got := over.got.GetAudience(); got != "https://a" {
		t.Errorf("over gRPC: got audience %q", got)
	}
}

func TestParameterAndMethodThatAreRefused(t *testing.T) {
	server, over := newTokenServer(t, nil), &grantor{}
	grpcOption := attach.OverGRPC(tokenService(t, over))
	for text, options := range map[string][]attach.Option{
		"grant_type is not":               {attach.Parameter("grant_type", "password")},
		"client_id is not":                {attach.Parameter("client_id", "b")},
		"Client_Secret is not":            {attach.Parameter("Client_Secret", "b")},
		"scope is not":                    {attach.Parameter("scope", "b")},
		"RESOURCE is not":                 {attach.Parameter("RESOURCE", "")},
		"client_assertion is not":         {attach.Parameter("client_assertion", "b")},
		"client_assertion_type is not":    {attach.Parameter("client_assertion_type", "b")},
		`the name ""`:                     {attach.Parameter("", "b")},
		`the name "a\x00"`:                {attach.Parameter("a\x00", "b")},
		`the name "ſcope"`:                {attach.Parameter("ſcope", "b")},
		"set twice":                       {attach.Parameter("audience", "b"), attach.Parameter("audience", "c")},
		"organization cannot be sent":     {attach.Parameter("organization", "b"), grpcOption},
		`"private_key_jwt" is neither`:    {attach.AuthMethod("private_key_jwt")},
		`"Client_Secret_Post" is neither`: {attach.AuthMethod("Client_Secret_Post"), grpcOption},
	} {
		_, err := attach.ClientCredentials(server.URL, "a", "s3cret", options...).Token()
		if err == nil || !strings.Contains(err.Error(), text) || status.Code(err) != codes.Internal {
			t.Errorf("got %v, want %q in it", err, text)
		}
	}
	if got := server.requestForms(); len(got) > 0 || over.got != nil {
		t.Errorf("got requests %q and %v, want none", got, over.got)
	}
}
