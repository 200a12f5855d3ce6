package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/redistest"
)

// TestIssuerWithAPath runs the commands against an issuer with a path, and calls its REST mirror below that path.
func TestIssuerWithAPath(t *testing.T) {
	const manifest = `resources:
  - resource: https://orders.internal
    scopes: [api1]
clients:
  - client_id: background-service
    client_secret: service-secret-here
    scopes: [api1, "grantor:clients.read"]
    default_scopes: [api1]
  - client_id: orders-api
    client_secret: service-secret-here
    resources: [https://orders.internal]
`
	address, redis, kek := freeport.Address(t), redistest.New(t), servetest.KEKFile(t)
	issuer := "http://" + address + "/tenant1"
	servetest.Start(t, append(servetest.Production(redis, kek, servetest.WriteFile(t, "clients.yaml", manifest)), "--http-listen="+address, "--issuer="+issuer)...)
	clitest.Isolate(t)
	t.Setenv("GRANTOR_ISSUER", issuer)
	t.Setenv("GRANTOR_CLIENT_ID", "background-service")
	t.Setenv("GRANTOR_CLIENT_SECRET", clitest.DevSecret)

	raw := strings.TrimSpace(run(t, "token", "issue", "--scope=api1").Works(t))
	introspected := fields(t, runToken(t, raw, "introspect", "--client-id=orders-api", "-o=json").Works(t))
	if introspected["active"] != true || introspected["iss"] != issuer {
		t.Errorf("got %v, want an active token of %s", introspected, issuer)
	}
	runToken(t, raw, "revoke").Works(t)
	runToken(t, "", "revoke", "--all").Works(t)
	if list := run(t, "client", "list").Works(t); !strings.Contains(list, "orders-api") {
		t.Errorf("client list: got %s", list)
	}
	for _, wire := range []string{"rest", "grpc"} {
		run(t, "bench", "issue", "--wire="+wire, "--duration=200ms", "--warm-up=0s", "--in-flight=2", "--connections=1", "-o=json").Works(t)
	}
	found := run(t, "doctor", "--redis="+redis.URL(), "--key-encryption-key-file="+kek, "-v").Out
	for _, check := range []string{"issuer.reach", "issuer.metadata", "issuer.places", "issuer.endpoints", "issuer.keys", "grpc.health"} {
		if !strings.Contains(found, "ok       "+check+"\n") {
			t.Errorf("doctor: got no ok for %s in\n%s", check, found)
		}
	}
	run(t, "token", "issue", "--issuer="+issuer+"/").Fails(t, fmt.Sprintf("it calls itself %q, not %q", issuer, issuer+"/"))

	admin := strings.TrimSpace(run(t, "token", "issue", "--scope=grantor:clients.read", "--resource=urn:grantor:admin").Works(t))
	for _, base := range []string{issuer, "http://" + address} { // as a proxy sends it that keeps the path, or removes it
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/clients/orders-api", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+admin)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if body := servetest.ReadBody(t, answer); answer.StatusCode != http.StatusOK || !strings.Contains(body, `"orders-api"`) {
			t.Errorf("%s: got %s %s, want the client", base, answer.Status, body)
		}
	}
	answer, err := http.Post(issuer+"/connect/token/", "application/x-www-form-urlencoded", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusNotFound {
		t.Errorf("with a slash at the end: got %s and %v, want 404", answer.Status, err)
	}
}

// TestIssuerWhosePathClientsChange refuses to start with the path of an issuer that clients or proxies change on the way.
func TestIssuerWhosePathClientsChange(t *testing.T) {
	for _, path := range []string{"/", "/tenant1/", "/a//b", "/a/../b", "/./a", "/a/%2e%2E", "/a|b", "/{tenant}"} {
		run(t, "serve", "--dev", "--issuer=http://localhost:8080"+path).Exits(t, 2, "issuer")
	}
}
