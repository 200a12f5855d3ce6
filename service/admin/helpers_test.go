package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// all are the administrative scopes.
var all = []string{
	registry.ScopeClientsRead, registry.ScopeClientsWrite, registry.ScopeResourcesRead, registry.ScopeResourcesWrite,
	registry.ScopeTrustRead, registry.ScopeTrustWrite, registry.ScopeKeysRead, registry.ScopeKeysWrite,
}

// fixture is an issuer and the clients of its administrative services.
type fixture struct {
	*tokentest.Issuer
	conn      *grpc.ClientConn
	clients   grantorv1.ClientServiceClient
	resources grantorv1.ResourceServiceClient
	trust     grantorv1.TrustServiceClient
	keys      grantorv1.KeyServiceClient
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	issuer := tokentest.New(t, tokentest.TrustDirectories("/etc"))
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Client: registry.Client{ID: parsed(t, oauth.ParseClientID, "boss"), Scopes: parsed(t, oauth.ParseScopes, strings.Join(all, " "))}}}})
	conn := issuer.Conn(t)
	return &fixture{
		issuer, conn, grantorv1.NewClientServiceClient(conn), grantorv1.NewResourceServiceClient(conn),
		grantorv1.NewTrustServiceClient(conn), grantorv1.NewKeyServiceClient(conn),
	}
}

func parsed[T any](t *testing.T, parse func(string) (T, error), text string) T {
	t.Helper()
	value, err := parse(text)
	must.Succeed(t, err)
	return value
}

// as returns the context of an administrator's calls.
func (f *fixture) as(t *testing.T, scopes ...string) context.Context {
	t.Helper()
	return bearer(t, f.Token(t, "boss", registry.AdminResource, scopes...))
}

func bearer(t *testing.T, token string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
}

// refused checks the code and the reason of a refusal.
func refused(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	if got, why := status.Code(err), reasonOf(err); got != code || why != reason {
		t.Errorf("got %s %q (%v), want %s %q", got, why, err, code, reason)
	}
}

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// answer is a response over REST.
type answer struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

// rest makes a call as an administrator with all scopes. body is JSON, or empty for none.
func (f *fixture) rest(t *testing.T, method, path, body string) answer {
	t.Helper()
	return f.restAs(t, f.Token(t, "boss", registry.AdminResource, all...), method, path, body)
}

func (f *fixture) restAs(t *testing.T, token, method, path, body string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, strings.NewReader(body))
	must.Succeed(t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	must.Succeed(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	must.Succeed(t, err)
	a := answer{status: response.StatusCode, header: response.Header, body: string(text)}
	if err := json.Unmarshal(text, &a.json); err != nil {
		t.Fatalf("%s %s: got %q, want a JSON object: %v", method, path, text, err)
	}
	return a
}

// token requests a token with a secret and returns the HTTP status that the result has over REST.
func (f *fixture) token(t *testing.T, id, secret string) int {
	t.Helper()
	_, err := grantorv1.NewTokenServiceClient(f.conn).IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: "client_credentials", ClientId: id, ClientSecret: secret,
	})
	switch status.Code(err) {
	case codes.OK:
		return http.StatusOK
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	}
	t.Fatal(err)
	return 0
}
