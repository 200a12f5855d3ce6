package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// tlsFiles are a server's certificate, its key and, for mutual TLS, the authorities of its callers. They are read again
// when they change: new connections get the new ones, and open connections stay. A change that cannot be read leaves
// the old ones in use. It may be used by several goroutines.
type tlsFiles struct {
	cert, key, clientCA string
	log                 *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   string
	current *tls.Config
}

// recheck is how often, at the most, the files are looked at.
const recheck = time.Second

// newTLSFiles reads the files for the first time. Its errors name the setting.
func newTLSFiles(s *serveSettings, log *slog.Logger) (*tlsFiles, error) {
	f := &tlsFiles{cert: s.tlsCert, key: s.tlsKey, clientCA: s.tlsClientCA, log: log}
	stamp, err := f.stat()
	if err != nil {
		return nil, err
	}
	f.stamp, f.checked = stamp, time.Now()
	f.current, err = f.read()
	return f, err
}

// config gives a configuration that follows the files. protocols are those that ALPN offers.
func (f *tlsFiles) config(protocols ...string) *tls.Config {
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
func (f *tlsFiles) latest() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= recheck {
		f.checked = now
		f.reread()
	}
	return f.current
}

// end gives when the certificate ends.
func (f *tlsFiles) end() time.Time { return f.latest().Certificates[0].Leaf.NotAfter }

func (f *tlsFiles) reread() {
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

// become takes over other files, and what was read of them.
func (f *tlsFiles) become(other *tlsFiles) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cert, f.key, f.clientCA = other.cert, other.key, other.clientCA
	f.stamp, f.checked, f.current = other.stamp, other.checked, other.current
}

// stat sums up when and how the files were last changed.
func (f *tlsFiles) stat() (string, error) {
	var stamp strings.Builder
	for _, file := range f.named() {
		info, err := os.Stat(file.path)
		if err != nil {
			return "", settingError(file.setting, err)
		}
		_, _ = fmt.Fprintf(&stamp, "%d %d;", info.ModTime().UnixNano(), info.Size())
	}
	return stamp.String(), nil
}

type namedFile struct{ setting, path string }

func (f *tlsFiles) named() []namedFile {
	files := []namedFile{{"tls-cert-file", f.cert}, {"tls-key-file", f.key}}
	if f.clientCA != "" {
		files = append(files, namedFile{"tls-client-ca-file", f.clientCA})
	}
	return files
}

func (f *tlsFiles) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, settingError("tls-cert-file, tls-key-file", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if f.clientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.clientCA)
	if err != nil {
		return nil, settingError("tls-client-ca-file", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, settingError("tls-client-ca-file", fmt.Errorf("%s has no certificate in PEM", f.clientCA))
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}
