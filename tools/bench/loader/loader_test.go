package loader_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/tools/bench/loader"
)

// short is a load of a tenth of a second.
var short = loader.Timing{Window: 10 * time.Millisecond, WarmUp: 100 * time.Millisecond, Duration: 100 * time.Millisecond}

// noCPU stands for a server whose processor time is not measured.
func noCPU() (time.Duration, error) { return 0, nil }

// numbered returns requests, each with the number of those before it, up to a maximum.
func numbered(limit int64, request func(int64) []byte) func() []byte {
	var made atomic.Int64
	return func() []byte {
		n := made.Add(1) - 1
		if n >= limit {
			return nil
		}
		return request(n)
	}
}

// tokens answers each call with a token, unless it has other instructions. It counts the calls by client.
type tokens struct {
	grantorv1.UnimplementedTokenServiceServer

	answer  func(client string) (string, error)
	calls   atomic.Int64
	clients [100]atomic.Int64
}

// IssueToken implements [grantorv1.TokenServiceServer].
func (s *tokens) IssueToken(_ context.Context, r *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	s.calls.Add(1)
	var n int
	if _, err := fmt.Sscan(r.GetClientId(), &n); err != nil {
		return nil, err
	}
	s.clients[n%len(s.clients)].Add(1)
	token, err := s.answer(r.GetClientId())
	return &grantorv1.IssueTokenResponse{AccessToken: token}, err
}

// serve starts a gRPC server and returns its address.
func serve(t *testing.T, s *tokens) string {
	t.Helper()
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	server := grpc.NewServer()
	grantorv1.RegisterTokenServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// issue returns the request of a client whose name is a number.
func issue(n int64) []byte {
	return loader.Request(must.Get(proto.Marshal(&grantorv1.IssueTokenRequest{ClientId: fmt.Sprint(n)})))
}

const noLimit = 1 << 60

// TestGRPC expects that each call is sent once, that calls and latencies are counted, and that the load measures the
// processor time between the beginning and the end.
func TestGRPC(t *testing.T) {
	s := &tokens{answer: func(string) (string, error) { return strings.Repeat("t", 500), nil }}
	var cpu time.Duration
	l := loader.GRPC(serve(t, s), grantorv1.TokenService_IssueToken_FullMethodName, 4, 8, numbered(noLimit, issue))
	r, err := l.Run(t.Context(), short, func() (time.Duration, error) { cpu += time.Second; return cpu, nil })
	if err != nil {
		t.Fatal(err)
	}
	if sent := s.calls.Load(); r.Calls <= 0 || r.Calls > sent {
		t.Errorf("got %d calls, and the server %d", r.Calls, sent)
	}
	if r.CPU != time.Second || r.Client <= 0 || r.Seconds < 0.1 || len(r.Latencies) == 0 {
		t.Errorf("got %s, of the client %s, in %.3f s and %d latencies", r.CPU, r.Client, r.Seconds, len(r.Latencies))
	}
}

// TestRequestsEnd expects that a load with a limited number of requests ends early, after each was sent once.
func TestRequestsEnd(t *testing.T) {
	s := &tokens{answer: func(string) (string, error) { return strings.Repeat("t", 500), nil }}
	l := loader.GRPC(serve(t, s), grantorv1.TokenService_IssueToken_FullMethodName, 2, 4, numbered(int64(len(s.clients)), func(n int64) []byte {
		time.Sleep(2 * time.Millisecond)
		return issue(n)
	}))
	r, err := l.Run(t.Context(), loader.Timing{Window: time.Millisecond, WarmUp: time.Millisecond, Duration: time.Minute}, noCPU)
	if err != nil {
		t.Fatal(err)
	}
	if r.Seconds > 30 {
		t.Errorf("it took %.1f s", r.Seconds)
	}
	for n := range s.clients {
		if got := s.clients[n].Load(); got != 1 {
			t.Errorf("the request %d arrived %d times", n, got)
		}
	}
}

// TestGRPCRefusals expects an error that names the status if one call fails, and if one has an empty answer.
func TestGRPCRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(string) (string, error)
		want   string
	}{
		"a failure":       {func(string) (string, error) { return "", status.Error(codes.Unauthenticated, "wrong secret") }, `the status "16", "wrong secret"`},
		"an empty answer": {func(string) (string, error) { return "", nil }, `the status "0"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := &tokens{answer: func(client string) (string, error) {
				if client == "50" {
					return c.answer(client)
				}
				return strings.Repeat("t", 500), nil
			}}
			l := loader.GRPC(serve(t, s), grantorv1.TokenService_IssueToken_FullMethodName, 4, 8, numbered(noLimit, issue))
			if _, err := l.Run(t.Context(), short, noCPU); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got the error %v, want one with %s", err, c.want)
			}
		})
	}
}

// TestHTTP1 expects that calls are counted, and an error if one is refused or has no body.
func TestHTTP1(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"success": {func(w http.ResponseWriter) { _, _ = w.Write(make([]byte, 500)) }, ""},
		"chunks": {func(w http.ResponseWriter) {
			for range 3 {
				_, _ = w.Write(make([]byte, 500))
				_ = http.NewResponseController(w).Flush()
			}
		}, ""},
		"small chunks": {func(w http.ResponseWriter) {
			_, _ = w.Write([]byte("{"))
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write([]byte("}"))
		}, "a length of 2"},
		"a failure":       {func(w http.ResponseWriter) { http.Error(w, "no", http.StatusTooManyRequests) }, "429 Too Many Requests"},
		"an empty answer": {func(w http.ResponseWriter) { _, _ = w.Write([]byte("{}")) }, "a length of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if n := calls.Add(1); r.FormValue("scope") != "orders.read" {
					http.Error(w, "no scope", http.StatusBadRequest)
				} else if n == 50 {
					c.answer(w)
				} else {
					_, _ = w.Write(make([]byte, 500))
				}
			}))
			defer server.Close()
			request := []byte("POST /connect/token HTTP/1.1\r\nHost: localhost\r\n" +
				"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 17\r\n\r\nscope=orders.read")
			l := loader.HTTP1(server.Listener.Addr().String(), 8, func() []byte { return request })
			r, err := l.Run(t.Context(), short, noCPU)
			switch {
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got the error %v, want one with %s", err, c.want)
				}
			case err != nil:
				t.Error(err)
			case r.Calls <= 0 || r.Calls > calls.Load() || len(r.Latencies) == 0:
				t.Errorf("got %d calls and %d latencies, and the server %d calls", r.Calls, len(r.Latencies), calls.Load())
			}
		})
	}
}

// TestLoadEnds expects that the end of the context ends a load, and that an unreachable server is an error.
func TestLoadEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &tokens{answer: func(string) (string, error) { cancel(); return strings.Repeat("t", 500), nil }}
	address := serve(t, s)
	l := loader.GRPC(address, grantorv1.TokenService_IssueToken_FullMethodName, 4, 8, numbered(noLimit, issue))
	if _, err := l.Run(ctx, loader.Timing{Window: time.Second, WarmUp: time.Second, Duration: time.Minute}, noCPU); !errors.Is(err, context.Canceled) {
		t.Errorf("got the error %v", err)
	}
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	_ = listener.Close()
	if _, err := loader.HTTP1(listener.Addr().String(), 1, func() []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }).Run(t.Context(), short, noCPU); err == nil {
		t.Error("got no error from a server that does not listen")
	}
}
