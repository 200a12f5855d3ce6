// Command checkdeploy checks deploy/ as far as it can be without a cluster or an engine for images:
//
//	go run . -binary /path/to/grantor ../../deploy
//
// The Kubernetes manifests are built by kustomize and decoded strictly into the types of their APIs; with -manifests they
// are only printed, for kube-score. The Compose file is loaded as Docker Compose loads it. The recipe of the image is parsed and linted by
// BuildKit's own code. The systemd unit is verified by systemd-analyze, and its hardening held below a level. It is a
// module of its own, so that Grantor does not depend on all of these.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
)

func main() {
	binary := flag.String("binary", "", "the grantor binary, built")
	manifests := flag.Bool("manifests", false, "print the Kubernetes manifests and check nothing")
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
		fmt.Printf("%s: ok\n", c.name)
	}
	if failed {
		os.Exit(1)
	}
}
