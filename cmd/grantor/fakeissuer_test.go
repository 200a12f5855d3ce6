package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
)

// fakeIssuer is an issuer whose administrative services respond as a test defines: as no real one does, or not so
// quickly.
type fakeIssuer struct {
	grantorv1.UnimplementedClientServiceServer
	grantorv1.UnimplementedResourceServiceServer
	grantorv1.UnimplementedKeyServiceServer

	// answer returns the response to a call. grant, if it is set, responds to token requests.
	answer func(request any) (proto.Message, error)
	grant  http.HandlerFunc

	mu    sync.Mutex
	asked []string // "scope for resource" of each token request
	calls []string // the methods that were called
}

// newFakeIssuer starts a fake issuer and sets up the commands to be its client.
func newFakeIssuer(t *testing.T, answer func(request any) (proto.Message, error)) *fakeIssuer {
	t.Helper()
	p := &fakeIssuer{answer: answer}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(p.intercept))
	grantorv1.RegisterClientServiceServer(server, p)
	grantorv1.RegisterResourceServiceServer(server, p)
	grantorv1.RegisterKeyServiceServer(server, p)
	ended := make(chan error)
	go func() { ended <- server.Serve(listener) }()
	var base string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == oauth.WellKnownServer:
			_ = json.NewEncoder(w).Encode(oauth.Metadata{Issuer: base, TokenEndpoint: base + "/token", GRPCEndpoint: listener.Addr().String()})
		case p.grant != nil:
			p.grant(w, r)
		default:
			_ = r.ParseForm()
			p.mu.Lock()
			p.asked = append(p.asked, r.Form.Get("scope")+" for "+r.Form.Get("resource"))
			p.mu.Unlock()
			_, _ = io.WriteString(w, `{"access_token":"a-token","token_type":"Bearer","expires_in":3600}`)
		}
	}))
	base = web.URL
	t.Cleanup(func() {
		web.Close()
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	clitest.Isolate(t)
	t.Setenv("GRANTOR_ISSUER", base)
	t.Setenv("GRANTOR_CLIENT_ID", "administrator")
	t.Setenv("GRANTOR_CLIENT_SECRET", clitest.Secret)
	return p
}

func (p *fakeIssuer) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, _ := metadata.FromIncomingContext(ctx)
	p.calls = append(p.calls, info.FullMethod+" with "+strings.Join(sent.Get("authorization"), ", "))
	return p.answer(request)
}

// run runs grantor with the arguments and empty standard input.
func run(t *testing.T, args ...string) clitest.Result {
	t.Helper()
	return runOn(t, strings.NewReader(""), args...)
}

func runOn(t *testing.T, stdin io.Reader, args ...string) clitest.Result {
	t.Helper()
	return clitest.Run(t, newCommand(), stdin, args...)
}

// grantor runs a command line whose arguments have no spaces, and returns its output.
func grantor(t *testing.T, command string) string {
	t.Helper()
	return run(t, strings.Fields(command)...).Works(t)
}
