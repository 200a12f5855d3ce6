package rest_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/rest"
)

// stub is a service whose every call returns the error of answer.
type stub struct {
	grantorv1.UnimplementedTokenServiceServer
	answer func(ctx context.Context) error
}

func (s *stub) Register(server grpc.ServiceRegistrar) {
	grantorv1.RegisterTokenServiceServer(server, s)
}

func (s *stub) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		return &grantorv1.IssueTokenResponse{}, s.answer(ctx)
	}
}

func (*stub) Certificates(p *peer.Peer, _ net.Addr, _ func(string) []string) (*peer.Peer, error) {
	return p, nil
}
func (*stub) Origin(peer net.Addr, _ []string) net.Addr          { return peer }
func (*stub) Receive(context.Context, int) (func(), bool, error) { return func() {}, false, nil }
func (*stub) Admit(ctx context.Context) (context.Context, error) { return ctx, nil }

func (*stub) Unread(context.Context, string, *oauth.Error) {}

// serve returns the answer of a handler in front of the stub to a token request.
func (s *stub) serve(t *testing.T, headers http.Header) *answer {
	t.Helper()
	name, err := oauth.ParseIssuer("https://issuer.test")
	must.Succeed(t, err)
	handler, err := rest.New(t.Context(), name, s)
	must.Succeed(t, err)
	r := httptest.NewRequest(http.MethodPost, "/connect/token", strings.NewReader(good().Encode()))
	r.Header = headers
	r.Header.Set("Content-Type", formType)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	return &answer{recorder.Code, recorder.Header(), recorder.Body.String()}
}

// refused returns a status of the form that the service returns.
func refused(code codes.Code, reason string, details ...protoadapt.MessageV1) error {
	s, err := status.New(code, "A fixed text.").WithDetails(append(details, &errdetails.ErrorInfo{Reason: reason, Domain: "grantor"})...)
	if err != nil {
		return err
	}
	return s.Err()
}

// TestFailures checks the HTTP answer to each status of the services.
func TestFailures(t *testing.T) {
	retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(1200 * time.Millisecond)}
	for _, c := range []struct {
		name   string
		err    error
		status int
		code   string
		retry  string
	}{
		{"invalid_request", refused(codes.InvalidArgument, "invalid_request"), 400, "invalid_request", ""},
		{"invalid_client", refused(codes.Unauthenticated, "invalid_client"), 401, "invalid_client", ""},
		{"unauthorized_client", refused(codes.PermissionDenied, "unauthorized_client"), 400, "unauthorized_client", ""},
		{"stale knowledge", refused(codes.Unavailable, "temporarily_unavailable", retry), 503, "temporarily_unavailable", "2"},
		{"over a limit", refused(codes.ResourceExhausted, "temporarily_unavailable", retry), 429, "temporarily_unavailable", "2"},
		{"server_error", refused(codes.Internal, "server_error"), 500, "server_error", ""},
		{"a status without a reason", status.Error(codes.NotFound, "hidden"), 500, "server_error", ""},
		{"a decode error", status.Error(codes.InvalidArgument, "hidden"), 400, "invalid_request", ""},
		{"any error", errors.New("hidden"), 500, "server_error", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := (&stub{answer: func(context.Context) error { return c.err }}).serve(t, http.Header{})
			wantRefusal(t, a, c.status, c.code, "hidden")
			if got := a.header.Get("Retry-After"); got != c.retry {
				t.Errorf("Retry-After: got %q, want %q", got, c.retry)
			}
		})
	}
}

// TestHandlersSee checks that the services see the Authorization header of a request and no other.
func TestHandlersSee(t *testing.T) {
	headers := http.Header{"Authorization": {"Basic hidden"}}
	for _, line := range edge {
		name, value, _ := strings.Cut(line, ": ")
		headers.Add(name, value+"hidden")
	}
	var seen metadata.MD
	var from string
	var bounded bool
	(&stub{answer: func(ctx context.Context) error {
		seen, _ = metadata.FromIncomingContext(ctx)
		if p, ok := peer.FromContext(ctx); ok {
			from = p.Addr.String()
		}
		_, bounded = ctx.Deadline()
		return nil
	}}).serve(t, headers)
	for key, values := range seen {
		for _, value := range values {
			if strings.Contains(value, "hidden") && key != "authorization" {
				t.Errorf("the service sees %s: %s", key, value)
			}
		}
	}
	if got := seen.Get("authorization"); len(got) != 1 || got[0] != "Basic hidden" {
		t.Errorf("authorization: got %q, want what was sent", got)
	}
	if from != "192.0.2.1:1234" { // httptest's
		t.Errorf("got the peer %q, want the one of the connection", from)
	}
	if bounded {
		t.Error("got a deadline, want none: the caller must not set it")
	}
}
