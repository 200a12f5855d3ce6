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

// TLSPaths are the files of a server's certificate, of its key and, for mutual TLS, of the authorities of its callers.
type TLSPaths struct{ Certificate, Key, ClientCA string }

// TLSFiles are a server's certificate, its key and, for mutual TLS, the authorities of its callers. They are read again
// when they change: new connections get the new ones, and open connections stay. A change that cannot be read leaves
// the old ones in use. It may be used by several goroutines.
type TLSFiles struct {
	log *slog.Logger

	mu      sync.Mutex
	paths   TLSPaths
	checked time.Time
	stamp   string
	current *tls.Config
}

// recheck is how often, at the most, the files are looked at.
const recheck = time.Second

// NewTLSFiles reads the files for the first time. Its errors name the setting.
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

// Config gives a configuration that follows the files. protocols are those that ALPN offers.
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

// latest gives what the files say, looking at them once in a while.
func (f *TLSFiles) latest() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= recheck {
		f.checked = now
		f.reread()
	}
	return f.current
}

// NotAfter gives when the certificate that is in use ends.
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
		f.log.Error("the TLS files have changed but cannot be read; the old ones stay in use", "error", err)
		return
	}
	f.stamp, f.current = stamp, next
	f.log.Info("took over the changed TLS files")
}

// Replace takes over other files, and what was read of them.
func (f *TLSFiles) Replace(other *TLSFiles) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths = other.paths
	f.stamp, f.checked, f.current = other.stamp, other.checked, other.current
}

// stat sums up when and how the files were last changed.
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
		return nil, cli.SettingError("tls-client-ca-file", fmt.Errorf("%s has no certificate in PEM", f.paths.ClientCA))
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}
