package remote_test

import (
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/remote"
)

// TestTokenTransport expects TLS if the issuer has it, and never the secret in plaintext beyond loopback.
func TestTokenTransport(t *testing.T) {
	for _, c := range []struct{ name, issuer, host, want string }{
		{"loopback", "http://localhost:8080", "localhost", "insecure"},
		{"TLS", "https://auth.example.com", "auth.example.com", "tls"},
		{"TLS on loopback", "https://localhost:8080", "localhost", "tls"},
		{"issuer on loopback, port elsewhere", "http://localhost:8080", "auth.example.com", "tls"},
	} {
		if got := remote.GRPCSecurity(c.issuer, c.host).Info().SecurityProtocol; got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}
