package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// TestSignals changes settings while the server runs, and reloads them by SIGHUP. Then it stops the server, which would
// take its time, and at once by a second signal.
func TestSignals(t *testing.T) {
	t.Parallel()
	redis := redistest.New(t)
	ours := servetest.NewAuthority(t)
	firstCert, firstKey := ours.WriteLeaf(t, t.TempDir(), 2)
	nextCert, nextKey := ours.WriteLeaf(t, t.TempDir(), 3)
	manifest := servetest.WriteFile(t, "clients.yaml", servetest.Manifest)
	config := servetest.WriteFile(t, "grantor.yaml", "")
	write := func(path, format string, args ...any) {
		t.Helper()
		if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const settings = "tls_cert_file: %s\ntls_key_file: %s\napply: %s\nlog_level: %s\ncached_clients: 7\n"
	write(config, settings, firstCert, firstKey, manifest, "info")
	rest, ops := freeport.Address(t), freeport.Address(t)
	p := startProcess(t, buildGrantor(t), ops, "serve", "--config="+config, "--issuer=https://localhost:1", "--redis="+redis.URL(),
		"--key-encryption-key-file="+servetest.KEKFile(t), "--http-listen="+rest, "--grpc-listen=127.0.0.1:0", "--cached-clients=5",
		"--signing-algorithms=ES256,RS256", "--shutdown-delay=1h")
	client := &http.Client{Transport: servetest.Transport(t, &tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS12}, false)}
	status := func(id string) int {
		t.Helper()
		answer, err := client.PostForm("https://"+rest+"/connect/token", url.Values{
			"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {"service-secret-here"},
		})
		if err != nil {
			t.Fatal(err)
		}
		servetest.ReadBody(t, answer)
		return answer.StatusCode
	}
	serial := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", rest, &tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := p.command.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	// reload sends the signal and waits for a new line of the log with a text. It returns what was logged since.
	reload := func(text string) string {
		t.Helper()
		before := p.log.String()
		signal(syscall.SIGHUP)
		must.Eventually(t, "logging "+text, func() bool { return strings.Contains(p.log.String()[len(before):], text) })
		return p.log.String()[len(before):]
	}
	renamed := func(name string) string { return strings.ReplaceAll(servetest.Manifest, "background-service", name) }

	if want := `"version":"v1.2.3"`; !strings.Contains(p.log.String(), want) {
		t.Errorf("the log lacks %s: %s", want, p.log.String())
	}
	if got := status("background-service"); got != http.StatusOK || serial() != 2 {
		t.Fatalf("before: got %d with certificate %d", got, serial())
	}
	if got := reload(`"msg":"reloaded"`); !strings.Contains(got, `"changed":""`) || strings.Contains(got, "restart") {
		t.Errorf("nothing has changed: got %s", got)
	}

	for _, bad := range []struct{ config, manifest, want string }{
		{fmt.Sprintf(settings, nextCert, nextKey, manifest, "loud"), renamed("second"), "log-level: "},
		{fmt.Sprintf(settings, nextCert, nextKey, manifest, "warn") + "log_fromat: text\n", renamed("second"), "grantor.yaml:6: "},
		{fmt.Sprintf(settings, nextCert, nextKey, manifest, "warn") + "max_staleness: 1s\n", renamed("second"), "max-staleness: "},
		{fmt.Sprintf(settings, nextCert, "/nonexistent", manifest, "warn"), renamed("second"), "tls-key-file: "},
		{fmt.Sprintf(settings, nextCert, nextKey, manifest, "warn"), renamed("second") + "typo: 1\n", "clients.yaml:"},
		{fmt.Sprintf("apply: %s\n", manifest), renamed("second"), "turning TLS on or off needs a restart"},
	} {
		write(config, "%s", bad.config)
		write(manifest, "%s", bad.manifest)
		got := reload("not reloaded")
		if !strings.Contains(got, bad.want) {
			t.Errorf("got %s, want %q in it", got, bad.want)
		}
		if got := status("second"); got != http.StatusUnauthorized || serial() != 2 {
			t.Errorf("%s: got %d with certificate %d, want nothing changed", bad.want, got, serial())
		}
	}

	write(config, settings+"jwks_max_age: 4m\nkey_rotation: 100h\n", nextCert, nextKey, manifest, "debug")
	write(manifest, "%s", renamed("third"))
	got := reload("need a restart")
	for _, want := range []string{
		`"changed":"log-level,tls-cert-file,tls-key-file"`, `"settings":"jwks-max-age,key-rotation"`, `"action":"created","client":"third"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
	if got := status("third"); got != http.StatusOK || serial() != 3 {
		t.Errorf("after: got %d with certificate %d", got, serial())
	}
	write(config, settings, nextCert, nextKey, manifest, "error")
	signal(syscall.SIGHUP)
	must.Eventually(t, "silent about tokens", func() bool {
		before := len(p.log.String())
		return status("third") == http.StatusOK && !strings.Contains(p.log.String()[before:], "token.issued")
	})

	signal(syscall.SIGTERM)
	must.Eventually(t, "about to stop", func() bool {
		code, _ := servetest.Get(t, "http://"+ops+"/readyz")
		return code == http.StatusServiceUnavailable
	})
	signal(syscall.SIGTERM)
	if err := p.command.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("got %v, want the end by the second signal", err)
	}
}
