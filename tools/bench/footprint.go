package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// measureFootprint measures what a replica with its defaults takes, and what a program takes that imports the interceptors.
func measureFootprint(ctx context.Context, l *lab) (*findings, error) {
	f := &findings{title: "What a replica and a program take", notes: "footprint"}
	idle, peak, err := l.measureMemory(ctx)
	if err != nil {
		return nil, err
	}
	f.judgeIn(footprintGroup, "resident memory, idle", "a replica that has started", atMost(30, "MB"), idle/1e6, figures.Megabytes(idle))
	f.judgeIn(footprintGroup, "resident memory, peak", "under the loads of ES256 over gRPC and REST", atMost(64, "MB"), peak/1e6, figures.Megabytes(peak))
	progressf("memory: %s idle, %s at its peak", figures.Megabytes(idle), figures.Megabytes(peak))
	plain, stripped, err := l.sizes(ctx)
	if err != nil {
		return nil, err
	}
	f.judgeIn(footprintGroup, "binary, stripped", "`-trimpath -ldflags '-s -w'`", atMost(40, "MB"), stripped/1e6, figures.Megabytes(stripped))
	progressf("binary: %s, stripped %s", figures.Megabytes(plain), figures.Megabytes(stripped))
	p, err := l.measureProgram(ctx)
	if err != nil {
		return nil, err
	}
	const program = "a program that imports attach and verify"
	f.judgeIn(footprintGroup, "modules in go.sum", program, atMost(30, ""), float64(p.modules), fmt.Sprint(p.modules))
	f.judgeIn(footprintGroup, "size of go.sum", program, atMost(5311, "bytes"), float64(p.sum), figures.Count(float64(p.sum))+" bytes")
	progressf("program: %+v", *p)
	f.add(fmt.Sprintf("The binary of `make build` has %s; stripped, %s, %.2f of that. The packages of the program are from %d modules beside its own and Grantor's.",
		figures.Megabytes(plain), figures.Megabytes(stripped), stripped/plain, p.imported), nil)
	return f, nil
}

// measureMemory returns the resident memory of an issuer after its start, and the maximum after loads.
func (l *lab) measureMemory(ctx context.Context) (idle, peak float64, err error) {
	on, err := l.redis(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer on.stop()
	issuer, err := l.issuer(ctx, on, setup{})
	if err != nil {
		return 0, 0, err
	}
	defer issuer.Stop()
	settle := 5 * time.Second
	if l.quick {
		settle = time.Second / 10
	}
	local.Sleep(ctx, settle)
	if idle, err = issuer.Memory("VmRSS"); err != nil {
		return 0, 0, err
	}
	for _, load := range []newLoad{issueGRPC(ordersScope, ordersAPI), issueREST(ordersScope, ordersAPI)} {
		if _, err := l.lightLoad(ctx, issuer, load); err != nil {
			return 0, 0, err
		}
	}
	peak, err = issuer.Memory("VmHWM")
	return idle, peak, err
}

// sizes returns the size of the binary, with and without symbols, in bytes.
func (l *lab) sizes(ctx context.Context) (plain, stripped float64, err error) {
	if err := l.build(ctx, "stripped", "./cmd/grantor", "-tags", "grpcnotrace", "-trimpath", "-ldflags", "-s -w"); err != nil {
		return 0, 0, err
	}
	for name, into := range map[string]*float64{"grantor": &plain, "stripped": &stripped} {
		found, err := os.Stat(l.path(name))
		if err != nil {
			return 0, 0, err
		}
		*into = float64(found.Size())
	}
	return plain, stripped, nil
}

// dependencies are those of a program: the modules that its go.sum names, the bytes of that file, and the modules whose packages
// it imports, directly or not.
type dependencies struct{ modules, sum, imported int }

// programSource is a program that imports both interceptors and nothing else of Grantor.
const programSource = `package main

import (
	_ "github.com/grantorhq/grantor/interceptors/attach"
	_ "github.com/grantorhq/grantor/interceptors/verify"
)

func main() {}
`

// measureProgram makes a module with the program, which takes the modules of Grantor from this repository.
func (l *lab) measureProgram(ctx context.Context) (*dependencies, error) {
	dir := l.path("program")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	files, err := local.Output(ctx, os.Environ(), "git", "ls-files", "--", "go.mod", "*/go.mod")
	if err != nil {
		return nil, err
	}
	text := []byte("module example.com/program\n\ngo 1.26\n")
	for file := range strings.FieldsSeq(string(files)) {
		path, err := local.FirstMatch(file, `(?m)^module (\S+)$`)
		if err != nil {
			return nil, err
		}
		at, err := filepath.Abs(filepath.Dir(file))
		if err != nil {
			return nil, err
		}
		text = fmt.Appendf(text, "\nreplace %s => %s\n", path, at)
	}
	if err := errors.Join(l.write("program/go.mod", text), l.write("program/main.go", []byte(programSource))); err != nil {
		return nil, err
	}
	if _, err := goIn(ctx, dir, "mod", "tidy"); err != nil {
		return nil, err
	}
	sum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return nil, err
	}
	imported, err := goIn(ctx, dir, "list", "-deps", "-f", "{{with .Module}}{{if not .Replace}}{{if not .Main}}{{.Path}}{{end}}{{end}}{{end}}", ".")
	if err != nil {
		return nil, err
	}
	return &dependencies{modules: distinct(string(sum)), sum: len(sum), imported: distinct(string(imported))}, nil
}

// goIn runs the go command in a folder and returns its standard output.
func goIn(ctx context.Context, dir string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, "go", args...) //nolint:gosec // fixed arguments
	c.Dir = dir
	out, err := c.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, failed.Stderr)
	}
	return out, err
}

// distinct returns how many different first words the lines have.
func distinct(lines string) int {
	words := map[string]bool{}
	for line := range strings.Lines(lines) {
		if fields := strings.Fields(line); len(fields) > 0 {
			words[fields[0]] = true
		}
	}
	return len(words)
}
