// Package tlsfiles makes TLS configurations from files with certificates, private keys and authorities. It reads the files
// again when they change.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// File is the path of a file and the name of the setting that has the path, which errors name. An empty path means no file.
type File struct{ Setting, Path string }

// Paths are the files of one side of TLS connections: its certificate with the private key, and the authorities that sign
// the certificates of the other side.
type Paths struct {
	Certificate, Key, Authorities File
	// RequestCertificates makes a server without Authorities ask its clients for certificates, which it neither requires nor
	// verifies.
	RequestCertificates bool
}

// Files are the contents of [Paths]. They are read again when the files change: new connections use the new contents, and
// open connections stay. If a changed file cannot be read, the previous contents stay in use. Files is safe for concurrent
// use by multiple goroutines.
type Files struct {
	log *slog.Logger

	mu      sync.Mutex
	paths   Paths
	checked time.Time
	stamp   string
	current contents
}

// contents are the parsed files.
type contents struct {
	// certificate is nil without a file for it, and so are authorities.
	certificate *tls.Certificate
	authorities *x509.CertPool
	// requestCertificates is that of [Paths].
	requestCertificates bool
}

// recheckInterval is the minimum time between two checks of the files of a server, to which anyone can connect.
const recheckInterval = time.Second

// New reads the files. Its errors name the settings and the files.
func New(paths Paths, log *slog.Logger) (*Files, error) {
	f := &Files{paths: paths, log: log}
	stamp, err := f.stat()
	if err != nil {
		return nil, err
	}
	f.stamp, f.checked = stamp, time.Now()
	f.current, err = f.read()
	return f, err
}

// ServerConfig returns the configuration of a server that follows the files. protocols are offered by ALPN. With
// authorities, clients must present a certificate of one of them.
func (f *Files) ServerConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			latest := f.latest(recheckInterval)
			c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, Certificates: []tls.Certificate{*latest.certificate}}
			if latest.authorities != nil {
				c.ClientCAs, c.ClientAuth = latest.authorities, tls.RequireAndVerifyClientCert
			} else if latest.requestCertificates {
				c.ClientAuth = tls.RequestClientCert
			}
			return c, nil
		},
	}
}

// ClientConfig returns the configuration of one new connection to a server: base with the certificate and the authorities of
// the files. It checks the files each time, because the server may already accept the new certificate alone. A server that
// asks for a certificate gets it even if the server does not name its authority, so that the server can report the reason.
func (f *Files) ClientConfig(base *tls.Config) *tls.Config {
	latest, c := f.latest(0), base.Clone()
	if latest.authorities != nil {
		c.RootCAs = latest.authorities
	}
	if latest.certificate != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return latest.certificate, nil }
	}
	return c
}

// latest returns the contents, after checking the files if the last check is longer ago than interval.
func (f *Files) latest(interval time.Duration) contents {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= interval {
		f.checked = now
		f.reread()
	}
	return f.current
}

// Pool returns the authorities in use, or nil if there is no file for them.
func (f *Files) Pool() *x509.CertPool { return f.latest(recheckInterval).authorities }

// NotAfter returns when the certificate in use expires, or the zero time if there is none.
func (f *Files) NotAfter() time.Time {
	if certificate := f.latest(recheckInterval).certificate; certificate != nil {
		return certificate.Leaf.NotAfter
	}
	return time.Time{}
}

// reread reads the files if they have changed. f.mu must be held.
func (f *Files) reread() {
	stamp, err := f.stat()
	if err == nil && stamp == f.stamp {
		return
	}
	var next contents
	if err == nil {
		next, err = f.read()
	}
	if err != nil {
		f.log.Error("the TLS files have changed but cannot be read; the previous ones stay in use", "error", err)
		return
	}
	f.stamp, f.current = stamp, next
	f.log.Info("loaded the changed TLS files", "files", f.paths.String())
}

// Replace switches to other files and their contents.
func (f *Files) Replace(other *Files) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths = other.paths
	f.stamp, f.checked, f.current = other.stamp, other.checked, other.current
}

// stat returns a text that changes when a file is modified.
func (f *Files) stat() (string, error) {
	var stamp strings.Builder
	for _, file := range f.paths.named() {
		info, err := os.Stat(file.Path)
		if err != nil {
			return "", cli.SettingError(file.Setting, err)
		}
		_, _ = fmt.Fprintf(&stamp, "%d %d;", info.ModTime().UnixNano(), info.Size())
	}
	return stamp.String(), nil
}

// named returns the files that have a path.
func (p Paths) named() []File {
	var named []File
	for _, file := range []File{p.Certificate, p.Key, p.Authorities} {
		if file.Path != "" {
			named = append(named, file)
		}
	}
	return named
}

// String returns the paths of the files, separated by commas.
func (p Paths) String() string {
	var paths []string
	for _, file := range p.named() {
		paths = append(paths, file.Path)
	}
	return strings.Join(paths, ", ")
}

// read reads the files. A certificate without a key is an error, and so is a key without a certificate.
func (f *Files) read() (read contents, err error) {
	certificate, key, authorities := f.paths.Certificate, f.paths.Key, f.paths.Authorities
	read.requestCertificates = f.paths.RequestCertificates
	if certificate.Path != "" || key.Path != "" {
		pair, err := tls.LoadX509KeyPair(certificate.Path, key.Path)
		if err != nil {
			return read, cli.SettingError(certificate.Setting+", "+key.Setting, fmt.Errorf("%s and %s: %w", certificate.Path, key.Path, err))
		}
		read.certificate = &pair
	}
	if authorities.Path == "" {
		return read, nil
	}
	pem, err := os.ReadFile(authorities.Path)
	if err != nil {
		return read, cli.SettingError(authorities.Setting, err)
	}
	read.authorities = x509.NewCertPool()
	if !read.authorities.AppendCertsFromPEM(pem) {
		return read, cli.SettingError(authorities.Setting, fmt.Errorf("%s has no PEM certificate", authorities.Path))
	}
	return read, nil
}
