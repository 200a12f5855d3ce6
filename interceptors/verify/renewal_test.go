package verify_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

const streamName = "0123456789abcdef-_XY"

// renew calls RenewStream with a token.
func (s *streamServer) renew(raw, name string) codes.Code {
	_, err := grantorv1.NewStreamServiceClient(s.conn).RenewStream(
		outgoing(context.Background(), "Bearer "+raw), &grantorv1.RenewStreamRequest{Stream: name})
	return status.Code(err)
}

func echo(stream grpc.ServerStream) error {
	for {
		if err := echoOnce(stream); err != nil {
			return err
		}
	}
}

// wantAlive checks that a stream of echo still works.
func wantAlive(t *testing.T, stream grpc.ClientStream) {
	t.Helper()
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&wrapperspb.StringValue{}); err != nil {
		t.Fatalf("the stream ended: %v", err)
	}
}

// A renewed stream outlives its first token, and ends with the token by which it was renewed.
func TestRenewal(t *testing.T) {
	s := newStreamServer(t, echo)
	first, firstID := s.token("billing", "orders.read")
	stream := s.open(t, "Both", first, streamName)
	s.now.advance(30 * time.Minute)
	second, secondID := s.token("billing", "orders.read orders.write")
	if got := s.renew(second, streamName); got != codes.OK {
		t.Fatalf("RenewStream: got %v, want OK", got)
	}
	s.revoke(firstID)
	s.now.advance(45 * time.Minute)
	watched := s.open(t, "Both", second, "") // ends with the same check
	wantAlive(t, stream)
	s.revoke(secondID)
	s.wantEnd(t, watched, time.Now(), token.ErrRevoked)
	s.wantEnd(t, stream, time.Now(), token.ErrRevoked)
	third, _ := s.token("billing", "orders.read")
	if got := s.renew(third, streamName); got != codes.NotFound {
		t.Errorf("renewing a stream that has ended: got %v, want NOT_FOUND", got)
	}
	must.Eventually(t, "no stream has an id", func() bool { return verify.Named(s.verifier) == 0 })
}

func TestRenewalRefused(t *testing.T) {
	for name, test := range map[string]struct {
		client, scope, stream string
		want                  codes.Code
		ends                  bool
	}{
		"another client":  {"stock", "orders.read orders.write", streamName, codes.NotFound, false},
		"another stream":  {"billing", "orders.read orders.write", streamName + "x", codes.NotFound, false},
		"short id":        {"billing", "orders.read orders.write", "short", codes.InvalidArgument, false},
		"id with a blank": {"billing", "orders.read orders.write", streamName + " ", codes.InvalidArgument, false},
		"no id":           {"billing", "orders.read orders.write", "", codes.InvalidArgument, false},
		"fewer scopes":    {"billing", "orders.read", streamName, codes.PermissionDenied, true},
		"other scopes":    {"billing", "orders.write stock.read", streamName, codes.PermissionDenied, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStreamServer(t, echo)
			first, _ := s.token("billing", "orders.read orders.write")
			stream := s.open(t, "Both", first, streamName)
			next, _ := s.token(test.client, test.scope)
			if got := s.renew(next, test.stream); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if test.ends {
				s.wantEnd(t, stream, time.Now(), verify.ErrScope)
				return
			}
			wantAlive(t, stream)
			s.now.advance(time.Hour)
			s.wantEnd(t, stream, time.Now(), token.ErrExpired)
		})
	}
}

// RenewStream is guarded like any method, and an id belongs to the first stream that uses it.
func TestRenewalGuarded(t *testing.T) {
	s := newStreamServer(t, echo)
	first, _ := s.token("billing", "orders.read")
	stream := s.open(t, "Both", first, streamName)
	second := s.open(t, "Both", first, streamName)
	if got := call(s.conn, "/grantor.v1.StreamService/RenewStream", false); got != refusedNoToken {
		t.Errorf("without a token: got %s, want %s", got, refusedNoToken)
	}
	if got := <-s.reasons; !errors.Is(got, verify.ErrNoToken) {
		t.Errorf("OnRefusal: got %v, want %v", got, verify.ErrNoToken)
	}
	s.now.advance(30 * time.Minute)
	next, _ := s.token("billing", "orders.read")
	if got := s.renew(next, streamName); got != codes.OK {
		t.Fatalf("got %v, want OK", got)
	}
	s.now.advance(31 * time.Minute)
	s.wantEnd(t, second, time.Now(), token.ErrExpired)
	wantAlive(t, stream)
	_ = stream.CloseSend()
	_ = drain(stream)
}

func ExampleRegisterStreamRenewal() {
	verifier := newVerifier(newSigner())
	server := verify.NewServer(verifier, nil)
	verify.RegisterStreamRenewal(server, verifier)
	for name := range server.GetServiceInfo() {
		fmt.Println(name)
	}
	// Output: grantor.v1.StreamService
}
