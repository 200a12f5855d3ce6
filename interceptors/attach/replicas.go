package attach

import (
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // lets a connection ask its servers whether they serve
	"google.golang.org/grpc/keepalive"
)

// IssuerDialOptions are all that a connection to Grantor needs, for [OverGRPC] here and in package verify, and for
// services of grantor.v1 that a program calls itself:
//
//	conn, err := grpc.NewClient("grantor.internal:8081", attach.IssuerDialOptions()...)
//
// A name that DNS resolves to several replicas, such as that of a headless service of Kubernetes, has its calls spread
// as by [AcrossReplicas]; one address that a load balancer stands behind serves as well. A call that a replica answers
// with UNAVAILABLE, as one does that has just started or lost its Redis, is made again up to four times within two
// seconds, where making it twice does no more than making it once: all of grantor.v1.TokenService but
// RevokeClientTokens. A connection that falls silent is given up after 15 s.
//
// First stands TLS with the system's roots; the options of more come last, and can replace any of these.
func IssuerDialOptions(more ...grpc.DialOption) []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})),
		grpc.WithDefaultServiceConfig("{" + spread(issuerService) + "," + issuerRetries + "}"),
		grpc.WithDisableServiceConfig(), // the first call would wait until DNS has said that it has no other
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		// gRPC's own pauses grow to two minutes, for which a replica that is back would get no calls.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 250 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}, more...)
}

// AcrossReplicas spreads the calls of a connection over the replicas of a server, in turn: over every address to which
// DNS resolves the target. A replica whose health service (grpc.health.v1) says that it does not serve gets no calls;
// it is asked about the service named, such as "orders.v1.Orders", or where that is "" about the server as a whole. One
// without a health service counts as serving. DNS is asked again when a connection ends, at most every 30 s: so new
// replicas get their share when the server bounds the age of its connections (keepalive.ServerParameters).
//
//	grpc.NewClient("orders.internal:443", attach.DialOptions(source, attach.AcrossReplicas(""))...)
func AcrossReplicas(service string) grpc.DialOption {
	return grpc.WithDefaultServiceConfig("{" + spread(service) + "}")
}

const issuerService = "grantor.v1.TokenService"

// spread is the part of a service config that spreads calls by health (gRFC A17).
func spread(service string) string {
	return fmt.Sprintf(`"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": %q}`, service)
}

// issuerRetries is the part that makes calls again (gRFC A6). RevokeClientTokens is not among them: made again, it
// would also end what the client got in between. While most calls fail none is made again, which would only add to the
// load.
const issuerRetries = `"methodConfig": [{
	"name": [
		{"service": "grantor.v1.TokenService", "method": "IssueToken"},
		{"service": "grantor.v1.TokenService", "method": "IntrospectToken"},
		{"service": "grantor.v1.TokenService", "method": "IntrospectTokens"},
		{"service": "grantor.v1.TokenService", "method": "RevokeToken"},
		{"service": "grantor.v1.TokenService", "method": "GetServerMetadata"},
		{"service": "grantor.v1.TokenService", "method": "GetKeySet"}
	],
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}], "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1}`
