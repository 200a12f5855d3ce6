package tlsfiles_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
)

// TestTLSReload changes the certificate of a running server: new connections use the new one, open ones stay, and files
// that do not match leave the last good ones in use.
func TestTLSReload(t *testing.T) {
	ours := servetest.NewAuthority(t)
	dir := t.TempDir()
	certFile, keyFile := ours.WriteLeaf(t, dir, 2)
	var log bytes.Buffer
	files, err := tlsfiles.New(tlsfiles.Paths{Certificate: tlsfiles.File{Path: certFile}, Key: tlsfiles.File{Path: keyFile}}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		files.ForgetCheck() // as if the last check were long ago
		config, err := files.ServerConfig("h2").GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(config.NextProtos) != 1 || config.NextProtos[0] != "h2" {
			t.Errorf("got ALPN %v, want h2", config.NextProtos)
		}
		return config.Certificates[0].Leaf.SerialNumber.Int64()
	}
	if got := serial(); got != 2 {
		t.Errorf("at first: got certificate %d, want 2", got)
	}
	ours.WriteLeaf(t, dir, 3)
	later(t, certFile, 1)
	if got := serial(); got != 3 {
		t.Errorf("after a change: got certificate %d, want 3", got)
	}
	if err := os.WriteFile(keyFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	later(t, certFile, 2)
	if got := serial(); got != 3 {
		t.Errorf("after a broken change: got certificate %d, want 3", got)
	}
	if !strings.Contains(log.String(), "the previous ones stay in use") {
		t.Errorf("the log does not report the broken change:\n%s", log.String())
	}
	ours.WriteLeaf(t, dir, 4)
	later(t, certFile, 3)
	if got := serial(); got != 4 {
		t.Errorf("after mending: got certificate %d, want 4", got)
	}
}

// later advances the modification time of a file, like a change in a later second.
func later(t *testing.T, path string, seconds int) {
	t.Helper()
	when := time.Now().Add(time.Duration(seconds) * time.Second)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
}

// TestClient changes the certificate that a client presents: the configuration of each connection has the latest one.
func TestClient(t *testing.T) {
	ours := servetest.NewAuthority(t)
	dir := t.TempDir()
	certFile, keyFile := ours.WriteLeaf(t, dir, 2)
	files, err := tlsfiles.New(tlsfiles.Paths{
		Certificate: tlsfiles.File{Path: certFile}, Key: tlsfiles.File{Path: keyFile},
		Authorities: tlsfiles.File{Path: servetest.WriteFile(t, "ca.pem", string(ours.PEM))},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	base := &tls.Config{ServerName: "redis.internal", MinVersion: tls.VersionTLS13}
	for _, want := range []int64{2, 3} {
		ours.WriteLeaf(t, dir, want)
		later(t, certFile, int(want))
		config := files.ClientConfig(base)
		given, err := config.GetClientCertificate(nil)
		if err != nil || given.Leaf.SerialNumber.Int64() != want {
			t.Errorf("got %v, %v, want certificate %d", given, err, want)
		}
		if config.ServerName != base.ServerName || config.MinVersion != base.MinVersion || !config.RootCAs.Equal(ours.Pool()) {
			t.Errorf("got %+v, want that of the base with the authority", config)
		}
	}
	if base.RootCAs != nil || base.GetClientCertificate != nil {
		t.Error("the base was changed")
	}
	none, err := tlsfiles.New(tlsfiles.Paths{}, slog.New(slog.DiscardHandler))
	if err != nil || !none.NotAfter().IsZero() {
		t.Fatalf("without files: got %v, %v", none.NotAfter(), err)
	}
	if config := none.ClientConfig(base); config.RootCAs != nil || config.GetClientCertificate != nil {
		t.Errorf("without files: got %+v", config)
	}
}

// TestUnusable expects the error of files that do not belong together, or are not what they should be, to name the settings
// and the files.
func TestUnusable(t *testing.T) {
	ours, dir := servetest.NewAuthority(t), t.TempDir()
	certFile, keyFile := ours.WriteLeaf(t, dir, 2)
	_, otherKey := ours.WriteLeaf(t, t.TempDir(), 3)
	text, missing := servetest.WriteFile(t, "text", "no PEM"), filepath.Join(dir, "missing")
	for name, c := range map[string]struct {
		cert, key, authorities string
		want                   []string
	}{
		"the key of another":     {certFile, otherKey, "", []string{"cert, key: ", certFile, otherKey, "does not match"}},
		"a key alone":            {"", keyFile, "", []string{"cert, key: ", keyFile}},
		"a certificate alone":    {certFile, "", "", []string{"cert, key: ", certFile}},
		"exchanged":              {keyFile, certFile, "", []string{"cert, key: ", certFile, keyFile}},
		"a text":                 {text, keyFile, "", []string{"cert, key: ", text}},
		"no such certificate":    {missing, keyFile, "", []string{"cert: ", missing}},
		"no such key":            {certFile, missing, "", []string{"key: ", missing}},
		"no such authority":      {"", "", missing, []string{"ca: ", missing}},
		"an authority of text":   {"", "", text, []string{"ca: ", text}},
		"a key for an authority": {certFile, keyFile, keyFile, []string{"ca: ", keyFile}},
	} {
		_, err := tlsfiles.New(tlsfiles.Paths{
			Certificate: tlsfiles.File{Setting: "cert", Path: c.cert}, Key: tlsfiles.File{Setting: "key", Path: c.key},
			Authorities: tlsfiles.File{Setting: "ca", Path: c.authorities},
		}, slog.New(slog.DiscardHandler))
		if cli.ExitCode(err) != cli.ExitUsage {
			t.Errorf("%s: got %v, want a usage error", name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q in it", name, err, want)
			}
		}
	}
}
