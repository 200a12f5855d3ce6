package egress_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/egress"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

var loopback = remoteaddr.Networks{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func get(t *testing.T, client *http.Client, url string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer, err := client.Do(must.Get(http.NewRequestWithContext(ctx, http.MethodGet, url, nil)))
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// No URL leads to an address that is not public, however it is written.
func TestPrivateAddresses(t *testing.T) {
	called := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	client := egress.NewClient(egress.Config{})
	for _, host := range []string{
		"127.0.0.1", "localhost", "127.1.2.3", "[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"[::127.0.0.1]", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "100.64.0.1",
		"224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "[2001:db8::1]", "[fec0::1]", "[ff02::1]",
		"[::ffff:0:7f00:1]", "[200::1]", "[100::1]", "[64:ff9b:1::1]", "[5f00::1]", "[3fff::1]",
	} {
		_, err := get(t, client, "http://"+host+":"+port+"/")
		if err == nil || !strings.Contains(err.Error(), "not a public address") {
			t.Errorf("%s: got %v, want a refusal", host, err)
		}
	}
	if called {
		t.Error("the server was called")
	}
}

func TestAllowedNetworks(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	t.Cleanup(server.Close)
	if body, err := get(t, egress.NewClient(egress.Config{Allowed: loopback}), server.URL); err != nil || body != "ok" {
		t.Errorf("got %q, %v", body, err)
	}
	other := remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8")}
	if _, err := get(t, egress.NewClient(egress.Config{Allowed: other}), server.URL); err == nil {
		t.Error("another network is allowed: got no error")
	}
}

func TestRedirect(t *testing.T) {
	followed := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		followed = followed || r.URL.Path == "/next"
		http.Redirect(w, r, "/next", http.StatusFound)
	}))
	t.Cleanup(server.Close)
	if _, err := get(t, egress.NewClient(egress.Config{Allowed: loopback}), server.URL); err == nil || followed {
		t.Errorf("got %v, followed %v, want an error", err, followed)
	}
}

// The environment's proxy would connect to any address for the client.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	if _, err := get(t, egress.NewClient(egress.Config{Allowed: loopback}), server.URL); err != nil {
		t.Errorf("got %v", err)
	}
}

// A server that never answers costs one of the slots, and that for a bounded time.
func TestSlots(t *testing.T) {
	stuck := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stuck" {
			<-stuck
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stuck) })
	client := egress.NewClient(egress.Config{Allowed: loopback})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	for range 32 {
		go func() {
			defer func() { done <- struct{}{} }()
			answer, err := client.Do(must.Get(http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/stuck", nil)))
			if err == nil {
				_ = answer.Body.Close()
			}
		}()
	}
	short, end := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer end()
	time.Sleep(100 * time.Millisecond)
	if answer, err := client.Do(must.Get(http.NewRequestWithContext(short, http.MethodGet, server.URL, nil))); err == nil {
		_ = answer.Body.Close()
		t.Error("one request more than the slots was made")
	}
	cancel()
	for range 32 {
		<-done
	}
	if _, err := get(t, client, server.URL); err != nil {
		t.Errorf("after the others ended: %v", err)
	}
}
