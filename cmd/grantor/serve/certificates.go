package serve

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/peercert"
)

// requestCertificates is the value of client-certificates with which the ports ask for one.
const requestCertificates = "request"

// clientCertificateSettings say how the certificates of clients arrive, and which authorities vouch for them (RFC 8705).
type clientCertificateSettings struct {
	clientCertificates string
	certificateCA      string
	certificateHeader  string
	certificateForm    string
}

func (s *clientCertificateSettings) declareCertificates(set *settings.Set, all *Settings) {
	set.String(&s.clientCertificates, "client-certificates", "off", "`mode` of client certificates on the REST and gRPC ports: off, or request, which asks clients for one without requiring it; browsers then ask their users",
		settings.Public, settings.OneOf(&s.clientCertificates, "off", requestCertificates), settings.Check(func() error {
			if s.clientCertificates == requestCertificates && all.tlsCert == "" {
				return errors.New("client certificates need TLS: set tls-cert-file and tls-key-file, or client-certificate-header behind a proxy that ends TLS")
			}
			return nil
		}))
	set.String(&s.certificateCA, "client-certificate-ca-file", "", "`file` with the authorities, in PEM, that vouch for the certificates of clients with tls_client_auth, besides those of tls-client-ca-file; read again when it changes",
		settings.Public, settings.Check(func() error {
			if s.certificateCA != "" && len(all.certificateMethods()) == 0 {
				return errors.New("no client can show a certificate: set client-certificates to request, or client-certificate-header")
			}
			return nil
		}))
	set.String(&s.certificateHeader, "client-certificate-header", "", "`name` of the header in which trusted-proxies forward the certificate of a client; from others it is ignored",
		settings.Public, settings.Check(func() error { return s.checkHeader(all) }))
	set.String(&s.certificateForm, "client-certificate-form", string(peercert.RFC9440), "`form` of client-certificate-header: rfc9440 (Client-Cert), xfcc (Envoy), escaped-pem (nginx) or base64-der (HAProxy)",
		settings.Public, settings.OneOf(&s.certificateForm, peercert.Forms()...))
}

// checkHeader returns what is wrong with the name of the header.
func (s *clientCertificateSettings) checkHeader(all *Settings) error {
	name := strings.ToLower(s.certificateHeader)
	switch {
	case name == "":
		return nil
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "":
		return fmt.Errorf("%q is not the name of a header", s.certificateHeader)
	case strings.HasSuffix(name, "-bin") || strings.HasPrefix(name, "grpc-") || name == "authorization":
		return fmt.Errorf("%q has another meaning", s.certificateHeader)
	case len(all.trustedProxies) == 0:
		return errors.New("the header counts only from trusted-proxies; set those too")
	}
	return nil
}

// certificateMethods returns the methods of RFC 8705 by which clients can authenticate.
func (s *Settings) certificateMethods() []string {
	var methods []string
	unverified := s.clientCertificates == requestCertificates || s.certificateHeader != ""
	if s.tlsClientCA != "" || unverified && s.certificateCA != "" {
		methods = append(methods, oauth.TLSClientAuth)
	}
	if unverified {
		methods = append(methods, oauth.SelfSignedTLSClientAuth)
	}
	return methods
}

// certificatePaths returns the file of the authorities that vouch for clients.
func (s *Settings) certificatePaths() tlsfiles.Paths {
	return tlsfiles.Paths{Authorities: tlsfiles.File{Setting: "client-certificate-ca-file", Path: s.certificateCA}}
}

// authorities returns a function that returns the authorities in use, and the files with those of client-certificate-ca-file.
func (s *Settings) authorities(ofPorts *tlsfiles.Files, log *slog.Logger) (func() []*x509.CertPool, *tlsfiles.Files, error) {
	files, err := tlsfiles.New(s.certificatePaths(), log)
	if err != nil {
		return nil, nil, err
	}
	return func() []*x509.CertPool {
		var pools []*x509.CertPool
		for _, from := range []*tlsfiles.Files{files, ofPorts} {
			if from == nil {
				continue
			}
			if pool := from.Pool(); pool != nil {
				pools = append(pools, pool)
			}
		}
		return pools
	}, files, nil
}

// reloadAuthorities reads the authorities of clients again.
func reloadAuthorities(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	if (srv.settings.certificateCA == "") != (next.certificateCA == "") {
		return nil, cli.SettingError("client-certificate-ca-file", errors.New("the first authorities, or none, need a restart"))
	}
	read, err := tlsfiles.New(next.certificatePaths(), srv.log)
	return func() error { srv.authorities.Replace(read); return nil }, err
}
