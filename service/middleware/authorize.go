package middleware

import (
	"context"
	"strings"

	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/telemetry"
)

// policy completes the rules in the protos. Reflection is registered in development mode alone.
var policy = verify.Policy{
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      verify.Public(),
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": verify.Public(),
}

// cachedTokens is how many tokens of administrators are held in memory.
const cachedTokens = 1000

// authorize lets through the calls that the rules in the protos allow.
type authorize struct {
	unary  grpc.UnaryServerInterceptor
	stream grpc.StreamServerInterceptor
}

func newAuthorize(ctx context.Context, config Config) (authorize, error) {
	verifier, err := verify.New(ctx, config.Issuer.String(), verify.Audience(registry.AdminResource),
		verify.Keys(config.Keys), verify.Denied(config.Denied), verify.Now(config.Now), verify.CacheSize(cachedTokens),
		verify.OnRefusal(func(ctx context.Context, method string, err error) {
			by := telemetry.Administrator{Peer: remoteaddr.FromContext(ctx).String()}
			config.Events.AdminRefused(ctx, strings.TrimPrefix(method, "/"), by, verify.Reason(err), err)
		}))
	if err != nil {
		return authorize{}, err
	}
	return authorize{verify.UnaryServerInterceptor(verifier, policy), verify.StreamServerInterceptor(verifier, policy)}, nil
}
