package attach

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// idleTimeout bounds how long a connection that presented an earlier certificate is kept for further requests.
const idleTimeout = 90 * time.Second

// Certificate authenticates the client with a TLS certificate instead of a secret (RFC 8705 §2): token requests over HTTP
// are made on connections that present it, and have the client's ID alone. The certificate must be for client
// authentication. The client ID may be empty if the certificate has a single URI with the scheme spiffe, which is then the
// client's ID.
//
// The tokens may be bound to the certificate (RFC 8705 §3), so that the servers that are called must see it too. [DialOptions],
// [TransportCredentials] and [Source.Transport] present it.
//
// With [OverGRPC], the connection is the caller's and so is the certificate that it presents; it must be the same one. The
// request has the client's ID alone.
func Certificate(certificate tls.Certificate) Option {
	return CertificateFunc(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil })
}

// CertificateFunc is [Certificate] with a function that returns the present certificate, as that of [tls.Config] does. While
// tokens are needed, a Source calls it about once a second and never concurrently. A certificate that changes is followed
// without a failed call: when the token for the new certificate has arrived, new connections present the new certificate and
// their calls carry the new token, and calls on older connections carry the one for the certificate that these presented.
// The function should therefore return a new certificate while the old one is still valid for some minutes. Only then is the
// token for older connections renewed; a server that limits the age of its connections below that time loses none.
//
// That needs token requests over HTTP, and [DialOptions] or [Source.Transport] for the calls.
//
// The function's error becomes the Cause of an [*Error] whose status is UNAVAILABLE.
func CertificateFunc(get func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) Option {
	return withProof(proof{kind: "a certificate", needsID: true, certificate: func(context.Context) (*tls.Certificate, error) {
		if get == nil {
			return nil, errors.New("the function is nil")
		}
		certificate, err := get(new(tls.CertificateRequestInfo))
		if err == nil && (certificate == nil || len(certificate.Certificate) == 0) {
			err = errors.New("there is no certificate")
		}
		return certificate, err
	}})
}

// CertificateFiles is [Certificate] with a certificate and its private key in PEM files, which may be the same. They are
// read again when they change, and followed as those of [CertificateFunc] are. While they cannot be read, or do not belong
// together, as it may be while they are being replaced, those that were read last are used.
func CertificateFiles(certificate, key string) Option {
	files := &certificateFiles{certificate: certificate, key: key}
	return CertificateFunc(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return files.get() })
}

// certificateFiles are a certificate and its private key in files.
type certificateFiles struct {
	certificate, key string

	mu      sync.Mutex
	stamp   string
	current *tls.Certificate // nil before the first one was read
}

func (f *certificateFiles) get() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamp, err := f.stat()
	if err == nil && stamp != f.stamp {
		var read *tls.Certificate
		if read, err = f.read(); err == nil {
			f.current, f.stamp = read, stamp
		}
	}
	if f.current != nil {
		return f.current, nil
	}
	return nil, err
}

// stat returns a text that changes when a file does.
func (f *certificateFiles) stat() (string, error) {
	var stamp strings.Builder
	for _, path := range []string{f.certificate, f.key} {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(&stamp, "%d %d;", info.ModTime().UnixNano(), info.Size())
	}
	return stamp.String(), nil
}

// read reads the files. Its errors contain no part of them.
func (f *certificateFiles) read() (*tls.Certificate, error) {
	certificate, err := readBounded(f.certificate)
	if err != nil {
		return nil, err
	}
	key, err := readBounded(f.key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.certificate, f.key, err)
	}
	return &pair, nil
}

// maxFile is the maximum size of a file with a certificate or a key, in bytes.
const maxFile = 256 << 10

// readBounded reads a file of at most [maxFile] bytes.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return data, err
}

// sameCertificate reports whether two certificates have the same leaf.
func sameCertificate(a, b *tls.Certificate) bool {
	return bytes.Equal(a.Certificate[0], b.Certificate[0])
}

// spiffeID returns the single URI of a certificate if it is a SPIFFE ID, and "" otherwise.
func spiffeID(certificate *tls.Certificate) string {
	leaf := certificate.Leaf
	if leaf == nil {
		leaf, _ = x509.ParseCertificate(certificate.Certificate[0])
	}
	if leaf == nil || len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "spiffe" {
		return ""
	}
	return leaf.URIs[0].String()
}

// presenting returns a configuration for connections that present the certificate.
func presenting(certificate *tls.Certificate, base *tls.Config) *tls.Config {
	c := base.Clone()
	if c == nil {
		c = new(tls.Config)
	}
	c.MinVersion = cmp.Or(c.MinVersion, tls.VersionTLS12)
	// A server that asks for a certificate gets it even if the server does not name its authority, so that the server can
	// report the reason.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	return c
}

// presentingTransport returns a transport like base whose connections present the certificate.
func presentingTransport(base *http.Transport, certificate *tls.Certificate) *http.Transport {
	own := base.Clone()
	own.TLSClientConfig = presenting(certificate, own.TLSClientConfig)
	own.IdleConnTimeout = cmp.Or(own.IdleConnTimeout, idleTimeout)
	return own
}

// tokenTransport is the key of the transport for token requests among the transports of a generation.
type tokenTransport struct{}

// transport returns the generation's transport that corresponds to t.
func (s *Source) transport(t *transport) http.RoundTripper {
	base, ok := t.own.(*http.Transport)
	if !ok {
		return t.base
	}
	if made, ok := s.transports.Load(base); ok {
		return made.(http.RoundTripper) //nolint:forcetypeassert // there is nothing else
	}
	presents := presentingTransport(base, s.certificate)
	own := http.RoundTripper(presents)
	if s.instruments != nil {
		own = s.instruments.roundTripper(presents)
	}
	made, _ := s.transports.LoadOrStore(base, own)
	return made.(http.RoundTripper) //nolint:forcetypeassert // there is nothing else
}

// closeIdle closes the idle connections of a generation that is not the current one any more.
func (s *Source) closeIdle() {
	s.transports.Range(func(_, t any) bool {
		if own, ok := t.(interface{ CloseIdleConnections() }); ok {
			own.CloseIdleConnections()
		}
		return true
	})
}
