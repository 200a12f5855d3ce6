package attach_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// nonceCounter is a server that provides another nonce with each response, and records the nonces that it gets.
type nonceCounter struct {
	testgrpc.UnimplementedTestServiceServer

	got []string
}

// record records the nonce of a proof, and returns the next one.
func (n *nonceCounter) record(proofs []string) string {
	_, payload, _ := strings.Cut(strings.Join(proofs, ","), ".")
	payload, _, _ = strings.Cut(payload, ".")
	data, _ := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		Nonce string `json:"nonce"`
	}
	_ = json.Unmarshal(data, &claims)
	n.got = append(n.got, claims.Nonce)
	return fmt.Sprint("n", len(n.got))
}

func (n *nonceCounter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("DPoP-Nonce", n.record(r.Header.Values("DPoP")))
}

func (n *nonceCounter) UnaryCall(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	next := n.record(metadata.ValueFromIncomingContext(ctx, "dpop"))
	return &testgrpc.SimpleResponse{}, grpc.SetHeader(ctx, metadata.Pairs("dpop-nonce", next))
}

func (n *nonceCounter) StreamingOutputCall(_ *testgrpc.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	next := n.record(metadata.ValueFromIncomingContext(stream.Context(), "dpop"))
	return errors.Join(stream.SetHeader(metadata.Pairs("dpop-nonce", next)), stream.Send(&testgrpc.StreamingOutputCallResponse{}))
}

// TestNextNonceIsLearned checks that a new nonce is taken from successful responses, without a refusal.
func TestNextNonceIsLearned(t *testing.T) {
	const want = "[ n1 n2]"
	issuer := tokentest.New(t)
	issuer.AddClient(t, "billing", resource, "orders.read")
	source := attach.ClientCredentials(issuer.URL, "billing", tokentest.Secret, attach.DPoP())
	overHTTP := &nonceCounter{}
	web := httptest.NewServer(overHTTP)
	t.Cleanup(web.Close)
	for range 3 {
		answer, err := (&http.Client{Transport: source}).Get(web.URL)
		must.Succeed(t, err)
		_ = answer.Body.Close()
	}
	if got := fmt.Sprint(overHTTP.got); got != want {
		t.Errorf("HTTP: got the nonces %s, want %s", got, want)
	}
	for name, call := range map[string]func(testgrpc.TestServiceClient) error{
		"unary": func(client testgrpc.TestServiceClient) error {
			_, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
			return err
		},
		"stream": func(client testgrpc.TestServiceClient) error {
			stream, err := client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	} {
		server, service := grpc.NewServer(), &nonceCounter{}
		testgrpc.RegisterTestServiceServer(server, service)
		listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(listener) }()
		client := testgrpc.NewTestServiceClient(dial(t, listener.Addr().String(), attach.DialOptions(source, plaintext)...))
		for range 3 {
			must.Succeed(t, call(client))
		}
		server.Stop()
		<-done
		if got := fmt.Sprint(service.got); got != want {
			t.Errorf("%s: got the nonces %s, want %s", name, got, want)
		}
	}
}
