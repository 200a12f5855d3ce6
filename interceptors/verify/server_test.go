package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

func TestServerStart(t *testing.T) {
	with := func(change func(verify.Policy)) verify.Policy {
		policy := maps.Clone(goPolicy)
		change(policy)
		return policy
	}
	tests := map[string]struct {
		policy   verify.Policy
		services []*grpc.ServiceDesc
		reflect  bool
		want     []string // substrings of the error; empty if the server starts
	}{
		"Go and proto rules":     {policy: goPolicy, services: []*grpc.ServiceDesc{goService, protoService}},
		"proto rules alone":      {services: []*grpc.ServiceDesc{protoService}},
		"no policy":              {services: []*grpc.ServiceDesc{goService}, want: []string{"without a rule", "/test.v1.Go/Read", "/test.v1.Go/Chat"}},
		"reflection has no rule": {services: []*grpc.ServiceDesc{protoService}, reflect: true, want: []string{"without a rule", "/grpc.reflection.v1.ServerReflection/"}},
		"one method without": {
			policy:   with(func(p verify.Policy) { delete(p, "/test.v1.Go/Any") }),
			services: []*grpc.ServiceDesc{goService}, want: []string{"without a rule: /test.v1.Go/Any"},
		},
		"no such method": {
			policy:   with(func(p verify.Policy) { p["/test.v1.Go/read"] = verify.Public() }),
			services: []*grpc.ServiceDesc{goService}, want: []string{`does not have: "/test.v1.Go/read"`},
		},
		"no leading slash": {
			policy:   with(func(p verify.Policy) { p["test.v1.Go/Read"] = verify.Public() }),
			services: []*grpc.ServiceDesc{goService}, want: []string{`does not have: "test.v1.Go/Read"`},
		},
		"trailing space": {
			policy:   with(func(p verify.Policy) { p["/grpc.health.v1.Health/Check "] = verify.Public() }),
			services: []*grpc.ServiceDesc{goService}, want: []string{`"/grpc.health.v1.Health/Check "`},
		},
		"zero rule": {
			policy:   with(func(p verify.Policy) { p["/test.v1.Go/Read"] = verify.Rule{} }),
			services: []*grpc.ServiceDesc{goService}, want: []string{"malformed rule: /test.v1.Go/Read"},
		},
		"rule of no scopes": {
			policy:   with(func(p verify.Policy) { p["/test.v1.Go/Read"] = verify.Scopes() }),
			services: []*grpc.ServiceDesc{goService}, want: []string{"malformed rule: /test.v1.Go/Read"},
		},
		"malformed scope": {
			policy:   with(func(p verify.Policy) { p["/test.v1.Go/Read"] = verify.Scopes("orders.read", "a b") }),
			services: []*grpc.ServiceDesc{goService}, want: []string{"malformed rule: /test.v1.Go/Read", `"a b"`},
		},
		"malformed in the proto": {
			services: []*grpc.ServiceDesc{malformed},
			want:     []string{"malformed rule", "/test.v1.Malformed/Empty", "/test.v1.Malformed/Two", "/test.v1.Malformed/Scope", "/test.v1.Malformed/Chat"},
		},
		"zero rule over a proto rule": {
			policy:   verify.Policy{"/test.v1.Proto/Read": {}},
			services: []*grpc.ServiceDesc{protoService}, want: []string{"malformed rule: /test.v1.Proto/Read"},
		},
	}
	verifier := newVerifier(newSigner())
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := verify.NewServer(verifier, test.policy)
			healthv1.RegisterHealthServer(server, health.NewServer())
			for _, desc := range test.services {
				server.RegisterService(desc, nil)
			}
			if test.reflect {
				reflection.Register(server)
			}
			listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
			if len(test.want) == 0 {
				server.Stop() // Serve of a stopped server returns at once if the check passes.
				if err := server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
					t.Errorf("Serve: got %v, want %v", err, grpc.ErrServerStopped)
				}
				return
			}
			err := server.Serve(listener)
			if err == nil {
				t.Fatal("the server started")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to have %q", err, want)
				}
			}
			if _, err := listener.Accept(); err == nil {
				t.Error("the listener is still open")
			}
			if got := test.policy.Check(server.GetServiceInfo()); fmt.Sprint(got) != fmt.Sprint(err) {
				t.Errorf("Check: got %v, want %v", got, err)
			}
		})
	}
}

// Changing a policy after the server was made has no effect.
func TestPolicyIsCopied(t *testing.T) {
	policy := verify.Policy{"/test.v1.Proto/Any": verify.Authenticated()}
	server := verify.NewServer(newVerifier(newSigner()), policy)
	server.RegisterService(protoService, nil)
	policy["/test.v1.Proto/Any"] = verify.Public()
	policy["/test.v1.Proto/Absent"] = verify.Public()
	conn := listen(t, server)
	if got := call(conn, "/test.v1.Proto/Any", false); got != refusedNoToken {
		t.Errorf("got %s, want %s", got, refusedNoToken)
	}
}

// A rule in Go takes precedence over the one in the proto and over the default for health.
func TestGoRuleFirst(t *testing.T) {
	server := verify.NewServer(newVerifier(newSigner()), verify.Policy{
		"/test.v1.Proto/Open": verify.Authenticated(), "/grpc.health.v1.Health/Check": verify.Authenticated(),
	})
	server.RegisterService(protoService, nil)
	healthv1.RegisterHealthServer(server, health.NewServer())
	conn := listen(t, server)
	for method, want := range map[string]string{
		"/test.v1.Proto/Open": refusedNoToken, "/grpc.health.v1.Health/Check": refusedNoToken, "/grpc.health.v1.Health/List": "OK",
	} {
		if got := call(conn, method, false); got != want {
			t.Errorf("%s: got %s, want %s", method, got, want)
		}
	}
}

// The response to a refused caller is fixed: it reveals nothing of the token, nor what was wrong with it.
func TestRefusalIsFixed(t *testing.T) {
	signer := newSigner()
	type seen struct {
		method string
		err    error
	}
	observed := make(chan seen, 1)
	verifier := newVerifier(signer, verify.OnRefusal(func(_ context.Context, method string, err error) {
		observed <- seen{method, err}
	}))
	server := verify.NewServer(verifier, goPolicy)
	server.RegisterService(goService, nil)
	conn := listen(t, server)
	const notValid = "The access token is not valid here."
	sign := func(change func(*token.Claims)) string {
		return "Bearer " + must.Get(signer.Sign(claims(testIssuer, "s3cret", change)))
	}
	tests := map[string]struct {
		authorization []string
		text          string
		scope         string
		reason        error
	}{
		"missing":     {nil, "A bearer token is required.", "", verify.ErrNoToken},
		"garbage":     {[]string{"Bearer s3cret"}, notValid, "", token.ErrMalformed},
		"two":         {[]string{"Bearer s3cret", "Bearer s3cret"}, notValid, "", token.ErrMalformed},
		"expired":     {[]string{sign(func(c *token.Claims) { c.ExpiresAt = c.IssuedAt })}, notValid, "", token.ErrExpired},
		"audience":    {[]string{sign(func(c *token.Claims) { c.Audience[0] = "s3cret" })}, notValid, "", token.ErrAudience},
		"issuer":      {[]string{sign(func(c *token.Claims) { c.Issuer = "s3cret" })}, notValid, "", token.ErrIssuer},
		"other scope": {[]string{sign(func(*token.Claims) {})}, "The access token lacks the scope: orders.read orders.write", "orders.read orders.write", verify.ErrScope},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := outgoing(t.Context(), test.authorization...)
			s := status.Convert(conn.Invoke(ctx, "/test.v1.Go/Transfer", &emptypb.Empty{}, &emptypb.Empty{}))
			if s.Message() != test.text {
				t.Errorf("message: got %q, want %q", s.Message(), test.text)
			}
			if strings.Contains(s.Proto().String(), "s3cret") {
				t.Errorf("the status contains what was sent: %s", s.Proto())
			}
			info, ok := s.Details()[0].(*errdetails.ErrorInfo)
			if !ok || info.GetMetadata()["scope"] != test.scope {
				t.Errorf("details: got %v, want scope %q", s.Details(), test.scope)
			}
			if got := <-observed; got.method != "/test.v1.Go/Transfer" || !errors.Is(got.err, test.reason) {
				t.Errorf("OnRefusal: got %q, %v, want %v", got.method, got.err, test.reason)
			}
		})
	}
}

// Concurrent callers are told apart, in unary calls and on streams.
func TestCallersApart(t *testing.T) {
	signer := newSigner()
	server := verify.NewServer(newVerifier(signer, verify.CacheSize(4)), nil)
	server.RegisterService(protoService, nil)
	conn := listen(t, server)
	var group sync.WaitGroup
	for i := range 16 {
		name := fmt.Sprintf("client-%d", i)
		raw := must.Get(signer.Sign(claims(testIssuer, "orders.read", func(c *token.Claims) { c.ClientID = name })))
		group.Go(func() {
			ctx := outgoing(t.Context(), "Bearer "+raw)
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.v1.Proto/Chat")
			if err != nil {
				t.Error(err)
				return
			}
			for range 50 {
				for method, want := range map[string]string{"Any": name, "Read": name, "Open": "nobody"} {
					answer := &wrapperspb.StringValue{}
					err := conn.Invoke(ctx, "/test.v1.Proto/"+method, &emptypb.Empty{}, answer)
					if err != nil || answer.GetValue() != want {
						t.Errorf("%s: got %q, %v, want %q", method, answer.GetValue(), err, want)
					}
				}
				answer := &wrapperspb.StringValue{}
				if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
					t.Error(err)
				}
				if err := stream.RecvMsg(answer); err != nil || answer.GetValue() != name {
					t.Errorf("Chat: got %q, %v, want %q", answer.GetValue(), err, name)
				}
			}
			_ = stream.CloseSend()
			if err := stream.RecvMsg(&emptypb.Empty{}); !errors.Is(err, io.EOF) {
				t.Errorf("the end of Chat: got %v, want %v", err, io.EOF)
			}
		})
	}
	group.Wait()
}

// Paths and headers that a gRPC library would not send reach no handler.
func TestRawPaths(t *testing.T) {
	signer := newSigner()
	good := "Bearer " + must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	reached := make(chan string, 1)
	server := verify.NewServer(newVerifier(signer), verify.Policy{
		"/test.v1.Go/Open": verify.Public(), "/test.v1.Go/Any": verify.Authenticated(), "/test.v1.Go/Read": verify.Authenticated(),
		"/test.v1.Go/Transfer": verify.Authenticated(), "/test.v1.Go/Chat": verify.Authenticated(),
	}, grpc.ChainUnaryInterceptor(func(ctx context.Context, r any, i *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		reached <- i.FullMethod
		return next(ctx, r)
	}))
	server.RegisterService(goService, nil)
	address := listen(t, server).Target()
	tests := map[string]struct {
		path string
		more []hpack.HeaderField
		want string // the path that reached a handler
	}{
		"well-formed":         {path: "/test.v1.Go/Any", more: []hpack.HeaderField{{Name: "authorization", Value: good}}, want: "/test.v1.Go/Any"},
		"public":              {path: "/test.v1.Go/Open", want: "/test.v1.Go/Open"},
		"no token":            {path: "/test.v1.Go/Any"},
		"no leading slash":    {path: "test.v1.Go/Any"},
		"no slash, public":    {path: "test.v1.Go/Open"},
		"two slashes":         {path: "//test.v1.Go/Any"},
		"trailing slash":      {path: "/test.v1.Go/Any/"},
		"other case":          {path: "/test.v1.Go/any"},
		"query":               {path: "/test.v1.Go/Any?access_token=" + good[7:]},
		"escaped":             {path: "/test.v1.Go/%41ny"},
		"dots":                {path: "/test.v1.Go/Open/../Any"},
		"two authorizations":  {path: "/test.v1.Go/Any", more: []hpack.HeaderField{{Name: "authorization", Value: good}, {Name: "authorization", Value: good}}},
		"upper-case header":   {path: "/test.v1.Go/Any", more: []hpack.HeaderField{{Name: "Authorization", Value: good}}},
		"like the header":     {path: "/test.v1.Go/Any", more: []hpack.HeaderField{{Name: "authorization-bin", Value: good}}},
		"proxy-authorization": {path: "/test.v1.Go/Any", more: []hpack.HeaderField{{Name: "proxy-authorization", Value: good}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rawCall(t, address, test.path, test.more)
			select {
			case got := <-reached:
				if got != test.want {
					t.Errorf("reached %q, want %q", got, test.want)
				}
			default:
				if test.want != "" {
					t.Errorf("reached nothing, want %q", test.want)
				}
			}
		})
	}
}

// rawCall makes a unary call frame by frame and waits for its end.
func rawCall(t *testing.T, address, path string, more []hpack.HeaderField) {
	t.Helper()
	conn := must.Get(net.Dial("tcp", address))
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: address}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = encoder.WriteField(field)
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = framer.WriteData(1, true, make([]byte, 5))
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		switch f := frame.(type) {
		case *http2.RSTStreamFrame:
			return
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return
			}
		}
	}
}

// Outside a server's call there is no caller.
func TestNoCaller(t *testing.T) {
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer x"))
	if caller, ok := verify.CallerFrom(ctx); ok {
		t.Errorf("got %v, want none", caller)
	}
}
