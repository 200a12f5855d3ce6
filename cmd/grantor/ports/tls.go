package ports

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

// TLSPaths are the files of a server's certificate, of its private key and, for mutual TLS, of the authorities of its
// clients.
type TLSPaths struct{ Certificate, Key, ClientCA string }

// TLSFiles is a TLS configuration read from files. It reads them again when they change: new connections use the new
// files, and open connections stay. If a changed file cannot be read, the previous configuration stays in use. It is
// safe for concurrent use by multiple goroutines.
type TLSFiles struct {
	log *slog.Logger

	mu      sync.Mutex
	paths   TLSPaths
	checked time.Time
	stamp   string
	current *tls.Config
}

// recheckInterval is the minimum time between two checks of the files.
const recheckInterval = time.Second

// NewTLSFiles reads the files. Its errors name the setting.
func NewTLSFiles(paths TLSPaths, log *slog.Logger) (*TLSFiles, error) {
	f := &TLSFiles{paths: paths, log: log}
	stamp, err := f.stat()
	if err != nil {
		return nil, err
	}
	f.stamp, f.checked = stamp, time.Now()
	f.current, err = f.read()
	return f, err
}

// Config returns a configuration that follows the files. protocols are offered by ALPN.
func (f *TLSFiles) Config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := f.latest().Clone()
			c.NextProtos = protocols
			return c, nil
		},
	}
}

// latest returns the configuration, after checking the files if the last check is too long ago.
func (f *TLSFiles) latest() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= recheckInterval {
		f.checked = now
		f.reread()
	}
	return f.current
}

// NotAfter returns when the certificate in use expires.
func (f *TLSFiles) NotAfter() time.Time { return f.latest().Certificates[0].Leaf.NotAfter }

func (f *TLSFiles) reread() {
	stamp, err := f.stat()
	if err == nil && stamp == f.stamp {
		return
	}
	var next *tls.Config
	if err == nil {
		next, err = f.read()
	}
	if err != nil {
		f.log.Error("the TLS files have changed but cannot be read; the previous ones stay in use", "error", err)
		return
	}
	f.stamp, f.current = stamp, next
	f.log.Info("loaded the changed TLS files")
}

// Replace switches to other files and their configuration.
func (f *TLSFiles) Replace(other *TLSFiles) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths = other.paths
	f.stamp, f.checked, f.current = other.stamp, other.checked, other.current
}

// stat returns a text that changes when a file is modified.
func (f *TLSFiles) stat() (string, error) {
	var stamp strings.Builder
	for _, file := range f.named() {
		info, err := os.Stat(file.path)
		if err != nil {
			return "", cli.SettingError(file.setting, err)
		}
		_, _ = fmt.Fprintf(&stamp, "%d %d;", info.ModTime().UnixNano(), info.Size())
	}
	return stamp.String(), nil
}

type namedFile struct{ setting, path string }

func (f *TLSFiles) named() []namedFile {
	files := []namedFile{{"tls-cert-file", f.paths.Certificate}, {"tls-key-file", f.paths.Key}}
	if f.paths.ClientCA != "" {
		files = append(files, namedFile{"tls-client-ca-file", f.paths.ClientCA})
	}
	return files
}

func (f *TLSFiles) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.paths.Certificate, f.paths.Key)
	if err != nil {
		return nil, cli.SettingError("tls-cert-file, tls-key-file", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if f.paths.ClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.paths.ClientCA)
	if err != nil {
		return nil, cli.SettingError("tls-client-ca-file", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, cli.SettingError("tls-client-ca-file", fmt.Errorf("%s has no PEM certificate", f.paths.ClientCA))
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}
