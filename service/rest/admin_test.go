package rest_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/rest"
)

// capture is a service that answers every administrative call with the empty message and records its request.
type capture struct {
	grantorv1.UnimplementedClientServiceServer
	grantorv1.UnimplementedResourceServiceServer
	grantorv1.UnimplementedTrustServiceServer
	grantorv1.UnimplementedKeyServiceServer

	request proto.Message
}

func (c *capture) Register(server grpc.ServiceRegistrar) {
	grantorv1.RegisterClientServiceServer(server, c)
	grantorv1.RegisterResourceServiceServer(server, c)
	grantorv1.RegisterTrustServiceServer(server, c)
	grantorv1.RegisterKeyServiceServer(server, c)
}

// answers is keyed by the name of a method.
var answers = map[string]proto.Message{
	"GetClient":           &grantorv1.GetClientResponse{},
	"DeleteClient":        &grantorv1.DeleteClientResponse{},
	"UpdateClient":        &grantorv1.UpdateClientResponse{},
	"RevokeTokens":        &grantorv1.RevokeTokensResponse{},
	"CreateClientSecret":  &grantorv1.CreateClientSecretResponse{},
	"RotateClientSecret":  &grantorv1.RotateClientSecretResponse{},
	"UpdateClientSecret":  &grantorv1.UpdateClientSecretResponse{},
	"DeleteClientSecret":  &grantorv1.DeleteClientSecretResponse{},
	"GetResource":         &grantorv1.GetResourceResponse{},
	"UpdateResource":      &grantorv1.UpdateResourceResponse{},
	"GetTrustedIssuer":    &grantorv1.GetTrustedIssuerResponse{},
	"UpdateTrustedIssuer": &grantorv1.UpdateTrustedIssuerResponse{},
	"DeleteTrustedIssuer": &grantorv1.DeleteTrustedIssuerResponse{},
	"GetWorkload":         &grantorv1.GetWorkloadResponse{},
	"UpdateWorkload":      &grantorv1.UpdateWorkloadResponse{},
	"RetireKey":           &grantorv1.RetireKeyResponse{},
}

func (c *capture) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(_ context.Context, request any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		c.request = request.(proto.Message)
		return answers[info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]], nil
	}
}

func (*capture) Origin(peer net.Addr, _ []string) net.Addr          { return peer }
func (*capture) Receive(context.Context, int) (func(), bool, error) { return func() {}, false, nil }
func (*capture) Admit(ctx context.Context) (context.Context, error) { return ctx, nil }
func (*capture) Unread(context.Context, string, *oauth.Error)       {}

// TestIDsInPaths sends ids in the path of each kind of call. An id arrives as it was before it was percent-encoded,
// whatever its characters: a slash or a colon in one ends neither the id nor the path.
func TestIDsInPaths(t *testing.T) {
	const other = "other/id:%2F"
	var service capture
	handler := must.Get(rest.New(t.Context(), must.Get(oauth.ParseIssuer("https://issuer.test")), &service))
	for _, id := range []string{
		"a", "a/b", "/", "//", "a%2Fb", "%", "%252F", "..", "../keys", "a/secrets/b", "a/tokens:revoke", "a:revoke", ":retire", "a b+c",
		"https://orders.internal", "?#[]@!$&'()*,;=", "ü\x01\x00",
	} {
		escaped := url.PathEscape(id)
		client, secret := &grantorv1.Client{ClientId: id}, &grantorv1.ClientSecret{SecretId: id}
		for _, c := range []struct {
			method, path string
			want         proto.Message
		}{
			{"GET", "/v1/clients/" + escaped, &grantorv1.GetClientRequest{ClientId: id}},
			{"PATCH", "/v1/clients/" + escaped, &grantorv1.UpdateClientRequest{Client: client}},
			{"POST", "/v1/clients/" + escaped + "/tokens:revoke", &grantorv1.RevokeTokensRequest{ClientId: id}},
			{"POST", "/v1/clients/" + escaped + "/secrets", &grantorv1.CreateClientSecretRequest{ClientId: id}},
			{"POST", "/v1/clients/" + escaped + "/secrets:rotate", &grantorv1.RotateClientSecretRequest{ClientId: id}},
			{
				"PATCH", "/v1/clients/" + url.PathEscape(other) + "/secrets/" + escaped,
				&grantorv1.UpdateClientSecretRequest{ClientId: other, Secret: secret},
			},
			{
				"DELETE", "/v1/clients/" + escaped + "/secrets/" + url.PathEscape(other),
				&grantorv1.DeleteClientSecretRequest{ClientId: id, SecretId: other},
			},
			{"GET", "/v1/resources/" + escaped, &grantorv1.GetResourceRequest{Resource: id}},
			{"PATCH", "/v1/resources/" + escaped, &grantorv1.UpdateResourceRequest{Resource: &grantorv1.Resource{Resource: id}}},
			{"GET", "/v1/trusted-issuers/" + escaped, &grantorv1.GetTrustedIssuerRequest{Id: id}},
			{"PATCH", "/v1/trusted-issuers/" + escaped, &grantorv1.UpdateTrustedIssuerRequest{TrustedIssuer: &grantorv1.TrustedIssuer{Id: id}}},
			{"DELETE", "/v1/trusted-issuers/" + escaped, &grantorv1.DeleteTrustedIssuerRequest{Id: id}},
			{"GET", "/v1/workloads/" + escaped, &grantorv1.GetWorkloadRequest{ClientId: id}},
			{"PATCH", "/v1/workloads/" + escaped, &grantorv1.UpdateWorkloadRequest{Workload: &grantorv1.Workload{ClientId: id}}},
		} {
			if got := service.call(handler, c.method, c.path); got != http.StatusOK {
				t.Errorf("%s %s: got %d, want 200", c.method, c.path, got)
				continue
			}
			got := service.request.ProtoReflect()
			if mask := got.Descriptor().Fields().ByName("update_mask"); mask != nil {
				got.Clear(mask) // the gateway fills it from the body
			}
			if !proto.Equal(service.request, c.want) {
				t.Errorf("%s %s: got %v, want %v", c.method, c.path, service.request, c.want)
			}
		}
	}
}

// TestEscapesOutsideIDs sends paths that are those of a call only if an escape outside the id of a client, a secret or
// a resource is decoded. The handler compares the rest of a path as it was sent, so none of them reaches that call.
func TestEscapesOutsideIDs(t *testing.T) {
	var service capture
	handler := must.Get(rest.New(t.Context(), must.Get(oauth.ParseIssuer("https://issuer.test")), &service))
	if got := service.call(handler, "POST", "/v1/keys/abc:retire"); got != http.StatusOK || service.request.(*grantorv1.RetireKeyRequest).GetKid() != "abc" {
		t.Fatalf("got %d, want a path without escapes to reach the call", got)
	}
	for _, path := range []string{
		"/%76%31/clients/a", "/v1%2Fclients/a", "/v1/%63lients/a", "/v1/clients%2Fa", "/v1/clients/a%2Fsecrets:rotate", "/v1/clients/a/%73ecrets",
		"/v1/clients/a/secrets%3Arotate", "/v1/clients/a/secrets:%72otate", "/v1/clients/a/%73ecrets/b", "/v1/clients/a/secrets%2Fb",
		"/v1/clients/a/tokens%3Arevoke", "/v1/%72esources/a", "/v1/%6beys", "/v1/%6beys/abc:retire", "/v1/keys%3Arotate", "/v1/keys:%72otate",
		"/v1/keys%2Fabc:retire", "/v1/keys/%61bc:retire", "/v1/keys/abc%3Aretire", "/v1/keys/abc:%72etire", "/v1/keys/a%2Fb:retire",
		"/v1/keys/abc%3Acompromise",
	} {
		for _, method := range []string{"GET", "POST", "PATCH", "DELETE", "PUT"} {
			want := http.StatusNotFound
			if path == "/v1/clients/a%2Fsecrets:rotate" { // a client of that id
				want = map[string]int{"GET": 200, "PATCH": 200, "DELETE": 200}[method]
				if want == 0 {
					want = http.StatusMethodNotAllowed
				}
			}
			if got := service.call(handler, method, path); got != want {
				t.Errorf("%s %s: got %d, want %d", method, path, got, want)
			}
		}
	}
}

// TestContentTypesOfCalls sends administrative calls with each kind of Content-Type.
func TestContentTypesOfCalls(t *testing.T) {
	var service capture
	handler := must.Get(rest.New(t.Context(), must.Get(oauth.ParseIssuer("https://issuer.test")), &service))
	for contentType, want := range map[string]int{
		"application/json": http.StatusOK, "Application/JSON;\tcharset=utf-8 ": http.StatusOK,
		"": http.StatusBadRequest, "text/json": http.StatusBadRequest, "application/json;charset": http.StatusBadRequest,
		"appl\u0130cation/json": http.StatusBadRequest, "application/j\u017fon": http.StatusBadRequest,
		"application/json\u00a0": http.StatusBadRequest, "application/json\u0085": http.StatusBadRequest,
		"\u2003application/json": http.StatusBadRequest, "application/json;\u00a0charset=utf-8": http.StatusBadRequest,
		"application/json\v": http.StatusBadRequest, "application/json;charset=\"\x7f\"": http.StatusBadRequest,
	} {
		request := httptest.NewRequest(http.MethodPost, "/v1/keys/abc:retire", strings.NewReader("{}"))
		request.Header.Set("Content-Type", contentType)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if recorder.Code != want {
			t.Errorf("%q: got %d, want %d", contentType, recorder.Code, want)
		}
	}
}

// call sends a request without a query and returns the status of the answer.
func (c *capture) call(handler http.Handler, method, path string) int {
	c.request = nil
	body := ""
	if method == http.MethodPost || method == http.MethodPatch {
		body = "{}"
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(method, path, strings.NewReader(body)))
	return recorder.Code
}
