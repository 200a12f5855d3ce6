// Command checkdeploy checks the files in deploy/ as far as possible without a cluster or a container engine:
//
//	GOWORK=off go run . -binary /path/to/grantor ../../deploy
//
// Kustomize builds the Kubernetes manifests, which are decoded strictly into the types of their APIs; with -manifests
// they are only printed, for kube-score. So are the policies of Istio, and the binary checks the rules of the guard.
// The Compose file is loaded as Docker Compose loads it. BuildKit's own code parses and lints the Dockerfile.
// systemd-analyze verifies the systemd units and bounds their exposure. Checkdeploy is a separate module so that none
// of these is a requirement of Grantor.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
)

// folders have the Kubernetes manifests.
var folders = []string{"kubernetes", "guard/sidecar", "guard/daemonset"}

func main() {
	binary := flag.String("binary", "", "absolute `path` of the grantor binary")
	manifests := flag.Bool("manifests", false, "only print the Kubernetes manifests")
	flag.Parse()
	dir := flag.Arg(0)
	if *manifests {
		for _, folder := range folders {
			built, err := build(filepath.Join(dir, folder))
			if err != nil {
				log.Fatal(err)
			}
			text, err := built.AsYaml()
			if err != nil {
				log.Fatal(err)
			}
			_, _ = fmt.Fprintf(os.Stdout, "%s---\n", text)
		}
		return
	}
	failed := false
	for _, c := range []struct {
		name  string
		check func() error
	}{
		{"kubernetes", func() error {
			var errs []error
			for _, folder := range folders {
				errs = append(errs, kubernetes(filepath.Join(dir, folder), filepath.Join(dir, "prometheus/alerts.yaml")))
			}
			return errors.Join(errs...)
		}},
		{"istio", func() error { return istio(filepath.Join(dir, "guard/istio")) }},
		{"rules", func() error { return rules(filepath.Join(dir, "guard"), *binary) }},
		{"compose", func() error { return compose(filepath.Join(dir, "compose/compose.yaml")) }},
		{"image", func() error { return image(filepath.Join(dir, "Dockerfile")) }},
		{"systemd", func() error {
			return errors.Join(systemd(filepath.Join(dir, "systemd/grantor.service"), *binary),
				systemd(filepath.Join(dir, "systemd/grantor-guard.service"), *binary))
		}},
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
