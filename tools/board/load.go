package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/clientsecret"
)

// generated is the secret of the clients that have a generated one.
var generated = clientsecret.New()

// chosen is that of the client legacy.
const chosen = "chosen by a person"

func writeClients(dir string) error {
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // it never fails (crypto/rand)
	manifest := fmt.Sprintf(`resources:
  - {resource: "https://orders.internal", scopes: [orders.read]}
  - {resource: "https://invoices.internal", scopes: [invoices.read], signing_alg: RS256}
clients:
  - {client_id: billing, client_secret: %[1]s, grant_types: [client_credentials], scopes: [orders.read, invoices.read]}
  - {client_id: stock, client_secret: %[1]s, grant_types: [client_credentials], scopes: [orders.read]}
  - {client_id: legacy, client_secret: %[2]s, grant_types: [client_credentials], scopes: [orders.read]}
  - {client_id: orders, client_secret: %[1]s, resources: ["https://orders.internal"]}
`, generated, chosen)
	return errors.Join(os.WriteFile(filepath.Join(dir, "clients.yaml"), []byte(manifest), 0o600),
		os.WriteFile(filepath.Join(dir, "kek"), []byte(base64.StdEncoding.EncodeToString(kek)), 0o600))
}

// caller sends what the clients send.
type caller struct {
	http    *http.Client
	issuers []string
	next    int
}

func (c *caller) post(ctx context.Context, path string, form url.Values) string {
	c.next++
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.issuers[c.next%len(c.issuers)]+path, strings.NewReader(form.Encode()))
	if err != nil {
		return ""
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := c.http.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = answer.Body.Close() }()
	body, _ := io.ReadAll(answer.Body) // a request that failed is part of the picture
	var issued struct {
		Token string `json:"access_token"`
	}
	_ = json.Unmarshal(body, &issued)
	return issued.Token
}

func (c *caller) issue(ctx context.Context, id, secret, scope string) string {
	return c.post(ctx, "/connect/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {scope},
	})
}

// client makes what trusts the issuers.
func (w *world) client() (*http.Client, error) {
	cert, err := os.ReadFile(w.path("cert.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: 64,
	}}, nil
}

// load puts load on the issuers: usual work all the time, and one after another a wave of work, a client with an old secret,
// somebody who guesses, revocations, and a Redis that is away for a while.
func (w *world) load(ctx context.Context, length time.Duration) error {
	client, err := w.client()
	if err != nil {
		return err
	}
	for range 3 {
		verifier, err := verify.New(ctx, w.issuer, verify.Audience("https://orders.internal"), verify.HTTPClient(client))
		if err != nil {
			return err
		}
		defer verifier.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	began, running := time.Now(), sync.WaitGroup{}
	// every does something again and again, in a part of the time from one share of it to another.
	every := func(interval time.Duration, from, to float64, do func(c *caller)) {
		running.Go(func() {
			c := &caller{client, w.issuers, 0}
			for ticker := time.NewTicker(interval); ; {
				select {
				case <-ctx.Done():
					ticker.Stop()
					return
				case <-ticker.C:
				}
				if share := time.Since(began).Seconds() / length.Seconds(); share >= from && share < to {
					do(c)
				}
			}
		})
	}
	every(8*time.Millisecond, 0, 1, func(c *caller) { c.issue(ctx, "billing", generated, "orders.read") })
	every(40*time.Millisecond, 0, 1, func(c *caller) { c.issue(ctx, "billing", generated, "invoices.read") })
	every(30*time.Millisecond, 0, 1, func(c *caller) { c.issue(ctx, "legacy", chosen, "orders.read") })
	every(time.Second, 0, 1, func(c *caller) { c.issue(ctx, "stock", generated, "invoices.read") })
	every(3*time.Second, 0, 1, func(c *caller) { c.post(ctx, "/connect/tokens", nil) })
	every(50*time.Millisecond, 0, 1, func(c *caller) {
		token := c.issue(ctx, "stock", generated, "")
		for range 4 {
			c.post(ctx, "/connect/introspect", url.Values{"client_id": {"orders"}, "client_secret": {generated}, "token": {token}})
		}
	})
	every(4*time.Millisecond, .15, .3, func(c *caller) { c.issue(ctx, "stock", generated, "") })
	every(100*time.Millisecond, .3, .5, func(c *caller) { c.issue(ctx, "legacy", "the one before", "") })
	for range 24 {
		every(20*time.Millisecond, .42, .5, func(c *caller) { c.issue(ctx, "billing", rand.Text(), "") })
	}
	every(200*time.Millisecond, .55, .65, func(c *caller) {
		token := c.issue(ctx, "billing", generated, "orders.read")
		c.post(ctx, "/connect/revoke", url.Values{"client_id": {"billing"}, "client_secret": {generated}, "token": {token}})
	})
	pause(ctx, time.Duration(.75*float64(length)))
	away := w.started[0]
	_ = away.Process.Signal(os.Interrupt)
	_ = away.Wait()
	pause(ctx, min(time.Duration(.08*float64(length)), 20*time.Second))
	if err := w.startRedis(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	running.Wait()
	return nil
}
