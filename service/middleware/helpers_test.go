package middleware_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/middleware"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// timeout is how long a test waits for what should come soon.
const timeout = 30 * time.Second

// services are the issuer's services. Each answers as answer does.
type services struct {
	grantorv1.UnimplementedTokenServiceServer
	grantorv1.UnimplementedRevocationServiceServer
	grantorv1.UnimplementedClientServiceServer

	answer func(ctx context.Context) error
}

func (s *services) GetKeySet(ctx context.Context, _ *grantorv1.GetKeySetRequest) (*grantorv1.GetKeySetResponse, error) {
	return &grantorv1.GetKeySetResponse{}, s.answer(ctx)
}

func (s *services) WatchRevocations(_ *grantorv1.WatchRevocationsRequest, stream grantorv1.RevocationService_WatchRevocationsServer) error {
	return s.answer(stream.Context())
}

func (s *services) register(server grpc.ServiceRegistrar) {
	grantorv1.RegisterTokenServiceServer(server, s)
	grantorv1.RegisterRevocationServiceServer(server, s)
	grantorv1.RegisterClientServiceServer(server, s)
}

// newChain returns the chain before the services, and what it logs.
func newChain(t testing.TB, s *services, limits limit.Limits, proxies remoteaddr.Networks) (*middleware.Chain, *must.Buffer) {
	t.Helper()
	log := &must.Buffer{}
	events := must.Get(telemetry.New(slog.New(slog.NewTextHandler(log, nil)), noop.NewMeterProvider().Meter(""), nil, []jwks.Algorithm{jwks.ES256}))
	methods := middleware.Methods{}
	s.register(methods)
	chain, err := middleware.New(t.Context(), middleware.Config{
		Events: events, Limiter: limit.New(limit.Config{Limits: limits, Now: time.Now}), Proxies: proxies, Methods: methods,
		Issuer: must.Get(oauth.ParseIssuer("https://issuer.test")), Keys: jwks.NewSet(), Denied: revocation.NewList(), Now: time.Now,
	})
	must.Succeed(t, err)
	return chain, log
}

// serve runs the services behind the chain until the test ends, and returns a connection to them.
func serve(t testing.TB, s *services, chain *middleware.Chain) *grpc.ClientConn {
	t.Helper()
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	server := grpc.NewServer(chain.ServerOptions()...)
	s.register(server)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	conn := must.Get(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		running.Wait()
	})
	return conn
}

func expectCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
