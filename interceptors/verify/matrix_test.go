package verify_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/types/known/emptypb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// class is what a method requires.
type class string

const (
	open     class = "public"
	anyToken class = "authenticated"
	read     class = "orders.read"
	transfer class = "orders.read orders.write"
	noRule   class = "no rule"
)

// classes maps each method of the server to what it requires.
var classes = map[string]class{
	"/test.v1.Go/Open":     open,
	"/test.v1.Go/Any":      anyToken,
	"/test.v1.Go/Read":     read,
	"/test.v1.Go/Transfer": transfer,
	"/test.v1.Go/Chat":     read,

	"/test.v1.Proto/Open":     open,
	"/test.v1.Proto/Any":      anyToken,
	"/test.v1.Proto/Read":     read,
	"/test.v1.Proto/Transfer": transfer,
	"/test.v1.Proto/Chat":     read,

	"/test.v1.Malformed/Empty": noRule,
	"/test.v1.Malformed/Two":   noRule,
	"/test.v1.Malformed/Scope": noRule,
	"/test.v1.Malformed/Chat":  noRule,

	"/grpc.health.v1.Health/Check": open,
	"/grpc.health.v1.Health/List":  open,
	"/grpc.health.v1.Health/Watch": open,

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      noRule,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": noRule,

	"/grantor.v1.TokenService/IssueToken":         open,
	"/grantor.v1.TokenService/GetServerMetadata":  open,
	"/grantor.v1.TokenService/GetKeySet":          open,
	"/grantor.v1.TokenService/IntrospectToken":    open,
	"/grantor.v1.TokenService/IntrospectTokens":   open,
	"/grantor.v1.TokenService/RevokeToken":        open,
	"/grantor.v1.TokenService/RevokeClientTokens": open,
}

const (
	refusedNoToken = "Unauthenticated invalid_token <Bearer>"
	refusedToken   = `Unauthenticated invalid_token <Bearer error="invalid_token">`
	refusedNoRule  = "PermissionDenied no_rule"
	refusedScope   = `PermissionDenied insufficient_scope <Bearer error="insufficient_scope", scope="orders.read">`
	refusedScopes  = `PermissionDenied insufficient_scope <Bearer error="insufficient_scope", scope="orders.read orders.write">`
	// passed is the outcome of a call that reached a handler, whatever the handler returned.
	passed = "passed"
)

func wantRefused(as string) map[class]string {
	return map[class]string{open: passed, anyToken: as, read: as, transfer: as, noRule: refusedNoRule}
}

type callerKind struct {
	authorization []string
	want          map[class]string
}

// callers returns every kind of caller, by name.
func callers(signer *token.Signer) map[string]callerKind {
	sign := func(scope string, change ...func(*token.Claims)) string {
		return "Bearer " + must.Get(signer.Sign(claims(testIssuer, scope, change...)))
	}
	good := sign("orders.read orders.write")
	foreign := "Bearer " + must.Get(newSigner().Sign(claims(testIssuer, "orders.read orders.write")))
	all := map[class]string{open: passed, anyToken: passed, read: passed, transfer: passed, noRule: refusedNoRule}
	return map[string]callerKind{
		"no token":            {nil, wantRefused(refusedNoToken)},
		"empty value":         {[]string{""}, wantRefused(refusedNoToken)},
		"scheme alone":        {[]string{"Bearer"}, wantRefused(refusedNoToken)},
		"scheme and a space":  {[]string{"Bearer "}, wantRefused(refusedNoToken)},
		"other scheme":        {[]string{"Basic " + strings.TrimPrefix(good, "Bearer ")}, wantRefused(refusedNoToken)},
		"longer scheme":       {[]string{"Bearers " + strings.TrimPrefix(good, "Bearer ")}, wantRefused(refusedNoToken)},
		"no scheme":           {[]string{strings.TrimPrefix(good, "Bearer ")}, wantRefused(refusedNoToken)},
		"two values":          {[]string{good, good}, wantRefused(refusedToken)},
		"garbage beside good": {[]string{good, "Basic eA=="}, wantRefused(refusedToken)},
		"two spaces":          {[]string{strings.Replace(good, " ", "  ", 1)}, wantRefused(refusedToken)},
		"trailing text":       {[]string{good + " x"}, wantRefused(refusedToken)},
		"a list":              {[]string{good + ", " + good}, wantRefused(refusedToken)},
		"garbage":             {[]string{"Bearer garbage"}, wantRefused(refusedToken)},
		"oversize":            {[]string{"Bearer " + strings.Repeat("a", token.MaxSize+1)}, wantRefused(refusedToken)},
		"expired":             {[]string{sign("orders.read", func(c *token.Claims) { c.ExpiresAt = time.Now().Add(-time.Second) })}, wantRefused(refusedToken)},
		"not yet valid":       {[]string{sign("orders.read", func(c *token.Claims) { c.IssuedAt = time.Now().Add(time.Minute) })}, wantRefused(refusedToken)},
		"foreign issuer":      {[]string{sign("orders.read", func(c *token.Claims) { c.Issuer += "/" })}, wantRefused(refusedToken)},
		"foreign key":         {[]string{foreign}, wantRefused(refusedToken)},
		"other audience":      {[]string{sign("orders.read", func(c *token.Claims) { c.Audience[0] += "/" })}, wantRefused(refusedToken)},
		"without scope": {[]string{sign("")}, map[class]string{
			open: passed, anyToken: passed, read: refusedScope, transfer: refusedScopes, noRule: refusedNoRule,
		}},
		"other scope": {[]string{sign("orders.Read orders.reader orders")}, map[class]string{
			open: passed, anyToken: passed, read: refusedScope, transfer: refusedScopes, noRule: refusedNoRule,
		}},
		"one scope": {[]string{sign("orders.read")}, map[class]string{
			open: passed, anyToken: passed, read: passed, transfer: refusedScopes, noRule: refusedNoRule,
		}},
		"both scopes":       {[]string{good}, all},
		"lower-case bearer": {[]string{"bearer" + strings.TrimPrefix(good, "Bearer")}, all},
		"one of audiences": {[]string{sign("orders.read orders.write", func(c *token.Claims) {
			c.Audience = []string{"https://stock.internal", orders}
		})}, all},
	}
}

func TestMatrix(t *testing.T) {
	signer := newSigner()
	var reached atomic.Int32
	options := append(verify.ServerOptions(newVerifier(signer), goPolicy),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			reached.Add(1)
			return next(ctx, r)
		}),
		grpc.ChainStreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			reached.Add(1)
			return next(srv, s)
		}))
	server := grpc.NewServer(options...)
	for _, desc := range []*grpc.ServiceDesc{goService, protoService, malformed} {
		server.RegisterService(desc, nil)
	}
	healthv1.RegisterHealthServer(server, health.NewServer())
	grantorv1.RegisterTokenServiceServer(server, grantorv1.UnimplementedTokenServiceServer{})
	reflection.Register(server)
	conn := listen(t, server)

	streams := map[string]bool{}
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			streams["/"+service+"/"+m.Name] = m.IsClientStream || m.IsServerStream
		}
	}
	if got, want := slices.Sorted(maps.Keys(streams)), slices.Sorted(maps.Keys(classes)); !slices.Equal(got, want) {
		t.Fatalf("the server's methods:\ngot  %q\nwant %q", got, want)
	}
	for name, caller := range callers(signer) {
		for method, class := range classes {
			t.Run(name+method, func(t *testing.T) {
				before := reached.Load()
				got := call(conn, method, streams[method], caller.authorization...)
				if reached.Load() > before {
					got = passed
				}
				if got != caller.want[class] {
					t.Errorf("got  %s\nwant %s", got, caller.want[class])
				}
			})
		}
	}
}

// call makes a call and returns its outcome.
func call(conn *grpc.ClientConn, method string, streaming bool, authorization ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx = outgoing(ctx, authorization...)
	var trailer metadata.MD
	if !streaming {
		err := conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}, grpc.Trailer(&trailer))
		return outcome(err, trailer)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return outcome(err, nil)
	}
	// A refusal may arrive first; RecvMsg then returns its status.
	_ = stream.SendMsg(&emptypb.Empty{})
	_ = stream.CloseSend()
	err = stream.RecvMsg(&emptypb.Empty{})
	return outcome(err, stream.Trailer())
}
