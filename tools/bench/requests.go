package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/tools/bench/loader"
)

// The light loads: the connections, and the calls in flight on each.
const (
	restConnections                 = 32
	grpcConnections, grpcEachFlight = 4, 8
)

// newLoad prepares a load on a server that takes a time. It makes the requests, of which some are for this load only.
type newLoad func(context.Context, *lab, *server, time.Duration) (*loader.Load, error)

// overGRPC returns a load of a method that sends the messages in turn.
func overGRPC(s *server, method string, messages ...proto.Message) (*loader.Load, error) {
	var requests [][]byte
	for _, m := range messages {
		encoded, err := proto.Marshal(m)
		if err != nil {
			return nil, err
		}
		requests = append(requests, loader.Request(encoded))
	}
	var sent atomic.Uint64
	return loader.GRPC(s.grpc, method, grpcConnections, grpcEachFlight, func() []byte {
		return requests[sent.Add(1)%uint64(len(requests))]
	}), nil
}

// tokenRequest returns a request of the load's client for a token.
func (l *lab) tokenRequest(scope, resource string) *grantorv1.IssueTokenRequest {
	return &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: loadClient, ClientSecret: l.secret, Scope: scope, Resource: []string{resource},
	}
}

// issueTokens returns n tokens for the orders API.
func (l *lab) issueTokens(ctx context.Context, s *server, n int) ([]string, error) {
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var tokens []string
	for range n {
		issued, err := grantorv1.NewTokenServiceClient(conn).IssueToken(ctx, l.tokenRequest(ordersScope, ordersAPI))
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, issued.GetAccessToken())
	}
	return tokens, nil
}

// issueGRPC requests tokens over gRPC.
func issueGRPC(scope, resource string) newLoad {
	return func(_ context.Context, l *lab, s *server, _ time.Duration) (*loader.Load, error) {
		return overGRPC(s, grantorv1.TokenService_IssueToken_FullMethodName, l.tokenRequest(scope, resource))
	}
}

// issueREST requests tokens over REST. The client authenticates by HTTP Basic.
func issueREST(scope, resource string) newLoad {
	return func(_ context.Context, l *lab, s *server, _ time.Duration) (*loader.Load, error) {
		address, err := url.Parse(s.url)
		if err != nil {
			return nil, err
		}
		form := url.Values{"grant_type": {oauth.GrantClientCredentials}, "scope": {scope}, "resource": {resource}}.Encode()
		request := fmt.Appendf(nil, "POST /connect/token HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\n"+
			"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
			address.Host, base64.StdEncoding.EncodeToString([]byte(loadClient+":"+l.secret)), len(form), form)
		return loader.HTTP1(address.Host, restConnections, func() []byte { return request }), nil
	}
}

// introspected is the number of tokens that are introspected in turn.
const introspected = 64

// introspectGRPC introspects tokens over gRPC, which it requests first.
func introspectGRPC(ctx context.Context, l *lab, s *server, _ time.Duration) (*loader.Load, error) {
	tokens, err := l.issueTokens(ctx, s, introspected)
	if err != nil {
		return nil, err
	}
	var messages []proto.Message
	for _, token := range tokens {
		messages = append(messages, &grantorv1.IntrospectTokenRequest{Token: token, ClientId: loadClient, ClientSecret: l.secret})
	}
	return overGRPC(s, grantorv1.TokenService_IntrospectToken_FullMethodName, messages...)
}

// issueFederated requests tokens for the token of a workload, the same in each call.
func issueFederated(_ context.Context, l *lab, s *server, _ time.Duration) (*loader.Load, error) {
	workload, err := os.ReadFile(l.path(tokenFile))
	if err != nil {
		return nil, err
	}
	return overGRPC(s, grantorv1.TokenService_IssueToken_FullMethodName, &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: "k8s:orders", Scope: ordersScope, Resource: []string{ordersAPI},
		ClientAssertion: string(workload), ClientAssertionType: clientassertion.Type,
	})
}

// assertionsPerSecond is how many assertions are made for each second of a load. An issuer accepts an assertion once, and
// making one takes as long as answering, so all are made before the load. If they do not suffice, the load ends early.
const assertionsPerSecond = 10_000

// issueKeyed requests tokens for assertions that a client signs with its private key.
func issueKeyed(ctx context.Context, l *lab, s *server, length time.Duration) (*loader.Load, error) {
	private, err := clientassertion.ReadKey(l.path(keyFile))
	if err != nil {
		return nil, err
	}
	maker := clientassertion.Maker{Issuer: s.url, Client: keyedClient}
	requests := make([][]byte, int(length.Seconds()*assertionsPerSecond))
	var failed [2]error // one for each goroutine
	var making sync.WaitGroup
	for part := range failed {
		making.Go(func() {
			for i := part; i < len(requests) && failed[part] == nil && ctx.Err() == nil; i += len(failed) {
				var assertion string
				var encoded []byte
				if assertion, failed[part] = maker.Make(private, time.Now()); failed[part] == nil {
					encoded, failed[part] = proto.Marshal(&grantorv1.IssueTokenRequest{
						GrantType: oauth.GrantClientCredentials, ClientId: keyedClient, Scope: ordersScope, Resource: []string{ordersAPI},
						ClientAssertion: assertion, ClientAssertionType: clientassertion.Type,
					})
				}
				requests[i] = loader.Request(encoded)
			}
		})
	}
	making.Wait()
	if err := errors.Join(failed[0], failed[1], ctx.Err()); err != nil {
		return nil, err
	}
	var sent atomic.Int64
	return loader.GRPC(s.grpc, grantorv1.TokenService_IssueToken_FullMethodName, grpcConnections, grpcEachFlight, func() []byte {
		if n := sent.Add(1); n <= int64(len(requests)) {
			return requests[n-1]
		}
		return nil
	}), nil
}

// checkGuard asks about a request with the token for the guard, as Envoy does. An answer that does not admit it has the same
// status, so the first answer is read.
func checkGuard(ctx context.Context, l *lab, s *server, _ time.Duration) (*loader.Load, error) {
	token, err := os.ReadFile(l.path(guardTokenFile))
	if err != nil {
		return nil, err
	}
	const host, path = "orders.example.com", "/orders/1"
	var headers []*corev3.HeaderValue
	for _, h := range [][2]string{
		{":authority", host}, {":method", "GET"}, {":path", path}, {":scheme", "https"}, {"x-request-id", "1"}, {"x-forwarded-proto", "https"},
		{"user-agent", "bench"}, {"authorization", "Bearer " + string(token)},
	} {
		headers = append(headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
	}
	question := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
		Id: "1", Method: "GET", Scheme: "https", Host: host, Path: path, Protocol: "HTTP/2", Size: -1, HeaderMap: &corev3.HeaderMap{Headers: headers},
	}}}}
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	answer, err := authv3.NewAuthorizationClient(conn).Check(ctx, question)
	if err != nil {
		return nil, err
	}
	if answer.GetOkResponse() == nil {
		return nil, fmt.Errorf("the server does not admit the request: %s", strings.TrimSpace(answer.String()))
	}
	return overGRPC(s, authv3.Authorization_Check_FullMethodName, question)
}
