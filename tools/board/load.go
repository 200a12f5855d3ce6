package main

import (
	"context"
	"crypto/rand"
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

// generated is the secret of the clients that have a generated secret, which costs the issuer no slow hash.
var generated = clientsecret.New()

// chosen is the secret of the client legacy, which the issuer checks with a slow hash.
const chosen = "chosen by a person"

// writeClients writes a clients file and a key-encryption key.
func writeClients(dir string) error {
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails (crypto/rand)
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

// caller sends requests to the replicas in turn.
type caller struct {
	http     *http.Client
	replicas []string
	next     int
}

// post sends a form and returns the access token in the answer. It returns "" for any other answer and for a request that
// fails: failures are part of the picture.
func (c *caller) post(ctx context.Context, path string, form url.Values) string {
	c.next++
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.replicas[c.next%len(c.replicas)]+path, strings.NewReader(form.Encode()))
	if err != nil {
		return ""
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := c.http.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	var issued struct {
		Token string `json:"access_token"`
	}
	_ = json.Unmarshal(body, &issued)
	return issued.Token
}

// issue requests a token.
func (c *caller) issue(ctx context.Context, id, secret, scope string) string {
	return c.post(ctx, "/connect/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {scope},
	})
}

// load puts load on the replicas for length: a constant load all the time and, one after another, a peak, a client with an
// outdated secret, an attacker who guesses secrets, revocations, and an outage of Redis.
func (d *deployment) load(ctx context.Context, length time.Duration) error {
	client, err := d.client()
	if err != nil {
		return err
	}
	for range 3 {
		verifier, err := verify.New(ctx, d.issuer, verify.Audience("https://orders.internal"), verify.HTTPClient(client))
		if err != nil {
			return err
		}
		defer verifier.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	running := d.startCallers(ctx, client, length)
	sleep(ctx, time.Duration(.75*float64(length)))
	d.stopRedis()
	sleep(ctx, min(time.Duration(.08*float64(length)), 20*time.Second))
	if err := d.startRedis(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	running.Wait()
	return nil
}

// startCallers starts the callers of load, which call until ctx ends.
func (d *deployment) startCallers(ctx context.Context, client *http.Client, length time.Duration) *sync.WaitGroup {
	began, running := time.Now(), &sync.WaitGroup{}
	// every calls do at the interval, between two moments given as fractions of length.
	every := func(interval time.Duration, from, to float64, do func(c *caller)) {
		running.Go(func() {
			c := &caller{http: client, replicas: d.replicas}
			ticker := time.NewTicker(interval)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				if elapsed := time.Since(began).Seconds() / length.Seconds(); elapsed >= from && elapsed < to {
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
	return running
}
