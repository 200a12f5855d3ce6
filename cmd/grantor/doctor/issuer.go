package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// checkIssuer checks what clients see: the certificate, the metadata, the keys and the gRPC endpoint.
func (d *doctor) checkIssuer(ctx context.Context) {
	if d.issuer == "" {
		return
	}
	var others []string
	for _, r := range d.live {
		if reported := r.Settings["issuer"]; reported != d.issuer {
			others = append(others, label(&r)+" serves "+reported)
		}
	}
	d.named("issuer.other", others)
	if !d.trusted(ctx) {
		return
	}
	c := &remote.Client{HTTP: remote.NewHTTPClient()}
	defer c.Close()
	found, err := discover(ctx, c.HTTP, d.issuer)
	other := errors.Is(err, oauth.ErrOtherIssuer)
	d.checkf("issuer.metadata", other, "%v", err)
	d.checkf("issuer.reach", err != nil && !other, "%v", err)
	if err != nil {
		return
	}
	c.Metadata = found
	d.checkPlaces(ctx, c)
	d.checkEndpoints(ctx, c)
	d.checkKeySet(ctx, c)
	d.checkGRPC(ctx, c)
}

// checkPlaces looks for the metadata at every place where clients do. A proxy in front of an issuer with a path often
// routes only what is below that path.
func (d *doctor) checkPlaces(ctx context.Context, c *remote.Client) {
	places, err := oauth.MetadataURLs(d.issuer)
	if err != nil {
		return // it was found, so that this is a URL
	}
	for _, place := range places {
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		_, err := oauth.Discovery{Client: c.HTTP}.MetadataAt(ctx, place, d.issuer)
		cancel()
		d.checkf("issuer.places", err != nil, "%v", err)
	}
}

// checkEndpoints requests the endpoints of the metadata with GET, which does nothing there: Grantor answers 405. A WAF may
// refuse it by another status of 4xx.
func (d *doctor) checkEndpoints(ctx context.Context, c *remote.Client) {
	for _, endpoint := range []string{c.Metadata.TokenEndpoint, c.Metadata.IntrospectionEndpoint, c.Metadata.RevocationEndpoint} {
		status, _, err := get(ctx, c.HTTP, endpoint)
		d.checkf("issuer.endpoints", err != nil, "%v", err)
		if err == nil {
			lost := status == http.StatusNotFound || status < 400 || status >= 500
			d.checkf("issuer.endpoints", lost, "%s answered %d to GET, not 405", endpoint, status)
		}
	}
}

func discover(ctx context.Context, client *http.Client, issuer string) (*oauth.Metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return remote.Discover(ctx, client, issuer)
}

// trusted checks the issuer's certificate, and reports whether further checks make sense.
func (d *doctor) trusted(ctx context.Context) bool {
	u, err := url.Parse(d.issuer)
	if err != nil || u.Scheme != "https" {
		return true
	}
	address := net.JoinHostPort(u.Hostname(), u.Port())
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "443")
	}
	chain, err := handshake(ctx, address, &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12})
	d.checkf("issuer.reach", err != nil, "%v", err)
	if err != nil {
		return false
	}
	//nolint:gosec // checks that the server refuses it
	_, err = handshake(ctx, address, &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	d.checkf("tls.version", err == nil, "a connection by TLS 1.1 or older is accepted")
	return d.verify(chain, u.Hostname())
}

// handshake returns the certificates that a server presents, without verifying them.
func handshake(ctx context.Context, address string, config *tls.Config) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	// Nothing is sent over the connection. verify checks the certificates, and can report more than a failed handshake.
	config.InsecureSkipVerify = true
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return nil, errors.New("the connection is not TLS")
	}
	return secure.ConnectionState().PeerCertificates, nil
}

// verify verifies a server's certificates as a client does (RFC 5280 §6), and reports whether a client would connect.
func (d *doctor) verify(shown []*x509.Certificate, host string) bool {
	if len(shown) == 0 {
		d.checkf("tls.trust", true, "the server presents no certificate")
		return false
	}
	options := x509.VerifyOptions{DNSName: host, CurrentTime: d.now(), Intermediates: x509.NewCertPool()}
	for _, intermediate := range shown[1:] {
		options.Intermediates.AddCert(intermediate)
	}
	chains, err := shown[0].Verify(options)
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	ended := err != nil && invalid.Reason == x509.Expired && invalid.Cert != nil
	d.checkf("tls.ended", ended, "%v", err)
	d.checkf("tls.trust", err != nil && !ended, "%v", err)
	if err != nil {
		return false
	}
	// The chain that is valid for the longest time counts.
	var ends time.Time
	for _, chain := range chains {
		first := chain[0].NotAfter
		for _, certificate := range chain {
			if certificate.NotAfter.Before(first) {
				first = certificate.NotAfter
			}
		}
		if first.After(ends) {
			ends = first
		}
	}
	d.checkf("tls.ends", ends.Before(d.now().Add(expiryWarning)), "%s", formatTime(ends))
	return true
}

// checkKeySet compares the published key set with the ring.
func (d *doctor) checkKeySet(ctx context.Context, c *remote.Client) {
	const apart = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	document, header, err := oauth.Get(ctx, c.HTTP, c.Metadata.JWKSURI, jwks.MaxDocument)
	var set *jwks.Set
	if err == nil {
		set, err = jwks.Parse(document)
	}
	d.checkf("issuer.keys", err != nil, "%v", err)
	if err != nil {
		return
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil && header.Get("Age") == "" {
		off := date.Sub(d.now())
		d.checkf("issuer.clock", off.Abs() > apart, "it is %s from this machine's", off.Round(time.Second))
	}
	if d.ring == nil {
		return
	}
	var published []string
	for _, key := range set.Keys() {
		published = append(published, key.ID())
	}
	difference := d.difference(published)
	d.checkf("issuer.keys", difference != "", "%s", difference)
}

// checkGRPC queries the health of the gRPC endpoint in the metadata.
func (d *doctor) checkGRPC(ctx context.Context, c *remote.Client) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	conn, err := c.DialGRPC()
	var answer *healthpb.HealthCheckResponse
	if err == nil {
		defer func() { _ = conn.Close() }()
		answer, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	}
	d.checkf("grpc.reach", err != nil, "%s: %v", c.Metadata.GRPCEndpoint, err)
	if err == nil {
		state := answer.GetStatus()
		d.checkf("grpc.health", state != healthpb.HealthCheckResponse_SERVING, "%s: %s", c.Metadata.GRPCEndpoint, state)
	}
}

// checkPorts queries the operations ports for the readiness of their replicas.
func (d *doctor) checkPorts(ctx context.Context) {
	client := remote.NewHTTPClient()
	defer client.CloseIdleConnections()
	for _, port := range d.opsPorts {
		status, text, err := get(ctx, client, strings.TrimSuffix(port, "/")+"/readyz")
		d.checkf("ops.reach", err != nil, "%v", err)
		if err == nil {
			d.checkf("ops.ready", status != http.StatusOK, "%s: %s", port, text)
		}
	}
}

// get returns the status and the first line of a response.
func get(ctx context.Context, client *http.Client, url string) (status int, text string, err error) {
	const maxText = 300
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxText))
	text, _, _ = strings.Cut(strings.TrimSpace(string(body)), "\n")
	return answer.StatusCode, text, err
}
