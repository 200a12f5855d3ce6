//go:build conformance

package rest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/grantorhq/grantor/service/must"

	"github.com/grantorhq/grantor/service/registry"
)

// TestConformanceNPM runs clients from npm, of the versions in testdata/npm/package-lock.json, against an issuer.
func TestConformanceNPM(t *testing.T) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the conformance tests need node and npm: %v", err)
		}
	}
	folder := t.TempDir() // a copy, so that no node_modules ends up in the repository
	must.Succeed(t, os.CopyFS(folder, os.DirFS(filepath.Join("testdata", "npm"))))
	run(t, folder, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")

	issuer := newIssuer(t)
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{
		withSecret(client(t, "npm+%:", registry.Client{Scopes: scopes(t, "api1 other.read")}), oddSecret),
	}})
	environment := []string{
		"ISSUER=" + issuer.URL, "CLIENT_ID=npm+%:", "CLIENT_SECRET=" + oddSecret, "RESOURCE=" + res1, "SCOPE=api1", "OTHER_SCOPE=api2",
	}
	for _, script := range []string{"oauth4webapi.js", "openid-client.js"} {
		t.Run(script, func(t *testing.T) { run(t, folder, environment, "node", script) })
	}
}

// run runs a program in the folder, with the environment of the test and more.
func run(t *testing.T, folder string, environment []string, program string, arguments ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, arguments...)
	command.Dir, command.Env = folder, append(os.Environ(), environment...)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output)
	}
}
