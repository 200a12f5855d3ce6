package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/oauth"
)

// issuerTimeout bounds how long the start waits for the issuer. If the issuer is not reachable by then, the guard
// starts and answers 503 until it is.
const issuerTimeout = 2 * time.Second

// newVerifier returns the verifier of the settings, and a function that closes it.
func (s *Settings) newVerifier(ctx context.Context, meters metric.MeterProvider, log *slog.Logger) (*verify.Verifier, func(), error) {
	transport, err := s.issuerTransport(log)
	if err != nil {
		return nil, nil, err
	}
	options := []verify.Option{
		verify.Audience(s.audience...), verify.HTTPClient(&http.Client{Transport: transport}), verify.FetchFrom(s.fetchFrom),
		verify.FeedFrom(s.feedFrom), verify.MaxStaleness(s.maxStaleness), verify.CacheSize(s.cachedTokens),
		verify.DPoPOrigin(s.dpopOrigins...), verify.Telemetry(meters, nil),
	}
	for _, o := range []struct {
		set    bool
		option verify.Option
	}{
		{s.refuseStale, verify.RefuseWhenStale()},
		{s.requireBound, verify.RequireBoundTokens()},
		{s.issuerPlaintext, verify.AllowInsecurePlaintextToRemoteHosts()},
	} {
		if o.set {
			options = append(options, o.option)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, issuerTimeout)
	defer cancel()
	verifier, err := verify.New(ctx, s.issuer, options...)
	if err != nil {
		transport.CloseIdleConnections()
		return nil, nil, s.issuerError(err)
	}
	return verifier, func() {
		verifier.Close()
		transport.CloseIdleConnections()
	}, nil
}

// issuerError returns an error of [verify.New] with the setting that is wrong.
func (s *Settings) issuerError(err error) error {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errors.Is(err, oauth.ErrOtherIssuer):
		return cli.SettingError("issuer", fmt.Errorf("%s is another issuer: %w", oauth.RedactURL(s.from()), err))
	case untrusted:
		return cli.SettingError("issuer-ca-file", fmt.Errorf("the certificate of %s is not trusted: %w", oauth.RedactURL(s.from()), err))
	}
	return cli.UsageError(err)
}

// issuerTransport returns the transport of the requests to the issuer. Its TLS settings are also those of the feed.
func (s *Settings) issuerTransport(log *slog.Logger) (*http.Transport, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 5 * time.Second,
	}
	files, err := tlsfiles.New(tlsfiles.Paths{
		Certificate: tlsfiles.File{Setting: "issuer-cert-file", Path: s.issuerCert}, Key: tlsfiles.File{Setting: "issuer-key-file", Path: s.issuerKey},
		Authorities: tlsfiles.File{Setting: "issuer-ca-file", Path: s.issuerCA},
	}, log)
	if err != nil {
		return nil, err
	}
	base := &tls.Config{MinVersion: tls.VersionTLS12}
	transport.TLSClientConfig = files.ClientConfig(base)
	if s.issuerCert != "" {
		// Read for each connection, because the certificate may have been renewed.
		transport.TLSClientConfig.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return files.ClientConfig(base).GetClientCertificate(asked)
		}
	}
	return transport, nil
}
