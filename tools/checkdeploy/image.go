package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/opencontainers/go-digest"
)

// offline resolves every base image to an empty configuration, so that linting needs no registry.
type offline struct{}

// ResolveImageConfig implements [llb.ImageMetaResolver].
func (offline) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, "", []byte("{}"), nil
}

// image parses and lints the Dockerfile. The final stage must start from scratch, so that it holds the binary and nothing
// else to run, and must not run as root.
func image(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	source := llb.NewSourceMap(nil, file, "Dockerfile", data)
	source.Definition = &llb.Definition{} // the linter does not check for nil
	lint, err := dockerfile2llb.DockerfileLint(context.Background(), data, dockerfile2llb.ConvertOpt{SourceMap: source, MetaResolver: offline{}})
	if err != nil {
		return err
	}
	var errs []error
	for _, warning := range lint.Warnings {
		errs = append(errs, fmt.Errorf("%s: %s", warning.RuleName, warning.Detail))
	}
	parsed, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return err
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return err
	}
	last := stages[len(stages)-1]
	if last.BaseName != "scratch" {
		errs = append(errs, fmt.Errorf("the image is built from %s, want scratch", last.BaseName))
	}
	user := ""
	for _, command := range last.Commands {
		if c, ok := command.(*instructions.UserCommand); ok {
			user = c.User
		}
	}
	if user == "" || user == "0" || user == "root" {
		errs = append(errs, errors.New("the image runs as root"))
	}
	return errors.Join(errs...)
}
