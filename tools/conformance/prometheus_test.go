//go:build conformance

package conformance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestConformancePrometheus lets Prometheus scrape a target that interceptors/verify guards, with the settings of
// docs/clients.md, and with the secret of another client.
func TestConformancePrometheus(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	verifier := must.Get(verify.New(t.Context(), issuer.URL, verify.Audience(res1)))
	t.Cleanup(verifier.Close)
	var scrapes atomic.Int64
	target := httptest.NewServer(verify.HTTP(verifier, verify.Scopes("api1"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if caller, ok := verify.CallerFrom(r.Context()); ok && caller.ClientID == "svc" {
			scrapes.Add(1)
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = fmt.Fprintln(w, "orders_total 42")
	})))
	t.Cleanup(target.Close)

	prometheus := startPrometheus(t, issuer, target, tokentest.Secret)
	until(t, prometheus.log, "Prometheus scrapes the target", func() bool { return prometheus.query(t, "orders_total") == "42" })
	if scrapes.Load() == 0 {
		t.Error("got a sample and no request with a token of svc")
	}
	accepted := scrapes.Load()
	refused := startPrometheus(t, issuer, target, "not the secret")
	until(t, refused.log, "Prometheus fails to scrape", func() bool { return refused.query(t, "up") == "0" })
	if got := refused.query(t, "orders_total"); got != "" {
		t.Errorf("got orders_total %s with a wrong secret", got)
	}
	until(t, prometheus.log, "the first Prometheus scrapes again", func() bool { return scrapes.Load() > accepted })
}

// prometheus is a running Prometheus.
type prometheus struct {
	address string
	log     *must.Buffer
}

// startPrometheus starts Prometheus with the settings of docs/clients.md, for the client svc with the secret.
func startPrometheus(t *testing.T, issuer *tokentest.Issuer, target *httptest.Server, secret string) prometheus {
	t.Helper()
	dir := t.TempDir()
	must.Succeed(t, os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600))
	settings := documented(t, "Prometheus", 0, map[string]string{
		"scheme: https": "scheme: http", "orders.internal:443": target.Listener.Addr().String(), "https://auth.example.com": issuer.URL,
		"/etc/prometheus/grantor-secret": filepath.Join(dir, "secret"), "client_id: prometheus": "client_id: svc",
		"orders.metrics": "api1", "https://orders.internal": res1,
	})
	must.Succeed(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte("global: { scrape_interval: 200ms, scrape_timeout: 200ms }\n"+settings), 0o600))
	p := prometheus{address: freeport.Address(t)}
	p.log = startServer(t, exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.address))
	return p
}

// query returns the value of the only series that a query finds, or "".
func (p prometheus) query(t *testing.T, query string) string {
	t.Helper()
	request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.address+"/api/v1/query?query="+url.QueryEscape(query), http.NoBody))
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "" // it has not started yet
	}
	defer func() { _ = answer.Body.Close() }()
	var found struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if answer.StatusCode != http.StatusOK || json.NewDecoder(answer.Body).Decode(&found) != nil || len(found.Data.Result) != 1 {
		return ""
	}
	return fmt.Sprint(found.Data.Result[0].Value[1])
}

// startServer starts a program that runs until SIGTERM, and returns what it writes. It is ended with the test.
func startServer(t *testing.T, command *exec.Cmd) *must.Buffer {
	t.Helper()
	log := new(must.Buffer)
	command.Stdout, command.Stderr = log, log
	must.Succeed(t, command.Start())
	ended, cancel := context.WithCancel(context.Background())
	go func() {
		_ = command.Wait() // it is ended by a signal
		cancel()
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended.Done():
		case <-time.After(20 * time.Second):
			_ = command.Process.Kill()
			<-ended.Done()
		}
		if t.Failed() {
			t.Logf("the log of %s:\n%s", command, log)
		}
	})
	return log
}
