package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// start starts an issuer and the server, and returns the issuer and the endpoint of the server.
func start(t *testing.T) (issuer *tokentest.Issuer, endpoint string) {
	t.Helper()
	issuer = tokentest.New(t)
	server := httptest.NewUnstartedServer(nil)
	endpoint = "http://" + server.Listener.Addr().String() + "/mcp"
	verifier := must.Get(newVerifier(t.Context(), issuer.URL, endpoint, verify.Now(issuer.Now)))
	t.Cleanup(verifier.Close)
	server.Config.Handler = handler(verifier, "/mcp")
	server.Start()
	t.Cleanup(server.Close)
	issuer.AddClient(t, "order-agent", endpoint, scope)
	issuer.AddClient(t, "reader", endpoint, "orders.other")
	return issuer, endpoint
}

// The client knows the URL of the server and its credentials alone.
func TestCall(t *testing.T) {
	issuer, endpoint := start(t)
	session, err := connect(t.Context(), endpoint, http.DefaultClient, must.Get(newHandler(issuer.URL, "order-agent", tokentest.Secret)))
	must.Succeed(t, err)
	defer func() { must.Succeed(t, session.Close()) }()
	const want = "order 17: shipped (asked by order-agent)"
	if got, err := status(t.Context(), session, "17"); got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	tools, err := session.ListTools(t.Context(), nil)
	must.Succeed(t, err)
	if len(tools.Tools) != 1 || tools.Tools[0].Name != "order_status" {
		t.Errorf("the tools are %v", tools.Tools)
	}
}

// The two commands of the README.
func TestProgram(t *testing.T) {
	issuer := tokentest.New(t)
	endpoint := "http://" + freeport.Address(t) + "/mcp"
	issuer.AddClient(t, "order-agent", endpoint, scope)
	t.Setenv("ORDER_AGENT_SECRET", tokentest.Secret)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- run(ctx, []string{"-issuer", issuer.URL, "-endpoint", endpoint, "serve"}, io.Discard)
	}()
	var out strings.Builder
	must.Eventually(t, "the client is answered", func() bool {
		return run(ctx, []string{"-issuer", issuer.URL, "-endpoint", endpoint, "call", "17"}, &out) == nil
	})
	if got, want := out.String(), "order 17: shipped (asked by order-agent)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	stop()
	must.Succeed(t, <-served)
	for _, args := range [][]string{{}, {"serve", "more"}, {"call"}, {"-unknown", "serve"}, {"-endpoint", "::", "serve"}} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestNoToken(t *testing.T) {
	issuer, endpoint := start(t)
	for name, test := range map[string]struct {
		issuer, id, secret, want string
	}{
		"wrong secret":   {issuer.URL, "order-agent", "another-secret-here", "invalid_client"},
		"scope not its":  {issuer.URL, "reader", tokentest.Secret, "invalid_scope"},
		"another issuer": {"https://auth.example.com", "order-agent", tokentest.Secret, "does not match"},
		"unknown client": {issuer.URL, "stranger", tokentest.Secret, "invalid_client"},
	} {
		_, err := connect(t.Context(), endpoint, http.DefaultClient, must.Get(newHandler(test.issuer, test.id, test.secret)))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}

// fixedToken is a transport that sends one token with each request, and records the responses' status.
type fixedToken struct {
	token string
	mu    sync.Mutex
	codes []int
}

func (f *fixedToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+f.token)
	response, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.codes = append(f.codes, response.StatusCode)
	}
	return response, err
}

func (f *fixedToken) last() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.codes[len(f.codes)-1]
}

func TestRefusedTokens(t *testing.T) {
	issuer, endpoint := start(t)
	for name, test := range map[string]struct {
		token string
		want  int
	}{
		"wrong scope":      {issuer.Token(t, "reader", endpoint, "orders.other"), http.StatusForbidden},
		"another resource": {issuer.Token(t, "order-agent", "https://stock.internal", scope), http.StatusUnauthorized},
		"expired":          {issuer.Expired(t, "order-agent", endpoint, scope), http.StatusUnauthorized},
		"forged":           {issuer.Forge(t, map[string]any{"aud": endpoint, "scope": scope}), http.StatusUnauthorized},
	} {
		transport := &fixedToken{token: test.token}
		_, err := connect(t.Context(), endpoint, &http.Client{Transport: transport}, nil)
		if err == nil || transport.last() != test.want {
			t.Errorf("%s: got %d, %v, want %d", name, transport.last(), err, test.want)
		}
	}
}

// A session that exists does not help a token that has been revoked.
func TestRevokedToken(t *testing.T) {
	issuer, endpoint := start(t)
	transport := &fixedToken{token: issuer.Token(t, "order-agent", endpoint, scope)}
	session, err := connect(t.Context(), endpoint, &http.Client{Transport: transport}, nil)
	must.Succeed(t, err)
	defer func() { _ = session.Close() }()
	_, err = status(t.Context(), session, "17")
	must.Succeed(t, err)

	revoke := must.Get(http.PostForm(issuer.URL+"/connect/revoke", map[string][]string{
		"token": {transport.token}, "client_id": {"order-agent"}, "client_secret": {tokentest.Secret},
	}))
	must.Succeed(t, revoke.Body.Close())
	if revoke.StatusCode != http.StatusOK {
		t.Fatalf("the revocation answers %d", revoke.StatusCode)
	}
	must.Eventually(t, "the token is refused", func() bool {
		_, err := status(t.Context(), session, "17")
		return err != nil
	})
	if transport.last() != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", transport.last())
	}
}

// A client that uses attach knows the issuer instead of discovering it, and may authenticate in any way that attach can.
func TestAttach(t *testing.T) {
	issuer, endpoint := start(t)
	source := attach.ClientCredentials(issuer.URL, "order-agent", tokentest.Secret, attach.Scopes(scope))
	session, err := connect(t.Context(), endpoint, &http.Client{Transport: source}, nil)
	must.Succeed(t, err)
	if _, err := status(t.Context(), session, "17"); err != nil {
		t.Error(err)
	}
	must.Succeed(t, session.Close())
}
