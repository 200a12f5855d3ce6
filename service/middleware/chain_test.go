package middleware_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/telemetry"
)

// callers make a unary call and a stream, and return how each ended.
var callers = map[string]func(context.Context, *grpc.ClientConn) error{
	"unary": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := grantorv1.NewTokenServiceClient(conn).GetKeySet(ctx, &grantorv1.GetKeySetRequest{})
		return err
	},
	"stream": func(ctx context.Context, conn *grpc.ClientConn) error {
		stream, err := grantorv1.NewRevocationServiceClient(conn).WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	},
}

// TestErrors has handlers fail in each way.
func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(context.Context) error
		code   codes.Code
		text   string
		logged []string
	}{
		"a domain error":   {func(context.Context) error { return registry.ErrNotFound }, codes.NotFound, "Not found.", nil},
		"an OAuth error":   {func(context.Context) error { return oauth.Refuse(oauth.InvalidScope, "No.") }, codes.InvalidArgument, "No.", nil},
		"a status":         {func(context.Context) error { return status.Error(codes.Canceled, "gone") }, codes.Canceled, "gone", nil},
		"an unknown error": {func(context.Context) error { return errors.New("hidden") }, codes.Internal, "The server failed to answer; its log says why.", nil},
		"a panic": {
			func(context.Context) error { panic("hidden") }, codes.Internal, "The server failed to answer; its log says why.",
			[]string{"level=ERROR", "panic in a call", "type=string", "chain_test.go", "method=grantor.v1."},
		},
	} {
		for kind, call := range callers {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := &services{answer: test.answer}
				chain, log := newChain(t, s, limit.Limits{}, nil)
				err := call(t.Context(), serve(t, s, chain))
				if got := status.Convert(err); got.Code() != test.code || got.Message() != test.text {
					t.Errorf("got %v, want %s %q", err, test.code, test.text)
				}
				for _, want := range test.logged {
					if !strings.Contains(log.String(), want) {
						t.Errorf("the log lacks %q:\n%s", want, log)
					}
				}
				if strings.Contains(log.String(), "hidden") {
					t.Errorf("the log quotes the error:\n%s", log)
				}
			})
		}
	}
}

// TestAdministrativeErrors checks that errors of administrative services count as those of the store where nothing else
// is known, and that they are audited.
func TestAdministrativeErrors(t *testing.T) {
	s := &services{}
	chain, log := newChain(t, s, limit.Limits{}, nil)
	conn := serve(t, s, chain)
	// No token can be valid without keys, so that the call ends at the guard.
	_, err := grantorv1.NewClientServiceClient(conn).GetClient(t.Context(), &grantorv1.GetClientRequest{ClientId: "a"})
	expectCode(t, err, codes.Unauthenticated)
	if want := `event=admin.refused by="" peer=127.0.0.1:`; !strings.Contains(log.String(), want) || !strings.Contains(log.String(), "reason=no_token") {
		t.Errorf("the log lacks %q with the reason no_token:\n%s", want, log)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer a.b.c")
	_, err = grantorv1.NewClientServiceClient(conn).GetClient(ctx, &grantorv1.GetClientRequest{ClientId: "a"})
	expectCode(t, err, codes.Unauthenticated)
	if !strings.Contains(log.String(), "reason=malformed ") {
		t.Errorf("the log lacks the reason malformed:\n%s", log)
	}
}

// TestClientAddr checks that handlers and limits get the address that a call originates from.
func TestClientAddr(t *testing.T) {
	loopback := remoteaddr.Networks{netip.MustParsePrefix("127.0.0.0/8")}
	for name, test := range map[string]struct {
		proxies   remoteaddr.Networks
		forwarded []string
		want      string
	}{
		"a connection":           {loopback, nil, "127.0.0.1"},
		"a trusted proxy":        {loopback, []string{"x-forwarded-for", "203.0.113.9"}, "203.0.113.9"},
		"a header of the caller": {nil, []string{"x-forwarded-for", "203.0.113.9"}, "127.0.0.1"},
	} {
		for kind, call := range callers {
			t.Run(name+"/"+kind, func(t *testing.T) {
				var got remoteaddr.Client
				s := &services{answer: func(ctx context.Context) error {
					got = remoteaddr.FromContext(ctx)
					return nil
				}}
				chain, _ := newChain(t, s, limit.Limits{}, test.proxies)
				_ = call(metadata.AppendToOutgoingContext(t.Context(), test.forwarded...), serve(t, s, chain))
				if got.IP().String() != test.want || !strings.HasPrefix(got.String(), test.want) {
					t.Errorf("got %s, IP address %s, want %s", got, got.IP(), test.want)
				}
			})
		}
	}
}

// TestAdmit checks that the calls of a request over REST are not counted again, and have its address.
func TestAdmit(t *testing.T) {
	s := &services{}
	chain, log := newChain(t, s, limit.Limits{RequestsPerSource: 1}, nil)
	ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 4711}})
	call := func(ctx context.Context) error {
		_, err := chain.UnaryInterceptor()(ctx, nil, &grpc.UnaryServerInfo{FullMethod: grantorv1.TokenService_GetKeySet_FullMethodName},
			func(ctx context.Context, _ any) (any, error) {
				if got := remoteaddr.FromContext(ctx).String(); got != "192.0.2.1:4711" {
					t.Errorf("got the address %q", got)
				}
				return nil, nil
			})
		return err
	}
	admitted, err := chain.Admit(ctx)
	must.Succeed(t, err)
	for range 3 {
		must.Succeed(t, call(admitted))
	}
	must.Eventually(t, "the source has made too many requests", func() bool {
		_, err := chain.Admit(ctx)
		return status.Code(err) == codes.ResourceExhausted
	})
	chain.Unread(admitted, telemetry.EventRevokeRefused, oauth.Refuse(oauth.InvalidRequest, "No."))
	if want := `event=token.revoke_refused client_id="" auth_method="" identity="" peer=192.0.2.1:4711 error=invalid_request`; !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, log)
	}
}
