//go:build conformance

package conformance_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	datasyncv1 "github.com/grantorhq/grantor/examples/datasync/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// syncServer is a service over gRPC that has no access control. It records the callers that the guard named.
type syncServer struct {
	datasyncv1.UnimplementedSyncServiceServer

	mu      sync.Mutex
	callers []string
}

func (s *syncServer) record(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.callers = append(s.callers, strings.Join(metadata.ValueFromIncomingContext(ctx, "x-grantor-client-id"), ","))
}

func (s *syncServer) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	callers := s.callers
	s.callers = nil
	return callers
}

// ListPending implements [datasyncv1.SyncServiceServer].
func (s *syncServer) ListPending(ctx context.Context, _ *datasyncv1.ListPendingRequest) (*datasyncv1.ListPendingResponse, error) {
	s.record(ctx)
	return &datasyncv1.ListPendingResponse{Documents: []string{"one"}}, nil
}

// WatchPending implements [datasyncv1.SyncServiceServer].
func (s *syncServer) WatchPending(_ *datasyncv1.WatchPendingRequest, stream grpc.ServerStreamingServer[datasyncv1.WatchPendingResponse]) error {
	s.record(stream.Context())
	for range 3 {
		if err := stream.Send(&datasyncv1.WatchPendingResponse{Documents: []string{"one"}}); err != nil {
			return err
		}
	}
	if len(metadata.ValueFromIncomingContext(stream.Context(), "stay")) > 0 {
		<-stream.Context().Done()
	}
	return nil
}

// serveSync serves the service and returns its address.
func serveSync(t *testing.T, service *syncServer) string {
	t.Helper()
	server := grpc.NewServer()
	datasyncv1.RegisterSyncServiceServer(server, service)
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// descriptorSet writes the descriptors of the service, with the rules of its methods, as "buf build" does, and returns the file.
func descriptorSet(t *testing.T) string {
	t.Helper()
	set, seen := new(descriptorpb.FileDescriptorSet), map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	add(datasyncv1.File_datasync_v1_sync_proto)
	path := filepath.Join(t.TempDir(), "api.binpb")
	must.Succeed(t, os.WriteFile(path, must.Get(proto.Marshal(set)), 0o600))
	return path
}

// dialSync returns a client of the service behind the proxy that attaches tokens of the source.
func (f *front) dialSync(t *testing.T, options ...grpc.DialOption) datasyncv1.SyncServiceClient {
	t.Helper()
	conn := must.Get(grpc.NewClient(f.address, options...))
	t.Cleanup(func() { _ = conn.Close() })
	return datasyncv1.NewSyncServiceClient(conn)
}

// TestConformanceEnvoyGRPC has Envoy in front of a gRPC service, which the rules of its proto guard. The client is attach.
func TestConformanceEnvoyGRPC(t *testing.T) {
	service := new(syncServer)
	g := newGuarded(t, proxies[0], serveSync(t, service), "--descriptor-set", descriptorSet(t))
	security := grpc.WithTransportCredentials(credentials.NewTLS(g.tls("h2")))
	source := attach.ClientCredentials(g.issuer.URL, ordersClient, tokentest.Secret, attach.Scopes("api1"))
	client := g.dialSync(t, attach.DialOptions(source, security)...)

	call := func(t *testing.T) {
		t.Helper()
		if _, err := client.ListPending(t.Context(), &datasyncv1.ListPendingRequest{}); err != nil {
			t.Error(err)
		}
		stream := must.Get(client.WatchPending(t.Context(), &datasyncv1.WatchPendingRequest{}))
		for range 3 {
			if _, err := stream.Recv(); err != nil {
				t.Error(err)
			}
		}
		if callers := service.take(); len(callers) != 2 || callers[0] != ordersClient || callers[1] != ordersClient {
			t.Errorf("the service was called by %q", callers)
		}
	}
	t.Run("calls", call)
	t.Run("a revoked token is renewed", func(t *testing.T) {
		before := must.Get(source.Token()).AccessToken
		g.revoke(t, before)
		must.Eventually(t, "the guard refuses the token", func() bool { return g.get(t, "/orders/1", before).status == http.StatusUnauthorized })
		call(t)
		if after := must.Get(source.Token()).AccessToken; after == before {
			t.Error("got the revoked token")
		}
	})
	plain := g.dialSync(t, security)
	for name, c := range map[string]struct {
		authorization []string
		code          codes.Code
	}{
		"no token":      {nil, codes.Unauthenticated},
		"another scope": {[]string{"Bearer " + g.token(t, "orders.read")}, codes.PermissionDenied},
		"two tokens":    {[]string{"Bearer " + g.token(t, "api1"), "Bearer " + g.token(t, "api1")}, codes.Unauthenticated},
		"not a token":   {[]string{"Bearer x"}, codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": c.authorization, "x-grantor-client-id": {"admin"}})
			var trailer metadata.MD
			_, err := plain.ListPending(ctx, &datasyncv1.ListPendingRequest{}, grpc.Trailer(&trailer))
			if status.Code(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if len(trailer.Get("www-authenticate")) == 0 {
				t.Errorf("got no challenge in %v", trailer)
			}
			t.Logf("%v, %v", err, trailer)
			if callers := service.take(); len(callers) > 0 {
				t.Errorf("the service was called by %q", callers)
			}
		})
	}
}

// TestConformanceEnvoyStreams ends a stream when its token expires, with limit-streams.
func TestConformanceEnvoyStreams(t *testing.T) {
	g := newGuarded(t, proxies[0], serveSync(t, new(syncServer)), "--descriptor-set", descriptorSet(t), "--limit-streams")
	client := g.dialSync(t, grpc.WithTransportCredentials(credentials.NewTLS(g.tls("h2"))))
	const left = 3 * time.Second
	token := g.issuer.Sign(t, map[string]any{
		"sub": ordersClient, "client_id": ordersClient, "aud": ordersResource, "scope": "api1", "exp": time.Now().Add(left).Unix(),
	})
	began := time.Now()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token, "stay", "1"), 30*time.Second)
	defer cancel()
	stream := must.Get(client.WatchPending(ctx, &datasyncv1.WatchPendingRequest{}))
	received := 0
	var err error
	for ; err == nil; received++ {
		_, err = stream.Recv()
	}
	took := time.Since(began)
	t.Logf("%s: %d messages, then %v", took.Round(time.Millisecond), received-1, err)
	if received-1 != 3 || took > left+time.Second || ctx.Err() != nil {
		t.Errorf("the stream of a token with %s left ended after %s, with %d messages", left, took, received-1)
	}
}

// TestConformanceEnvoyBound presents a token that is bound to a certificate with and without that certificate, which Envoy passes to
// the guard.
func TestConformanceEnvoyBound(t *testing.T) {
	g := newGuarded(t, proxies[0], "")
	own, other := certtest.SelfSigned(), certtest.SelfSigned()
	token := g.issuer.Sign(t, map[string]any{
		"sub": ordersClient, "client_id": ordersClient, "aud": ordersResource, "scope": "orders.read",
		"cnf": map[string]string{"x5t#S256": thumbprint(own.Certificate[0])},
	})
	for name, c := range map[string]struct {
		certificates []tls.Certificate
		status       int
	}{
		"its certificate": {[]tls.Certificate{own}, http.StatusOK}, "another": {[]tls.Certificate{other}, http.StatusUnauthorized}, "none": {nil, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			f := *g.front
			f.certificates = c.certificates
			if got := f.send(t, strings.ReplaceAll(target("", "/orders/1").raw, "TOKEN", token), 5*time.Second); got.status != c.status {
				t.Errorf("got %d %s, want %d", got.status, got.body, c.status)
			}
		})
	}
}

// TestConformanceEnvoyJWTAuthn checks tokens by Envoy's own filter, and shows what it does not check.
func TestConformanceEnvoyJWTAuthn(t *testing.T) {
	root := certtest.NewAuthority()
	issuer := tokentest.New(t, tokentest.TLS(root.Sign()))
	issuer.AddClient(t, ordersClient, ordersResource, "orders.read")
	service := newWire(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p := proxies[0]
	p.change = func(t *testing.T, dir, text string) string {
		t.Helper()
		bundle := filepath.Join(dir, "issuer.crt")
		must.Succeed(t, os.WriteFile(bundle, []byte(certtest.PEM(root.Certificate.Raw)), 0o600))
		address := strings.TrimPrefix(issuer.URL, "https://")
		replaced := strings.NewReplacer("https://auth.example.com", issuer.URL, "address: auth.example.com, port_value: 443", "address: 127.0.0.1, port_value: "+port(t, address),
			"sni: auth.example.com", "sni: localhost", "exact: auth.example.com", "exact: localhost", "/etc/ssl/certs/ca-certificates.crt", bundle)
		var config struct {
			Static map[string]any `yaml:"static_resources"`
		}
		var instead struct {
			Filter  any `yaml:"http_filter"`
			Cluster any `yaml:"cluster"`
		}
		must.Succeed(t, yaml.Unmarshal([]byte(text), &config))
		must.Succeed(t, yaml.Unmarshal([]byte(replaced.Replace(string(must.Get(os.ReadFile("../../deploy/proxies/envoy-jwt-authn.yaml"))))), &instead))
		config.Static["clusters"].([]any)[0] = instead.Cluster
		chain := config.Static["listeners"].([]any)[0].(map[string]any)["filter_chains"].([]any)[0].(map[string]any)
		manager := chain["filters"].([]any)[0].(map[string]any)["typed_config"].(map[string]any)
		manager["http_filters"].([]any)[0] = instead.Filter
		return string(must.Get(yaml.Marshal(map[string]any{"static_resources": config.Static})))
	}
	g := &guarded{front: p.start(t, behind{service: service.address}), issuer: issuer, service: service}
	g.eventually(t, g.token(t, "orders.read"), http.StatusOK)
	for _, c := range []struct {
		name, path, token string
		status            int
	}{
		{"no token", "/orders/1", "", http.StatusUnauthorized},
		{"a public path", "/public/1", "", http.StatusOK},
		{"an expired token", "/orders/1", issuer.Expired(t, ordersClient, ordersResource, "orders.read"), http.StatusUnauthorized},
		{"a forged token", "/orders/1", issuer.Forge(t, map[string]any{"aud": ordersResource, "scope": "orders.read"}), http.StatusUnauthorized},
		{"another audience", "/orders/1", issuer.Token(t, ordersClient, "https://other.internal", "orders.read"), http.StatusForbidden},
		// What it does not check.
		{"another scope", "/orders/1", g.token(t, "orders.write"), http.StatusOK},
		{"a bound token without its certificate", "/orders/1", issuer.Sign(t, map[string]any{
			"sub": ordersClient, "client_id": ordersClient, "aud": ordersResource, "cnf": map[string]string{"x5t#S256": thumbprint(nil)},
		}), http.StatusOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := g.get(t, c.path, c.token); got.status != c.status {
				t.Errorf("got %d %s, want %d", got.status, got.body, c.status)
			}
		})
	}
}
