package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// issuerForm is the part of an error about the address of a gRPC port that says what an issuer is.
const issuerForm = "the issuer is the URL of the REST port, such as https://auth.example.com or http://localhost:8080"

// CheckIssuer validates the setting issuer of a command that calls one.
func CheckIssuer(issuer string) error {
	err := oauth.SecureURL(issuer)
	if err == nil {
		return nil
	}
	scheme, _, isURL := strings.Cut(issuer, "://")
	_, _, notAddress := net.SplitHostPort(issuer)
	switch {
	case !isURL && notAddress == nil:
		err = fmt.Errorf("%.200q is a host and a port, as gRPC takes them; %s", issuer, issuerForm)
	case isURL && slices.Contains([]string{"grpc", "grpcs", "dns", "passthrough"}, scheme):
		err = fmt.Errorf("%.200q is a gRPC target; %s", issuer, issuerForm)
	}
	return cli.SettingError("issuer", err)
}

// Discover fetches the metadata of an issuer. If it fails because the URL is that of a gRPC port, the error says so.
func Discover(ctx context.Context, client *http.Client, issuer string) (*oauth.Metadata, error) {
	found, err := oauth.Discover(ctx, client, issuer)
	return found, explainIssuer(ctx, issuer, err)
}

// FetchKeys fetches the public keys of an issuer, as [Discover] does.
func FetchKeys(ctx context.Context, issuer string) (*jwks.Set, error) {
	client := NewHTTPClient()
	defer client.CloseIdleConnections()
	set, _, err := jwks.HTTP(client, issuer)(ctx)
	return set, explainIssuer(ctx, issuer, err)
}

// explainIssuer adds the exit code to the error of a request for an issuer's documents, or replaces the error if the URL
// is that of a gRPC port.
func explainIssuer(ctx context.Context, issuer string, err error) error {
	switch explained := requestError(err); {
	case errors.Is(err, oauth.ErrOtherIssuer):
		return err
	case cli.ExitCode(explained) == cli.ExitUnavailable && cli.ExitCode(err) != cli.ExitUnavailable && answersGRPC(ctx, issuer):
		return cli.SettingError("issuer", fmt.Errorf("%.200q is a gRPC port; %s", issuer, issuerForm))
	default:
		return explained
	}
}

// requestError adds the exit code to the error of a request without a response, unless the server's certificate is not
// trusted, which a retry does not change, or the command was interrupted.
func requestError(err error) error {
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted || errors.Is(err, context.Canceled) {
		return err
	}
	return cli.WithExit(cli.ExitUnavailable, err)
}

// answersGRPC reports whether the health service of gRPC answers at the host and port of a URL, with TLS or without: the
// scheme may be wrong too.
func answersGRPC(ctx context.Context, rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme // a dialer knows the ports of http and https
	}
	unverified := &tls.Config{MinVersion: tls.VersionTLS12}
	unverified.InsecureSkipVerify = true // the call has no secret, and only the text of an error depends on it
	return slices.ContainsFunc([]credentials.TransportCredentials{insecure.NewCredentials(), credentials.NewTLS(unverified)},
		func(security credentials.TransportCredentials) bool {
			return healthy(ctx, net.JoinHostPort(u.Hostname(), port), security)
		})
}

// healthy reports whether the health service of gRPC answers at an address.
func healthy(ctx context.Context, address string, security credentials.TransportCredentials) bool {
	const timeout = 3 * time.Second
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(security))
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err == nil
}
