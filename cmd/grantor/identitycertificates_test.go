package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
)

// TestIdentityCertificates runs the walk about certificates. Only the addresses differ.
func TestIdentityCertificates(t *testing.T) {
	w := newWalk(t, "A certificate")
	w.serve()
	out := w.run()
	if !strings.Contains(out, `"error":"invalid_client"`) {
		t.Errorf("the other certificate is not refused:\n%s", out)
	}
	// The thumbprint that openssl computes is the one in the token, as the CLI shows it.
	thumbprint := regexp.MustCompile(`(?m)^[A-Za-z0-9_-]{43}$`).FindString(out)
	if thumbprint == "" || strings.Count(out, thumbprint) < 2 {
		t.Errorf("the token is not bound to the certificate:\n%s", out)
	}
	var answer map[string]any
	must.Succeed(t, json.Unmarshal(must.Get(os.ReadFile(filepath.Join(w.dir, "answer.json"))), &answer))
}
