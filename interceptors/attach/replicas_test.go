package attach_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
)

// fakeReplica is a replica of the issuer that counts its calls and refuses the next failures of them.
type fakeReplica struct {
	grantorv1.UnimplementedTokenServiceServer
	address  string
	health   *health.Server
	calls    atomic.Int32
	failures atomic.Int32
}

func newFakeReplica(t *testing.T) *fakeReplica {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeReplica{address: listener.Addr().String(), health: health.NewServer()}
	server := grpc.NewServer()
	grantorv1.RegisterTokenServiceServer(server, s)
	healthpb.RegisterHealthServer(server, s.health)
	s.setServing(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return s
}

func (s *fakeReplica) setServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("grantor.v1.TokenService", state)
}

func (s *fakeReplica) answer() error {
	s.calls.Add(1)
	if s.failures.Add(-1) >= 0 {
		return status.Error(codes.Unavailable, "not ready")
	}
	return nil
}

func (s *fakeReplica) IssueToken(context.Context, *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	return &grantorv1.IssueTokenResponse{AccessToken: "a", TokenType: "Bearer", ExpiresIn: 60}, s.answer()
}

func (s *fakeReplica) RevokeClientTokens(context.Context, *grantorv1.RevokeClientTokensRequest) (*grantorv1.RevokeClientTokensResponse, error) {
	return &grantorv1.RevokeClientTokensResponse{}, s.answer()
}

// dialReplicas connects to the replicas as to a name that DNS resolves to them.
func dialReplicas(t *testing.T, replicas ...*fakeReplica) *grpc.ClientConn {
	t.Helper()
	names := manual.NewBuilderWithScheme("replicas")
	var addresses []resolver.Address
	for _, r := range replicas {
		addresses = append(addresses, resolver.Address{Addr: r.address})
	}
	names.InitialState(resolver.State{Addresses: addresses})
	conn, err := grpc.NewClient("replicas:///issuer", attach.IssuerDialOptions(grpc.WithResolvers(names), plaintext)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestAcrossReplicas spreads calls over the replicas that serve, and over no others.
func TestAcrossReplicas(t *testing.T) {
	a, b, idle := newFakeReplica(t), newFakeReplica(t), newFakeReplica(t)
	idle.setServing(false)
	issuer := grantorv1.NewTokenServiceClient(dialReplicas(t, a, b, idle))
	call := func() {
		if _, err := issuer.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for a.calls.Load() == 0 || b.calls.Load() == 0 {
		call()
	}
	if got := idle.calls.Load(); got != 0 {
		t.Errorf("the replica that does not serve got %d calls", got)
	}
	a.setServing(false)
	for before := a.calls.Load(); ; before = a.calls.Load() {
		for range 4 {
			call()
		}
		if a.calls.Load() == before {
			break
		}
	}
	idle.setServing(true)
	for idle.calls.Load() == 0 {
		call()
	}
}

// TestCallAgain makes calls that a replica refuses while it is not ready: they are retried if that is harmless.
func TestCallAgain(t *testing.T) {
	replica := newFakeReplica(t)
	issuer := grantorv1.NewTokenServiceClient(dialReplicas(t, replica))
	replica.failures.Store(4)
	if _, err := issuer.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{}); err != nil || replica.calls.Load() != 5 {
		t.Errorf("got %v after %d calls, want a token after 5", err, replica.calls.Load())
	}
	replica.calls.Store(0)
	replica.failures.Store(1)
	_, err := issuer.RevokeClientTokens(t.Context(), &grantorv1.RevokeClientTokensRequest{})
	if status.Code(err) != codes.Unavailable || replica.calls.Load() != 1 {
		t.Errorf("got %v after %d calls, want the first answer", err, replica.calls.Load())
	}
}

// TestAcrossReplicasOfAnyServer calls a server other than the issuer.
func TestAcrossReplicasOfAnyServer(t *testing.T) {
	replica := newFakeReplica(t)
	source := attach.ClientCredentials("", "background-service", "s3cret", attach.OverGRPC(dial(t, replica.address, plaintext)))
	for _, service := range []string{"", "grantor.v1.TokenService", `a "quoted" name`} {
		conn := dial(t, replica.address, attach.DialOptions(source, plaintext, attach.AcrossReplicas(service))...)
		_, err := grantorv1.NewTokenServiceClient(conn).IssueToken(t.Context(), &grantorv1.IssueTokenRequest{})
		if want := service == "" || service == "grantor.v1.TokenService"; want != (err == nil) {
			t.Errorf("health of %q: got %v", service, err)
		}
	}
}
