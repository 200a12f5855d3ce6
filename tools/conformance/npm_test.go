//go:build conformance

package conformance_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

// TestConformanceNPM runs OAuth clients from npm, in the versions of testdata/npm/package-lock.json, against an issuer.
func TestConformanceNPM(t *testing.T) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the conformance tests need node and npm: %v", err)
		}
	}
	dir := t.TempDir() // a copy, so that no node_modules ends up in the repository
	must.Succeed(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "npm"))))
	run(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")

	const id, secret = "npm+%:", "a-secret+with%odd:marks" // both need escapes
	issuer := newIssuer(t)
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{client(id, secret, "api1 other.read")}})
	environment := []string{
		"ISSUER=" + issuer.URL, "CLIENT_ID=" + id, "CLIENT_SECRET=" + secret, "RESOURCE=" + res1, "SCOPE=api1", "OTHER_SCOPE=api2",
	}
	for _, script := range []string{"oauth4webapi.js", "openid-client.js"} {
		t.Run(script, func(t *testing.T) { run(t, dir, environment, "node", script) })
	}
}

// run runs a program in dir, with environment added to the environment of the test.
func run(t *testing.T, dir string, environment []string, program string, arguments ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, arguments...)
	command.Dir, command.Env = dir, append(os.Environ(), environment...)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output)
	}
}
