package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/cmd/grantor/serve"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// TestDevelopmentLeavesRedis sets development mode and a Redis in each source of a setting. Only the command line can
// ask for both: what the environment or a file names may be the Redis of production.
func TestDevelopmentLeavesRedis(t *testing.T) {
	redis := redistest.New(t)
	prod := "redis: " + redis.URL() + "\nkey_encryption_key_file: " + servetest.KEKFile(t) + "\nissuer: https://auth.example.com\n"
	prodFile, both := servetest.WriteFile(t, "prod.yaml", prod), servetest.WriteFile(t, "both.yaml", prod+"dev: true\n")
	devFile := servetest.WriteFile(t, "dev.yaml", "dev: True\n")
	inEnv := map[string]string{"GRANTOR_REDIS": redis.URL()}
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
	}{
		{"flag, environment", []string{"--dev"}, inEnv},
		{"flag with a value, environment", []string{"--dev=1"}, inEnv},
		{"flag, file", []string{"--dev", "--config", prodFile}, nil},
		{"flag, file of the environment", []string{"--dev"}, map[string]string{"GRANTOR_CONFIG": prodFile}},
		{"environment, flag", []string{"--redis", redis.URL()}, map[string]string{"GRANTOR_DEV": "true"}},
		{"environment, environment", nil, map[string]string{"GRANTOR_DEV": "true", "GRANTOR_REDIS": redis.URL()}},
		{"environment with 1", nil, map[string]string{"GRANTOR_DEV": "1", "GRANTOR_REDIS": redis.URL()}},
		{"environment with T, file", []string{"--config", prodFile}, map[string]string{"GRANTOR_DEV": "T"}},
		{"environment with TRUE, file of the environment", nil, map[string]string{"GRANTOR_DEV": "TRUE", "GRANTOR_CONFIG": prodFile}},
		{"file, flag", []string{"--config", devFile, "--redis", redis.URL()}, nil},
		{"file, environment", []string{"--config", devFile}, inEnv},
		{"file, file", []string{"--config", both}, nil},
		{"file of the environment", nil, map[string]string{"GRANTOR_CONFIG": both}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			cmd := serve.NewCommand()
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			cmd.SetArgs(append(c.args, "--http-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := cmd.ExecuteContext(ctx)
			if err == nil || !strings.HasPrefix(err.Error(), "dev: development mode would register a client") || cli.ExitCode(err) != cli.ExitUsage {
				t.Errorf("got %v, want a refusal", err)
			}
			if n := redis.Client().DBSize(t.Context()).Val(); n != 0 {
				t.Errorf("%d keys were written", n)
			}
		})
	}
	for _, args := range [][]string{{"--dev", "--redis", redis.URL()}, {"--dev"}, {"--dev", "--redis=", "--config", prodFile}, {"--dev=false", "--config", both}} {
		if _, _, err := servetest.Parse(args...); err != nil {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

// TestDevelopmentOnRedis starts development mode on a Redis with data. Only what development mode made is used, and not
// changed.
func TestDevelopmentOnRedis(t *testing.T) {
	kek, clients := servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)
	empty := servetest.WriteFile(t, "empty.yaml", "clients: []\n")
	const own = "--key-encryption-key-file="
	dev := func(redis *redistest.Server, args ...string) error {
		r, err := servetest.Try(t, append([]string{"--dev", "--redis=" + redis.URL()}, args...)...)
		if err == nil {
			r.Stop()
			<-r.Ended
		}
		return err
	}
	production := func(redis *redistest.Server, manifest string) {
		t.Helper()
		r := servetest.Start(t, append(servetest.Production(redis, kek, manifest), "--issuer=http://localhost:1")...)
		r.Stop()
		<-r.Ended
	}
	for name, c := range map[string]struct {
		made    func(*redistest.Server)
		args    []string
		refused bool
	}{
		"nothing":                    {func(*redistest.Server) {}, nil, false},
		"nothing, and a key":         {func(*redistest.Server) {}, []string{own + kek}, false},
		"development":                {func(r *redistest.Server) { must.Succeed(t, dev(r)) }, nil, false},
		"development and a manifest": {func(r *redistest.Server) { must.Succeed(t, dev(r, "--apply="+clients)) }, nil, false},
		"development and a key":      {func(r *redistest.Server) { must.Succeed(t, dev(r, own+kek)) }, []string{own + kek}, false},
		"production":                 {func(r *redistest.Server) { production(r, clients) }, nil, true},
		"production, with its key":   {func(r *redistest.Server) { production(r, clients) }, []string{own + kek}, true},
		"a ring of production":       {func(r *redistest.Server) { production(r, empty) }, []string{own + kek}, true},
		"production that has lost its ring": {func(r *redistest.Server) {
			production(r, clients)
			must.Succeed(t, r.Client().Del(t.Context(), "grantor:{grantor}:ring").Err())
		}, []string{own + kek}, true},
	} {
		t.Run(name, func(t *testing.T) {
			redis := redistest.New(t)
			c.made(redis)
			records := func() (found []string) {
				for _, key := range []string{"resources", "client:background-service", "clients"} {
					key = "grantor:{grantor}:" + key
					found = append(found, redis.Client().Dump(t.Context(), key).Val())
				}
				return found
			}
			before := records()
			err := dev(redis, c.args...)
			switch {
			case c.refused && (err == nil || !strings.HasPrefix(err.Error(), "dev: this Redis has data") || cli.ExitCode(err) != cli.ExitUsage):
				t.Errorf("got %v, want a refusal", err)
			case !c.refused && err != nil:
				t.Errorf("got %v", err)
			}
			if after := records(); before[0] != "" && !slices.Equal(after, before) {
				t.Error("the records have changed")
			}
		})
	}
}

// TestIssuerAtGRPCPort expects a warning if the issuer's URL is that of the gRPC port, and none otherwise.
func TestIssuerAtGRPCPort(t *testing.T) {
	address := freeport.Address(t)
	for _, c := range []struct {
		issuer string
		want   bool
	}{{"http://" + address, true}, {"http://localhost:1", false}, {"http://localhost", false}} {
		r := servetest.Dev(t, "--grpc-listen="+address, "--issuer="+c.issuer)
		must.Eventually(t, "serving", func() bool { return strings.Contains(r.Log.String(), "insecure: development mode") })
		if got := strings.Contains(r.Log.String(), "the port of issuer is that of grpc-listen"); got != c.want {
			t.Errorf("%s: got %t, want %t:\n%s", c.issuer, got, c.want, r.Log.String())
		}
		r.Stop()
		<-r.Ended
	}
}

// TestDevelopment runs the requests of the curl and grpcurl lines that development mode prints.
func TestDevelopment(t *testing.T) {
	r := servetest.Dev(t)
	line := regexp.MustCompile(`(?m)^  curl -d '(.*)' (\S+)$`).FindStringSubmatch(r.Out.String())
	if line == nil {
		t.Fatalf("dev mode printed no curl line:\n%s", r.Out.String())
	}
	posted, err := http.Post(line[2], "application/x-www-form-urlencoded", strings.NewReader(line[1])) // as curl -d does
	if err != nil {
		t.Fatal(err)
	}
	out := servetest.ReadBody(t, posted)
	for _, want := range []string{`"access_token":`, `"token_type":`, `"Bearer"`, `"expires_in":`, `3600`, `"scope":`} {
		if !strings.Contains(out, want) {
			t.Errorf("the answer lacks %s: %s", want, out)
		}
	}

	line = regexp.MustCompile(`(?m)^  grpcurl -plaintext -d '(.*)' (\S+) (\S+)$`).FindStringSubmatch(r.Out.String())
	if line == nil {
		t.Fatalf("dev mode printed no grpcurl line:\n%s", r.Out.String())
	}
	if want := "grantor.v1.TokenService/IssueToken"; line[3] != want {
		t.Errorf("the grpcurl line calls %s, want %s", line[3], want)
	}
	conn := servetest.Dial(t, line[2])
	answer, err := grantorv1.NewTokenServiceClient(conn).IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: "client_credentials", ClientId: "background-service", ClientSecret: "service-secret-here", Scope: "api1",
	})
	if err != nil || answer.GetExpiresIn() != 3600 || answer.GetScope() != "api1" {
		t.Errorf("over gRPC: got %v and %v, want a token for an hour", answer, err)
	}
	if !strings.Contains(r.Log.String(), "insecure: development mode") {
		t.Errorf("the log does not say that dev mode is insecure:\n%s", r.Log.String())
	}
	if strings.Contains(r.Log.String(), "service-secret-here") || strings.Contains(r.Log.String(), answer.GetAccessToken()) {
		t.Error("the log has a secret or a token")
	}
}

// TestHealth queries the three health endpoints of a running server.
func TestHealth(t *testing.T) {
	r := servetest.Dev(t)
	ops := "http://" + r.OpsAddr()
	for _, c := range []struct{ path, want string }{
		{"/healthz", "ok"}, {"/readyz", "ok"}, {"/metrics", "grantor_feed_age_seconds"},
	} {
		if code, body := servetest.Get(t, ops+c.path); code != http.StatusOK || !strings.Contains(body, c.want) {
			t.Errorf("%s: got %d %.200q, want %q", c.path, code, body, c.want)
		}
	}
	client := healthpb.NewHealthClient(servetest.Dial(t, r.GRPCAddr()))
	for _, service := range []string{"", "grantor.v1.TokenService"} {
		watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		for state := healthpb.HealthCheckResponse_UNKNOWN; state != healthpb.HealthCheckResponse_SERVING; {
			answer, err := watch.Recv()
			if err != nil {
				t.Fatalf("the health of %q: %v", service, err)
			}
			state = answer.GetStatus()
		}
	}
}

// TestProfiling expects profiles only on the operations port and only if enabled, and never the command line, which can
// have a secret.
func TestProfiling(t *testing.T) {
	for profiling, want := range map[string]map[string]int{
		"false": {"/debug/pprof/": 404, "/debug/pprof/heap": 404, "/debug/pprof/profile?seconds=1": 404, "/debug/pprof/cmdline": 404},
		"true": {
			"/debug/pprof/profile?seconds=61": 400, "/debug/pprof/trace?seconds=NaN": 400, "/debug/pprof/heap?seconds=1e9": 400,
			"/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/profile?seconds=1": 200, "/debug/pprof/cmdline": 404,
		},
	} {
		r := servetest.Dev(t, "--profiling="+profiling)
		for path, code := range want {
			if got, _ := servetest.Get(t, "http://"+r.OpsAddr()+path); got != code {
				t.Errorf("profiling %s: %s: got %d, want %d", profiling, path, got, code)
			}
		}
		if got, _ := servetest.Get(t, "http://"+r.HTTPAddr()+"/debug/pprof/"); got != 404 {
			t.Errorf("profiling %s: got %d on the REST port", profiling, got)
		}
	}
}

// TestReflection expects reflection in development mode only.
func TestReflection(t *testing.T) {
	dev := servetest.Dev(t)
	production, err := servetest.Try(t, "--issuer=http://localhost:1", "--redis="+dev.RedisURL(), "--redis-prefix=other:",
		"--key-encryption-key-file="+servetest.KEKFile(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		server *servetest.Replica
		want   codes.Code
	}{{"dev", dev, codes.OK}, {"production", production, codes.Unimplemented}} {
		stream, err := grpc_reflection_v1.NewServerReflectionClient(servetest.Dial(t, c.server.GRPCAddr())).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
		})
		if _, err = stream.Recv(); status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestStop stops a server while a request is in flight: the server reports that it is not ready, answers the request,
// accepts no new ones, and ends.
func TestStop(t *testing.T) {
	r := servetest.Dev(t)
	conn, body := half(t, r.Server)
	r.Stop()
	ops := "http://" + r.OpsAddr()
	for {
		code, answer := servetest.Get(t, ops+"/readyz")
		if code == http.StatusServiceUnavailable {
			if !strings.Contains(answer, "stopping") {
				t.Errorf("readiness says %q, want stopping", answer)
			}
			break
		}
	}
	if code, _ := servetest.Get(t, ops+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz: got %d, want 200 while calls end", code)
	}
	_, _ = io.WriteString(conn, body)
	rest, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(rest, []byte("200 OK")) || !bytes.Contains(rest, []byte("access_token")) {
		t.Errorf("got %q and %v, want the request in flight answered", rest, err)
	}
	<-r.Ended
	if _, err := net.Dial("tcp", r.HTTPAddr()); err == nil {
		t.Error("the REST port still takes connections after the stop")
	}
}

// half sends a request without its body, which it returns: the handler then waits for it.
func half(t *testing.T, srv *serve.Server) (conn net.Conn, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", srv.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	body = "grant_type=client_credentials&client_id=background-service&client_secret=service-secret-here"
	_, _ = fmt.Fprintf(conn, "POST /connect/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
		"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body))
	buf := make([]byte, 4096)
	if n, err := conn.Read(buf); err != nil || !bytes.Contains(buf[:n], []byte("100 Continue")) {
		t.Fatalf("got %q and %v, want the handler to wait for the body", buf[:n], err)
	}
	return conn, body
}

// TestStopInTime expects a call that does not end to be cut off, and a stream not to delay the stop.
func TestStopInTime(t *testing.T) {
	for _, c := range []struct {
		name string
		call func(t *testing.T, srv *serve.Server)
		want error
	}{
		{"a call that does not end", func(t *testing.T, srv *serve.Server) { half(t, srv) }, ports.ErrDrain},
		{"a stream that watches", func(t *testing.T, srv *serve.Server) {
			watch, err := healthpb.NewHealthClient(servetest.Dial(t, srv.GRPCAddr())).Watch(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := watch.Recv(); err != nil {
				t.Fatal(err)
			}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			timeout := "10ms"
			if c.want == nil {
				timeout = "10m"
			}
			settings, _, err := servetest.Parse("--dev", "--http-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0",
				"--ops-listen=127.0.0.1:0", "--shutdown-timeout="+timeout)
			if err != nil {
				t.Fatal(err)
			}
			var out, log must.Buffer
			srv, err := serve.New(t.Context(), settings, &out, &log)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- srv.Run(ctx) }()
			c.call(t, srv)
			stop()
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
