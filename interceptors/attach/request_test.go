package attach_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/oauth"
)

func TestTokenRequest(t *testing.T) {
	server := newTokenServer(t, nil)
	source := attach.ClientCredentials(server.URL, "team:background service", "p&ss wörd%",
		attach.Scopes("api1", "orders.read"), attach.Resources("https://a.internal", "https://b.internal"))
	if got := accessToken(t, source); got != "token-1" {
		t.Errorf("got %q, want token-1", got)
	}
	want := "grant_type=client_credentials&resource=https%3A%2F%2Fa.internal&resource=https%3A%2F%2Fb.internal" +
		"&scope=api1+orders.read"
	if diff := cmp.Diff([]string{want}, server.requestForms()); diff != "" {
		t.Errorf("the form (-want +got):\n%s", diff)
	}
	if server.id != "team%3Abackground+service" || server.secret != "p%26ss+w%C3%B6rd%25" {
		t.Errorf("got credentials %q and %q, want them form-encoded (RFC 6749 §2.3.1)", server.id, server.secret)
	}
	source.Drop("token-1")
	if got := accessToken(t, source); got != "token-2" || server.lookups != 1 {
		t.Errorf("got %q after %d metadata lookups, want token-2 after 1", got, server.lookups)
	}
}

func TestTokenURLNeedsNoDescription(t *testing.T) {
	server := newTokenServer(t, nil)
	source := attach.ClientCredentials("", "background-service", "s3cret", attach.TokenURL(server.URL+"/connect/token"))
	if got := accessToken(t, source); got != "token-1" || server.lookups != 0 {
		t.Errorf("got %q with %d lookups, want token-1 and none", got, server.lookups)
	}
	if got := server.requestForms()[0]; got != "grant_type=client_credentials" {
		t.Errorf("got form %q, want no scope or resource in it", got)
	}
}

// An endpoint that no longer answers like one is looked up again.
func TestTokenEndpointMoves(t *testing.T) {
	moved := false
	server := newTokenServer(t, func(w http.ResponseWriter, _ *http.Request) {
		if moved = !moved; moved {
			http.NotFound(w, nil)
			return
		}
		_, _ = fmt.Fprint(w, `{"access_token":"found","token_type":"bearer"}`)
	})
	source := attach.ClientCredentials(server.URL, "background-service", "s3cret")
	if _, err := attach.Issue(t.Context(), source); err == nil {
		t.Fatal("got a token from a 404")
	}
	got, err := attach.Issue(t.Context(), source)
	if err != nil || got != "found" || server.lookups != 2 {
		t.Errorf("got %q, %v after %d lookups, want found after 2", got, err, server.lookups)
	}
}

func TestAnswers(t *testing.T) {
	const secret = "service-secret-here"
	body := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, text)
		}
	}
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		code   oauth.Code
		text   string // in the error; empty if a token is issued
		grpc   codes.Code
	}{
		{"letter case of the type", body(200, `{"access_token":"a","token_type":"bEARER","expires_in":60}`), "", "", 0},
		{"quoted expires_in", body(200, `{"access_token":"a","token_type":"Bearer","expires_in":"60"}`), "", "", 0},
		{"no expires_in", body(200, `{"access_token":"a","token_type":"Bearer"}`), "", "", 0},
		{"endless expires_in", body(200, `{"access_token":"a","token_type":"Bearer","expires_in":1e300}`), "", "", 0},
		{"expires_in beyond a float", body(200, `{"access_token":"a","token_type":"Bearer","expires_in":1e400}`), "", "", 0},
		{"null expires_in", body(200, `{"access_token":"a","token_type":"Bearer","expires_in":null}`), "", "", 0},
		{"scope as a list", body(200, `{"access_token":"a","token_type":"Bearer","scope":["api1","api2"],"expires_in":60}`), "", "", 0},
		{"scope as null, members twice", body(200, `{"access_token":"b","access_token":"a","token_type":"Bearer","scope":null}`), "", "", 0},
		{"401 without a code", body(401, ``), "", "401 Unauthorized", codes.Unauthenticated},
		{"403 without a code", body(403, `<html>`), "", "403 Forbidden", codes.PermissionDenied},
		{"access_denied", body(403, `{"error":"access_denied","error_description":"Not granted."}`), "access_denied",
			"access_denied: Not granted.", codes.PermissionDenied},
		{"unauthorized_client", body(400, `{"error":"unauthorized_client"}`), oauth.UnauthorizedClient, "unauthorized_client",
			codes.PermissionDenied},
		{"error of another shape", body(400, `{"error":{"code":1}}`), "", "400 Bad Request", codes.Internal},
		{"204", body(204, ``), "", "204 No Content", codes.Internal},
		{"null", body(200, `null`), "", "no access_token", codes.Internal},
		{"deep JSON", body(200, strings.Repeat("[", 20_000)), "", "not the JSON", codes.Internal},
		{"token that is not UTF-8", body(200, "{\"access_token\":\"a\xff\",\"token_type\":\"Bearer\"}"), "", "visible ASCII", codes.Internal},
		{"status without a name", body(599, ``), "", "answered 599", codes.Unavailable},
		{"not JSON", body(200, `access_token=a`), "", "not the JSON", codes.Internal},
		{"empty", body(200, ``), "", "not the JSON", codes.Internal},
		{"no token", body(200, `{"token_type":"Bearer","expires_in":60}`), "", "no access_token", codes.Internal},
		{"token of bytes that end a header", body(200, `{"access_token":"a\r\nb","token_type":"Bearer"}`), "",
			"visible ASCII", codes.Internal},
		{"token beyond ASCII", body(200, `{"access_token":"ä","token_type":"Bearer"}`), "", "visible ASCII", codes.Internal},
		{"token too long", body(200, `{"access_token":"`+strings.Repeat("a", 9000)+`","token_type":"Bearer"}`), "",
			"9000 bytes", codes.Internal},
		{"no type", body(200, `{"access_token":"a"}`), "", "not Bearer", codes.Internal},
		{"another type", body(200, `{"access_token":"a","token_type":"DPoP"}`), "", "not Bearer", codes.Internal},
		{"negative expires_in", body(200, `{"access_token":"a","token_type":"Bearer","expires_in":-1}`), "",
			"expires_in", codes.Internal},
		{"expires_in of zero", body(200, `{"access_token":"a","token_type":"Bearer","expires_in":0}`), "", "expires_in",
			codes.Internal},
		{"huge", body(200, `{"access_token":"a","x":"`+strings.Repeat("x", 70_000)+`"}`), "", "65536 bytes", codes.Internal},
		{"HTML", body(500, `<html>`+secret), "", "500 Internal Server Error", codes.Unavailable},
		{"too many", body(429, ``), "", "429", codes.Unavailable},
		{"not found", body(404, ``), "", "404", codes.Internal},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "", "redirect is not followed", codes.Internal},
		{"invalid_client", body(401, `{"error":"invalid_client","error_description":"Wrong secret."}`),
			oauth.InvalidClient, "invalid_client: Wrong secret.", codes.Unauthenticated},
		{"error with 200", body(200, `{"error":"invalid_scope"}`), oauth.InvalidScope, "invalid_scope", codes.Internal},
		{"temporarily_unavailable", body(503, `{"error":"temporarily_unavailable"}`), oauth.TemporarilyUnavailable,
			"temporarily_unavailable", codes.Unavailable},
		{"secret and line breaks echoed", body(400, `{"error":"invalid_client","error_description":"not `+secret+`\nX: y"}`),
			oauth.InvalidClient, "(omitted: it contains the secret)", codes.Unauthenticated},
		{"connection cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", "EOF",
			codes.Unavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := newTokenServer(t, test.answer)
			source := attach.ClientCredentials(server.URL, "background-service", secret)
			token, err := source.Token()
			wantNoSecret(t, secret, source, token, err)
			if test.text == "" {
				if err != nil || token.AccessToken != "a" {
					t.Errorf("got %v, %v, want a token", token, err)
				}
				return
			}
			var refusal *attach.Error
			if !errors.As(err, &refusal) {
				t.Fatalf("got %v, want an *attach.Error", err)
			}
			if refusal.Code != test.code || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got code %q and %q, want %q and %q in it", refusal.Code, err, test.code, test.text)
			}
			if got := status.Code(err); got != test.grpc {
				t.Errorf("got gRPC code %v, want %v", got, test.grpc)
			}
			want := 1
			if test.name == "temporarily_unavailable" || test.name == "connection cut" {
				want = 4
			}
			if got := len(server.requestForms()); got != want {
				t.Errorf("got %d requests, want %d", got, want)
			}
		})
	}
}

// TestRequestAtARestart makes token requests whose first attempts fail as they do while a replica restarts.
func TestRequestAtARestart(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"not ready": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"gone":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"cut off":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"timed out": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGatewayTimeout) },
	} {
		t.Run(name, func(t *testing.T) {
			var times int
			server := newTokenServer(t, func(w http.ResponseWriter, r *http.Request) {
				if times++; times < 4 {
					fail(w, r)
					return
				}
				_, _ = fmt.Fprint(w, `{"access_token":"a","token_type":"Bearer"}`)
			})
			if got := accessToken(t, attach.ClientCredentials(server.URL, "background-service", "s3cret")); got != "a" {
				t.Errorf("got %q, want a", got)
			}
		})
	}
}

func TestSourcePrintsNeitherSecretNorToken(t *testing.T) {
	const secret = "service-secret-here"
	server := newTokenServer(t, nil)
	for name, source := range map[string]*attach.Source{
		"HTTP": attach.ClientCredentials(server.URL, "background-service", secret),
		"gRPC": attach.ClientCredentials("", "background-service", secret, attach.OverGRPC(tokenService(t, &grantor{}))),
	} {
		token := accessToken(t, source)
		held := struct{ Source *attach.Source }{source}
		transport := source.Transport(roundTripper(nil))
		wantNoSecret(t, secret, source, held, transport, source.PerRPCCredentials())
		wantNoSecret(t, token, source, held, transport, source.PerRPCCredentials())
		if got, want := fmt.Sprint(source), `attach.Source("background-service")`; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestMisuseShowsAtTheFirstToken(t *testing.T) {
	for _, test := range []struct {
		name, issuer, id, secret, text string
		options                        []attach.Option
	}{
		{"no issuer", "", "a", "b", "not a URL", nil},
		{"issuer in plaintext", "http://auth.example.com", "a", "b", "neither https nor loopback", nil},
		{"issuer in plaintext, allowed", "http://auth.example.com", "a", "b", "neither https nor loopback",
			[]attach.Option{attach.AllowInsecurePlaintextToRemoteHosts()}},
		{"no id", "https://auth.example.com", "", "b", "client id is empty", nil},
		{"no secret", "https://auth.example.com", "a", "", "client secret is empty", nil},
		{"token endpoint in plaintext", "", "a", "b", "neither https nor loopback",
			[]attach.Option{attach.TokenURL("http://auth.example.com/token")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := attach.ClientCredentials(test.issuer, test.id, test.secret, test.options...)
			if _, err := source.Token(); err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %q in it", err, test.text)
			}
		})
	}
}

func TestPlaintextTokenEndpointByOption(t *testing.T) {
	server := newTokenServer(t, nil)
	dialer := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}}
	defer dialer.CloseIdleConnections()
	source := attach.ClientCredentials("", "background-service", "s3cret",
		attach.TokenURL("http://auth.example.com/connect/token"), attach.HTTPClient(&http.Client{Transport: dialer}),
		attach.AllowInsecurePlaintextToRemoteHosts())
	if got := accessToken(t, source); got != "token-1" {
		t.Errorf("got %q, want token-1", got)
	}
}

func TestOverGRPC(t *testing.T) {
	server := &grantor{}
	source := attach.ClientCredentials("", "background-service", "s3cret", attach.OverGRPC(tokenService(t, server)),
		attach.Scopes("api1", "api2"), attach.Resources("https://a.internal"))
	token, err := source.Token()
	if err != nil || token.AccessToken != "over-grpc" || time.Until(token.Expiry) > time.Minute {
		t.Errorf("got %v, %v, want over-grpc for a minute", token, err)
	}
	want := &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: "background-service",
		ClientSecret: "s3cret", Scope: "api1 api2", Resource: []string{"https://a.internal"}}
	if diff := cmp.Diff(want, server.got, protocmp.Transform()); diff != "" {
		t.Errorf("the request (-want +got):\n%s", diff)
	}
}

func TestOverGRPCRefused(t *testing.T) {
	const secret = "service-secret-here"
	refusal, err := status.New(codes.Unauthenticated, "Not "+secret).WithDetails(
		&errdetails.ErrorInfo{Reason: "invalid_client", Domain: "grantor"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		server *grantor
		code   oauth.Code
		text   string
		grpc   codes.Code
	}{
		{"refused", &grantor{err: refusal.Err()}, oauth.InvalidClient, "invalid_client: (omitted: it contains the secret)", codes.Unauthenticated},
		{"in trouble", &grantor{err: status.Error(codes.Unavailable, "no "+secret)}, "", "(omitted: it contains the secret)", codes.Unavailable},
		{"no lifetime", &grantor{reply: &grantorv1.IssueTokenResponse{AccessToken: "a", TokenType: "Bearer"}}, "",
			"expires_in 0", codes.Internal},
		{"another type", &grantor{reply: &grantorv1.IssueTokenResponse{AccessToken: "a", TokenType: "mac", ExpiresIn: 1}}, "",
			"not Bearer", codes.Internal},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := attach.ClientCredentials("", "a", secret, attach.OverGRPC(tokenService(t, test.server)))
			_, err := source.Token()
			wantNoSecret(t, secret, err)
			var refusal *attach.Error
			if !errors.As(err, &refusal) || refusal.Code != test.code || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want code %q and %q in it", err, test.code, test.text)
			}
			if got := status.Code(err); got != test.grpc {
				t.Errorf("got gRPC code %v, want %v", got, test.grpc)
			}
		})
	}
}

func TestOverGRPCSendsNoSecretInPlaintext(t *testing.T) {
	server := &grantor{}
	conn := dial(t, "passthrough:///auth.internal:443", plaintext, remote(server.serve(t)))
	_, err := attach.ClientCredentials("", "a", "b", attach.OverGRPC(conn)).Token()
	if err == nil || !strings.Contains(err.Error(), "no transport security") || server.got != nil {
		t.Errorf("got %v after the server got %v, want a refusal before anything is sent", err, server.got)
	}
	source := attach.ClientCredentials("", "a", "b", attach.OverGRPC(conn), attach.AllowInsecurePlaintextToRemoteHosts())
	if got := accessToken(t, source); got != "over-grpc" {
		t.Errorf("got %q, want over-grpc", got)
	}
}
