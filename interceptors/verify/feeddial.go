package verify

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/service/oauth"
)

// anyReplica makes verifiers follow different replicas if the name of the gRPC port resolves to several addresses.
const anyReplica = `{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}`

// feedWindow is the flow-control window of the feed, in bytes: room for all that is on the way over a distance of 100 ms at
// 10 MB/s. It does not grow with what is received, because gRPC measures for that: it sends a ping for each heartbeat, which
// costs the issuer more than the heartbeat.
const feedWindow = 1 << 20

// feedDialer connects to the issuer's feed. The returned function closes the connection.
type feedDialer func(ctx context.Context) (grpc.ClientConnInterface, func(), error)

// discoveredDialer returns a dialer for the gRPC port that [FeedFrom] or the issuer's metadata name.
func (c *config) discoveredDialer(issuer string) feedDialer {
	return func(ctx context.Context) (grpc.ClientConnInterface, func(), error) {
		endpoint := c.feedFrom
		if endpoint == "" {
			found, err := c.discovery().Metadata(ctx, issuer)
			if err != nil {
				return nil, nil, err
			}
			if endpoint = found.GRPCEndpoint; endpoint == "" {
				return nil, nil, errNoFeed
			}
			// The part before a colon could otherwise select another resolver of gRPC.
			if _, _, err := net.SplitHostPort(endpoint); err != nil {
				return nil, nil, fmt.Errorf("the issuer's grantor_grpc_endpoint %.200q is not host:port", endpoint)
			}
		}
		secure, err := c.transportSecurity(issuer, endpoint)
		if err != nil {
			return nil, nil, err
		}
		conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(secure),
			grpc.WithDefaultServiceConfig(anyReplica), grpc.WithDisableServiceConfig(),
			grpc.WithStaticStreamWindowSize(feedWindow), grpc.WithStaticConnWindowSize(feedWindow))
		if err != nil {
			return nil, nil, err
		}
		return conn, func() { _ = conn.Close() }, nil
	}
}

// transportSecurity returns the credentials that match the URL at which the issuer is reached: TLS for https, otherwise
// plaintext if the endpoint is loopback or plaintext is permitted.
func (c *config) transportSecurity(issuer, endpoint string) (credentials.TransportCredentials, error) {
	if u, err := url.Parse(c.discovery().Base(issuer)); err == nil && u.Scheme == "https" {
		return credentials.NewTLS(c.tlsConfig()), nil
	}
	host, _, err := net.SplitHostPort(endpoint)
	if !c.plaintext && (err != nil || !oauth.Loopback(host)) {
		return nil, fmt.Errorf("the issuer's gRPC endpoint %.200q is neither TLS nor loopback", endpoint)
	}
	return insecure.NewCredentials(), nil
}

// tlsConfig returns the TLS settings of the feed.
func (c *config) tlsConfig() *tls.Config {
	settings := c.feedTLS
	if transport, ok := c.client.Transport.(*http.Transport); ok && transport != nil && settings == nil {
		settings = transport.TLSClientConfig
	}
	if settings == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}
	settings = settings.Clone()
	settings.NextProtos = nil
	return settings
}
