package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
)

// goIn runs go in a module apart from any workspace, and returns its output.
func goIn(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := command.Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, failed.Stderr)
		}
		t.Fatal(err)
	}
	return out
}

// TestModulesAgree checks that the modules of the product require the same versions, so that go.work changes none: the binary is
// built of what the tests of each module ran with.
func TestModulesAgree(t *testing.T) {
	type version struct{ version, module string }
	versions := make(map[string]version)
	for _, module := range []string{".", "interceptors/secretvar", "cmd/grantor"} {
		var file struct {
			Require []struct {
				Path    string `json:"Path"`
				Version string `json:"Version"`
			} `json:"Require"`
		}
		must.Succeed(t, json.Unmarshal(goIn(t, filepath.Join("..", module), "mod", "edit", "-json"), &file))
		for _, r := range file.Require {
			if other, ok := versions[r.Path]; ok && other.version != r.Version {
				t.Errorf("%s requires %s %s, and %s requires %s", module, r.Path, r.Version, other.module, other.version)
			}
			versions[r.Path] = version{r.Version, module}
		}
	}
	if len(versions) < 100 {
		t.Errorf("only %d requirements, so this test checks too little", len(versions))
	}
}

// TestModuleOfAUser checks what a program that imports attach and verify names in its go.sum. The bounds are what it names today:
// raise one only for what such a program needs.
func TestModuleOfAUser(t *testing.T) {
	const maxSums, maxModules = 102, 72
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod": fmt.Sprintf("module example.com/user\n\ngo 1.26.8\n\nrequire github.com/grantorhq/grantor v0.0.0\n\n"+
			"replace github.com/grantorhq/grantor => %s\n", must.Get(filepath.Abs(".."))),
		"user.go": "package user\n\nimport (\n\t_ \"" + module + "interceptors/attach\"\n\t_ \"" + module + "interceptors/verify\"\n)\n",
	} {
		must.Succeed(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	goIn(t, dir, "mod", "tidy")
	sums := strings.TrimSpace(string(must.Get(os.ReadFile(filepath.Join(dir, "go.sum")))))
	for line := range strings.Lines(sums) {
		for _, unwanted := range []string{
			"cloud.google.com", "google.golang.org/api", "gocloud.dev", "github.com/Azure", "github.com/AzureAD", "github.com/aws",
			"github.com/hashicorp", "github.com/prometheus", "go.opentelemetry.io/otel/exporters", "github.com/spf13", "github.com/envoyproxy",
		} {
			if strings.HasPrefix(line, unwanted) {
				t.Errorf("go.sum of a program with attach and verify has %s", strings.TrimSpace(line))
			}
		}
	}
	if got := strings.Count(sums, "\n") + 1; got > maxSums {
		t.Errorf("go.sum of a program with attach and verify has %d lines, want at most %d", got, maxSums)
	}
	if got := strings.Count(string(goIn(t, dir, "list", "-m", "all")), "\n"); got > maxModules {
		t.Errorf("a program with attach and verify has a graph of %d modules, want at most %d", got, maxModules)
	}
	if !strings.Contains(sums, "google.golang.org/grpc ") {
		t.Error("go.sum lacks gRPC, so this test checks nothing")
	}
}
