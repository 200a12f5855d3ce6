// Command checkdeploy checks the files in deploy/ as far as possible without a cluster or a container engine:
//
//	go run . -binary /path/to/grantor ../../deploy
//
// Kustomize builds the Kubernetes manifests, which are decoded strictly into the types of their APIs; with -manifests they
// are only printed, for kube-score. The Compose file is loaded as Docker Compose loads it. BuildKit's own code parses and
// lints the Dockerfile. systemd-analyze verifies the systemd unit and bounds its exposure. Checkdeploy is a separate module
// so that none of these is a requirement of Grantor.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
)

func main() {
	binary := flag.String("binary", "", "absolute `path` of the grantor binary")
	manifests := flag.Bool("manifests", false, "only print the Kubernetes manifests")
	flag.Parse()
	dir := flag.Arg(0)
	if *manifests {
		built, err := build(filepath.Join(dir, "kubernetes"))
		if err != nil {
			log.Fatal(err)
		}
		text, err := built.AsYaml()
		if err != nil {
			log.Fatal(err)
		}
		_, _ = os.Stdout.Write(text)
		return
	}
	failed := false
	for _, c := range []struct {
		name  string
		check func() error
	}{
		{"kubernetes", func() error {
			return kubernetes(filepath.Join(dir, "kubernetes"), filepath.Join(dir, "prometheus/alerts.yaml"))
		}},
		{"compose", func() error { return compose(filepath.Join(dir, "compose/compose.yaml")) }},
		{"image", func() error { return image(filepath.Join(dir, "Dockerfile")) }},
		{"systemd", func() error { return systemd(filepath.Join(dir, "systemd/grantor.service"), *binary) }},
	} {
		if err := c.check(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, err)
			failed = true
			continue
		}
		_, _ = fmt.Fprintf(os.Stdout, "%s: ok\n", c.name)
	}
	if failed {
		os.Exit(1)
	}
}
