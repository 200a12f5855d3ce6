package attach_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestProofOfTheProgram has calls to which the program has added a proof. None of them reaches the server with two.
func TestProofOfTheProgram(t *testing.T) {
	s := newProvenServer(t, tokentest.New(t))
	target, source := s.listen(t), s.source(nil)
	ofProgram := metadata.AppendToOutgoingContext(t.Context(), "DPoP", "a proof of the program")
	client := testgrpc.NewTestServiceClient(dial(t, target, attach.DialOptions(source, plaintext)...))
	_, unary := client.UnaryCall(ofProgram, &testgrpc.SimpleRequest{})
	_, stream := client.StreamingOutputCall(ofProgram, &testgrpc.StreamingOutputCallRequest{})
	for name, err := range map[string]error{"unary": unary, "stream": stream} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "already has a DPoP proof") {
			t.Errorf("%s: got %v, want FAILED_PRECONDITION", name, err)
		}
	}
	// Credentials without the interceptors. gRPC replaces a code of theirs that only servers should use.
	insecure := s.source(nil, attach.AllowInsecurePlaintextToRemoteHosts())
	conn := dial(t, target, plaintext, grpc.WithPerRPCCredentials(insecure.PerRPCCredentials()))
	if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(ofProgram, &testgrpc.SimpleRequest{}); err == nil || !strings.Contains(err.Error(), "already has a DPoP proof") {
		t.Errorf("PerRPCCredentials: got %v", err)
	}
	for _, name := range []string{"Dpop", "DPoP", "dpop"} { // the last two are not in canonical form
		request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, s.url, nil))
		request.Header[name] = []string{"a proof of the program"}
		answer, err := (&http.Client{Transport: source}).Do(request)
		if err == nil || !strings.Contains(err.Error(), "already has a DPoP header") {
			t.Errorf("HTTP, %s: got %v, want an error", name, err)
		}
		if err == nil {
			_ = answer.Body.Close()
		}
	}
	if got := s.take(); len(got) != 0 {
		t.Errorf("got the refusals %v, want no call", got)
	}
	if err := call(t, s, source, client); err != nil {
		t.Errorf("the calls without a proof of the program: %v", err)
	}
}
