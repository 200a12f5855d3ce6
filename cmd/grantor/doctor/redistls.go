package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	"github.com/grantorhq/grantor/service/oauth"
)

// redisTLS makes the TLS configurations of connections to the Redis.
type redisTLS struct {
	files *tlsfiles.Files
	// asked is set when a server asks for a client certificate.
	asked atomic.Bool
}

// configure returns the TLS configuration of a new connection to the Redis.
func (r *redisTLS) configure(base *tls.Config) *tls.Config {
	config := r.files.ClientConfig(base)
	present := config.GetClientCertificate
	config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		r.asked.Store(true)
		if present == nil {
			return new(tls.Certificate), nil // none
		}
		return present(request)
	}
	return config
}

// checkClientCertificate checks the certificate that this machine presents to the Redis. err is the error of the first
// command: a server that does not accept the certificate ends the connection, with an alert or without.
func (d *doctor) checkClientCertificate(err error) {
	_, answered := errors.AsType[redis.Error](err)
	answered = answered || err == nil
	refused := d.tls.asked.Load() && !answered && !errors.Is(err, context.DeadlineExceeded)
	expires := d.tls.files.NotAfter()
	if expires.IsZero() {
		d.checkf("redis.client-certificate", refused, "it asks for a certificate, and none is given: %v", err)
		d.checkf("redis.client-certificate-optional", answered && d.tls.asked.Load(), "it asks for a certificate, and none is given")
		return
	}
	d.checkf("redis.client-certificate", refused, "it does not accept %s, which expires at %s: %v", d.RedisTLSCert, formatTime(expires), err)
	d.checkf("redis.client-certificate-optional", false, "")
	expired := !expires.After(d.now())
	d.checkf("redis.client-certificate-ended", expired, "%s expired at %s", d.RedisTLSCert, formatTime(expires))
	d.checkf("redis.client-certificate-ends", !expired && expires.Before(d.now().Add(expiryWarning)), "%s expires at %s", d.RedisTLSCert, formatTime(expires))
}

// checkConnection checks the encryption of the connection.
func (d *doctor) checkConnection(ctx context.Context, options *redis.Options) error {
	conn, err := options.Dialer(ctx, "tcp", options.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	host, _, err := net.SplitHostPort(options.Addr)
	if err != nil { // Sentinel determines the address
		host, _, _ = net.SplitHostPort(conn.RemoteAddr().String())
	}
	encrypted, ok := conn.(*tls.Conn)
	d.checkf("redis.plaintext", !ok && !oauth.Loopback(host), "the connection to %s is not encrypted", host)
	if !ok {
		return nil
	}
	d.checkf("redis.unverified", options.TLSConfig != nil && options.TLSConfig.InsecureSkipVerify, "skip_verify is set")
	for _, certificate := range encrypted.ConnectionState().PeerCertificates {
		d.checkf("redis.certificate", certificate.NotAfter.Before(d.now().Add(expiryWarning)), "it expires at %s", formatTime(certificate.NotAfter))
	}
	return nil
}
