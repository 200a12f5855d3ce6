package verify

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/service/oauth"
)

// anyReplica makes verifiers follow different replicas if the name of the gRPC port resolves to several addresses.
const anyReplica = `{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}`

// feedDialer connects to the issuer's feed. The returned function closes the connection.
type feedDialer func(ctx context.Context) (grpc.ClientConnInterface, func(), error)

// discoveredDialer returns a dialer for the gRPC port named in the issuer's metadata.
func discoveredDialer(client *http.Client, issuer string) feedDialer {
	return func(ctx context.Context) (grpc.ClientConnInterface, func(), error) {
		found, err := oauth.Discover(ctx, client, issuer)
		if err != nil {
			return nil, nil, err
		}
		if found.GRPCEndpoint == "" {
			return nil, nil, errNoFeed
		}
		secure, err := transportSecurity(client, issuer, found.GRPCEndpoint)
		if err != nil {
			return nil, nil, err
		}
		conn, err := grpc.NewClient(found.GRPCEndpoint, grpc.WithTransportCredentials(secure),
			grpc.WithDefaultServiceConfig(anyReplica), grpc.WithDisableServiceConfig())
		if err != nil {
			return nil, nil, err
		}
		return conn, func() { _ = conn.Close() }, nil
	}
}

// transportSecurity returns the credentials that match the issuer's URL: TLS with the HTTP client's settings, or
// plaintext if both issuer and endpoint are loopback.
func transportSecurity(client *http.Client, issuer, endpoint string) (credentials.TransportCredentials, error) {
	if strings.HasPrefix(issuer, "https:") {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if transport, ok := client.Transport.(*http.Transport); ok && transport.TLSClientConfig != nil {
			config = transport.TLSClientConfig.Clone()
			config.NextProtos = nil
		}
		return credentials.NewTLS(config), nil
	}
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil || !oauth.Loopback(host) {
		return nil, fmt.Errorf("the issuer's gRPC endpoint %.200q is neither TLS nor loopback", endpoint)
	}
	return insecure.NewCredentials(), nil
}
