package guard_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/grantorhq/grantor/cmd/grantor/guard"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a guard that runs in the process of the test.
type running struct {
	*guard.Server
	log    must.Buffer
	hangup chan os.Signal
	// stop stops the guard as SIGTERM does. ended is closed when it has stopped.
	stop  context.CancelFunc
	ended chan struct{}
}

// parse returns the settings that grantor guard has with the arguments, and their flags.
func parse(args ...string) (*guard.Settings, *pflag.FlagSet, error) {
	var s guard.Settings
	flags := pflag.NewFlagSet("guard", pflag.ContinueOnError)
	set := s.Declare(flags)
	if err := flags.Parse(append([]string{
		"--grpc-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--shutdown-delay=0s", "--log-level=debug",
	}, args...)); err != nil {
		return nil, nil, err
	}
	return &s, flags, set.Resolve(nil)
}

// try starts a guard with the arguments on free ports, or returns its start-up error. It stops when the test ends.
func try(t testing.TB, args ...string) (*running, error) {
	t.Helper()
	s, flags, err := parse(args...)
	if err != nil {
		return nil, err
	}
	r := &running{hangup: make(chan os.Signal, 1), ended: make(chan struct{})}
	if r.Server, err = guard.New(t.Context(), s, &r.log); err != nil {
		return nil, err
	}
	must.Succeed(t, r.ReloadOn(flags, r.hangup))
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	var failure error
	go func() {
		defer close(r.ended)
		failure = r.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-r.ended
		if failure != nil {
			t.Errorf("the guard ended with %v", failure)
		}
	})
	servetest.Get(t, r.ops("/healthz")) // waits for the ports to serve
	return r, nil
}

// start starts a guard for an issuer with rules, and with the arguments.
func start(t testing.TB, issuer, rules string, args ...string) *running {
	t.Helper()
	r, err := try(t, append([]string{
		"--issuer=" + issuer, "--audience=https://orders.internal", "--rules=" + servetest.WriteFile(t, "rules.yaml", rules),
		"--forward-auth=x-original", "--trusted-proxies=127.0.0.0/8",
	}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ready waits until the guard is ready.
func (r *running) ready(t testing.TB) *running {
	t.Helper()
	must.Eventually(t, "readiness", func() bool { status, _ := servetest.Get(t, r.ops("/readyz")); return status == http.StatusOK })
	return r
}

// ops returns the URL of a path of the operations port.
func (r *running) ops(path string) string { return "http://" + r.OpsAddr() + path }

// health returns the status of the gRPC health service for Envoy's service.
func health(t testing.TB, conn *grpc.ClientConn) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: authv3.Authorization_ServiceDesc.ServiceName})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetStatus()
}

// ask asks as Envoy does about a request with a token, and returns the answer.
func ask(t testing.TB, conn *grpc.ClientConn, method, path, token string) *authv3.CheckResponse {
	t.Helper()
	headers := map[string]string{":method": method, ":path": path}
	if token != "" {
		headers["authorization"] = "Bearer " + token
	}
	answer, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: path, Host: "orders.example.com", Scheme: "https", Headers: headers,
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// status returns the status that Envoy sends for an answer, 200 if the request passes.
func status(answer *authv3.CheckResponse) int {
	if denied := answer.GetDeniedResponse(); denied != nil {
		return int(denied.GetStatus().GetCode())
	}
	if answer.GetStatus().GetCode() == 0 && answer.GetOkResponse() != nil {
		return http.StatusOK
	}
	return 0
}

// value returns the value of a header that Envoy sets.
func value(options []*corev3.HeaderValueOption, name string) string {
	for _, option := range options {
		if strings.EqualFold(option.GetHeader().GetKey(), name) {
			return option.GetHeader().GetValue() + string(option.GetHeader().GetRawValue())
		}
	}
	return ""
}

// authorize asks as nginx does about a request with a token.
func (r *running) authorize(t testing.TB, method, uri, token string) *http.Response {
	t.Helper()
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.HTTPAddr()+"/authorize", nil))
	request.Header = http.Header{
		"X-Original-Method": {method}, "X-Original-Uri": {uri}, "X-Original-Host": {"orders.example.com"}, "X-Original-Proto": {"https"},
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	servetest.ReadBody(t, answer)
	return answer
}
