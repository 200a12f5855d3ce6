package ports_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
)

// tokenRequest is a token request of the client of development mode.
func tokenRequest(secret string) *grantorv1.IssueTokenRequest {
	return &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: "background-service", ClientSecret: secret, Scope: "api1"}
}

// browserProtocols are the protocols of connect-go that need no HTTP/2.
var browserProtocols = map[string]connect.ClientOption{"Connect": connect.WithClientOptions(), "gRPC-Web": connect.WithGRPCWeb()}

// request requests a token by a protocol.
func request(t *testing.T, r *servetest.Replica, protocol connect.ClientOption, secret string) error {
	t.Helper()
	client := connect.NewClient[grantorv1.IssueTokenRequest, grantorv1.IssueTokenResponse](http.DefaultClient,
		r.URL(grantorv1.TokenService_IssueToken_FullMethodName), protocol)
	_, err := client.CallUnary(t.Context(), connect.NewRequest(tokenRequest(secret)))
	return err
}

// wantLimit checks that a call was refused for a limit, with the time to wait.
func wantLimit(t *testing.T, err error) {
	t.Helper()
	refused, ok := errors.AsType[*connect.Error](err)
	if !ok || refused.Code() != connect.CodeResourceExhausted {
		t.Fatalf("got %v, want resource_exhausted", err)
	}
	reason, wait := "", time.Duration(0)
	for _, detail := range refused.Details() {
		switch d := must.Get(detail.Value()).(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration()
		}
	}
	if reason != "temporarily_unavailable" || wait <= 0 || refused.Meta().Get("Retry-After") == "" {
		t.Errorf("got %v with the reason %q, the wait %s and %v", err, reason, wait, refused.Meta())
	}
}

// TestCallLimits expects calls by Connect and gRPC-Web to count as those of REST do.
func TestCallLimits(t *testing.T) {
	for name, protocol := range browserProtocols {
		t.Run(name+" requests", func(t *testing.T) {
			r := servetest.Dev(t, "--requests-per-source=2")
			var err error
			must.Eventually(t, "a second has too many requests", func() bool {
				err = request(t, r, protocol, "service-secret-here")
				return err != nil
			})
			wantLimit(t, err)
			must.Eventually(t, "the next second has room", func() bool { return request(t, r, protocol, "service-secret-here") == nil })
		})
		t.Run(name+" failures", func(t *testing.T) {
			r := servetest.Dev(t, "--failures-per-client=3")
			var err error
			for range 10 { // a new minute may begin in between
				if err = request(t, r, protocol, "wrong"); connect.CodeOf(err) != connect.CodeUnauthenticated {
					break
				}
			}
			wantLimit(t, err)
			if n := strings.Count(r.Log.String(), `"reason":"too_many_failures"`) + strings.Count(r.Log.String(), "reason=too_many_failures"); n == 0 {
				t.Error("the audit log does not have the reason")
			}
		})
	}
}

// TestCallBudget declares bodies of 1 MiB that do not arrive: the memory of one address holds 47 of them.
func TestCallBudget(t *testing.T) {
	r := servetest.Dev(t)
	refused, ended := 0, make(chan bool, 60)
	for range cap(ended) {
		conn := dialFrom(t, "127.0.0.5", r.HTTPAddr())
		_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{",
			grantorv1.TokenService_IntrospectTokens_FullMethodName, 1<<20)
		go func() {
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				ended <- false
				return
			}
			_ = answer.Body.Close()
			ended <- answer.StatusCode == http.StatusTooManyRequests
		}()
	}
	for answers := time.After(3 * time.Second); answers != nil; {
		select {
		case limited := <-ended:
			if limited {
				refused++
			}
		case <-answers: // the others have 15 s
			answers = nil
		}
	}
	// Half of those within the budget have a second to arrive, and then get another answer.
	if refused < 10 || refused > 20 {
		t.Errorf("%d requests were refused for their memory, want 13 or so", refused)
	}
}

// TestSlowCall sends a body at a few bytes a second: its time is that of REST.
func TestSlowCall(t *testing.T) {
	t.Parallel()
	r := servetest.Dev(t)
	for _, mediaType := range []string{"application/json", "application/grpc-web+proto"} {
		t.Run(mediaType, func(t *testing.T) {
			t.Parallel()
			conn := dialFrom(t, "127.0.0.5", r.HTTPAddr())
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n",
				grantorv1.TokenService_IssueToken_FullMethodName, mediaType)
			began, done := time.Now(), make(chan struct{})
			go func() {
				defer close(done)
				for range 100 {
					if _, err := io.WriteString(conn, " "); err != nil {
						return
					}
					time.Sleep(200 * time.Millisecond)
				}
			}()
			answer := must.Get(http.ReadResponse(bufio.NewReader(conn), nil))
			if took := time.Since(began); took < 10*time.Second || took > 25*time.Second {
				t.Errorf("got an answer after %s, want it after 15s", took)
			}
			if answer.StatusCode != http.StatusBadRequest && answer.Header.Get("Grpc-Status") != "3" {
				t.Errorf("got %s %v, want a refusal", answer.Status, answer.Header)
			}
			_ = answer.Body.Close()
			_ = conn.Close()
			<-done
		})
	}
}

// TestCallsAreObserved expects the routes of calls in the metrics, and their refusals in the audit log.
func TestCallsAreObserved(t *testing.T) {
	r := servetest.Dev(t)
	for _, protocol := range browserProtocols {
		must.Succeed(t, request(t, r, protocol, "service-secret-here"))
	}
	answer := must.Get(http.Post(r.URL(grantorv1.TokenService_RevokeToken_FullMethodName), "application/json", strings.NewReader(`{"token":`)))
	servetest.ReadBody(t, answer)
	_, metrics := servetest.Get(t, "http://"+r.OpsAddr()+"/metrics")
	for _, want := range []string{
		`http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="200",http_route="/grantor.v1.TokenService/IssueToken",`,
		`http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="400",http_route="/grantor.v1.TokenService/RevokeToken",`,
		`rpc_method="grantor.v1.TokenService/IssueToken",rpc_response_status_code="OK"`,
		`grantor_request_refused_total{error="invalid_request",`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics do not have %s", want)
		}
	}
	if log := r.Log.String(); !strings.Contains(log, "revoke_refused") {
		t.Errorf("the audit log does not have the refusal of an unreadable call:\n%s", log)
	}
}

// TestGRPCOnTheHTTPPort calls by grpc-go, in plaintext and with TLS. Only the token service is there, with the limits of the port.
func TestGRPCOnTheHTTPPort(t *testing.T) {
	authority := servetest.NewAuthority(t)
	cert, key := authority.WriteLeaf(t, t.TempDir(), 2)
	plain, secure := servetest.Dev(t, "--http-h2c"), servetest.Dev(t, "--tls-cert-file="+cert, "--tls-key-file="+key)
	for name, c := range map[string]struct {
		target   string
		security credentials.TransportCredentials
	}{
		"plaintext": {plain.HTTPAddr(), insecure.NewCredentials()},
		"TLS":       {secure.HTTPAddr(), credentials.NewTLS(&tls.Config{RootCAs: authority.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})},
	} {
		t.Run(name, func(t *testing.T) {
			conn := must.Get(grpc.NewClient("passthrough:///"+c.target, grpc.WithTransportCredentials(c.security)))
			defer func() { _ = conn.Close() }()
			client := grantorv1.NewTokenServiceClient(conn)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			token, err := client.IssueToken(ctx, tokenRequest("service-secret-here"))
			must.Succeed(t, err)
			if token.GetTokenType() != "Bearer" {
				t.Errorf("got %v, want a token", token)
			}
			_, err = client.IssueToken(ctx, tokenRequest("wrong"))
			wantReason(t, err, codes.Unauthenticated, "invalid_client")
			_, err = client.IssueToken(ctx, tokenRequest(strings.Repeat("x", 64<<10)))
			wantReason(t, err, codes.InvalidArgument, "invalid_request")
			stream, err := grantorv1.NewRevocationServiceClient(conn).WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("a stream: got %v, want UNIMPLEMENTED", err)
			}
			_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("the health service: got %v, want UNIMPLEMENTED", err)
			}
		})
	}
}

// wantReason checks the code of a gRPC error and the reason in its ErrorInfo.
func wantReason(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetReason() == reason && status.Code(err) == code {
			return
		}
	}
	t.Errorf("got %v, want %s with %s", err, code, reason)
}

// TestCallCORS sends the preflight of a call: it is permitted for the origins of the setting alone.
func TestCallCORS(t *testing.T) {
	const page = "http://localhost:3000"
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"named": {[]string{"--cors-origins=" + page}, page}, "another": {[]string{"--cors-origins=https://console.example.com"}, ""}, "none": {nil, ""},
	} {
		r := servetest.Dev(t, c.args...)
		preflight := must.Get(http.NewRequestWithContext(t.Context(), http.MethodOptions, r.URL(grantorv1.TokenService_IssueToken_FullMethodName), http.NoBody))
		preflight.Header = http.Header{"Origin": {page}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"connect-protocol-version,content-type"}}
		answer := must.Get(http.DefaultClient.Do(preflight))
		servetest.ReadBody(t, answer)
		if got := answer.Header.Get("Access-Control-Allow-Origin"); got != c.want || (answer.StatusCode == http.StatusNoContent) != (c.want != "") {
			t.Errorf("%s: got %s with the origin %q, want %q", name, answer.Status, got, c.want)
		}
	}
}
