package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

// TestMain makes the process trust one authority like those of the system. In the processes of a command, it runs the
// command.
func TestMain(m *testing.M) {
	if os.Getenv("COMMAND") != "" {
		main()
	}
	binaries = must.Get(os.MkdirTemp("", "binaries"))
	forget := servetest.Trust()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		forget()
		_ = os.RemoveAll(binaries)
		os.Exit(code)
	}))
}

// binaries is the directory of the binary that the tests build.
var binaries string

// buildOnce builds the binary as a release is built.
var buildOnce = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(binaries, "grantor")
	build := exec.Command("go", "build", "-ldflags", "-X github.com/grantorhq/grantor/cmd/grantor/buildinfo.version=v1.2.3", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
})

// buildGrantor returns the binary, which the first call builds.
func buildGrantor(t testing.TB) string {
	t.Helper()
	binary, err := buildOnce()
	must.Succeed(t, err)
	return binary
}

// linkGrantor makes the binary bin/grantor of a directory.
func linkGrantor(t testing.TB, dir string) {
	t.Helper()
	must.Succeed(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	must.Succeed(t, os.Symlink(buildGrantor(t), filepath.Join(dir, "bin", "grantor")))
}
