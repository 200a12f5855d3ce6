package attach

import (
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // enables client-side health checking
	"google.golang.org/grpc/keepalive"
)

// IssuerDialOptions returns the options of a connection to Grantor, for [OverGRPC] in this package and in package
// verify, and for programs that call the services of grantor.v1 themselves:
//
//	conn, err := grpc.NewClient("grantor.internal:8081", attach.IssuerDialOptions()...)
//
// The options, in order:
//
//   - TLS with the system's root certificates.
//   - Load balancing as by [AcrossReplicas], if DNS resolves the name to several replicas, such as that of a headless
//     Kubernetes service. The address of a load balancer works as well.
//   - Retries: a call that fails with UNAVAILABLE, as at a replica that has just started or lost its Redis, is made up
//     to five times within two seconds, if making it twice does no more than making it once. That is every method
//     of grantor.v1.TokenService except RevokeClientTokens.
//   - Keepalive: a connection that falls silent is closed after 15 s.
//   - Reconnection with a backoff of at most 5 s.
//   - Windows of 1 MiB for flow control. With windows that grow, gRPC sends a ping for each heartbeat of the feed of
//     revocations, which costs the issuer as much as the heartbeat.
//
// The options in more come last and can replace any of these.
func IssuerDialOptions(more ...grpc.DialOption) []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})),
		grpc.WithDefaultServiceConfig("{" + roundRobin(issuerService) + "," + issuerRetries + "}"),
		grpc.WithDisableServiceConfig(), // otherwise the first call waits for a DNS lookup of one
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		// gRPC's default backoff grows to two minutes, during which a replica that is back would get no calls.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 250 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithStaticStreamWindowSize(issuerWindow), grpc.WithStaticConnWindowSize(issuerWindow),
	}, more...)
}

// AcrossReplicas returns the option that spreads the calls of a connection, round robin, over all addresses to which
// DNS resolves the target. A replica whose health service (grpc.health.v1) reports that it is not serving gets no
// calls; a replica without a health service counts as serving. The service argument names the service whose health is
// checked, such as "orders.v1.Orders"; the empty string means the server as a whole.
//
// gRPC resolves the name again when a connection ends, at most every 30 s. New replicas therefore get their share if
// the server limits the age of its connections (keepalive.ServerParameters).
//
//	grpc.NewClient("orders.internal:443", attach.DialOptions(source, attach.AcrossReplicas(""))...)
func AcrossReplicas(service string) grpc.DialOption {
	return grpc.WithDefaultServiceConfig("{" + roundRobin(service) + "}")
}

const issuerService = "grantor.v1.TokenService"

// issuerWindow is the flow-control window of a connection to the issuer, in bytes.
const issuerWindow = 1 << 20

// roundRobin returns the part of a service config that spreads calls over healthy replicas (gRFC A17).
func roundRobin(service string) string {
	return fmt.Sprintf(`"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": %q}`, service)
}

// issuerRetries is the part of a service config that retries calls (gRFC A6). RevokeClientTokens is not included:
// repeated, it would also revoke the tokens that the client obtained in between. While most calls fail, throttling
// stops all retries, which would only add to the load.
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
