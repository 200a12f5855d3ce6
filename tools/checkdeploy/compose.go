package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

// compose loads the file as Docker Compose does, which checks it against the schema and resolves its references. Ports may
// be published on loopback only, and the issuer must run with reduced privileges.
func compose(file string) error {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithEnv([]string{"GRANTOR_UID=65532", "GRAFANA_PASSWORD=x"}), cli.WithoutEnvironmentResolution)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	var errs []error
	for _, service := range project.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				errs = append(errs, fmt.Errorf("%s: port %d is published beyond loopback", service.Name, port.Target))
			}
		}
		if strings.HasPrefix(service.Name, "grantor") && (!service.ReadOnly || !slices.Contains(service.CapDrop, "ALL") || service.User == "") {
			errs = append(errs, fmt.Errorf("%s: runs as root, has capabilities or can write its root", service.Name))
		}
		for _, volume := range service.Volumes {
			// A clean checkout lacks the folder data, which the script prepare creates.
			if _, err := os.Stat(volume.Source); volume.Type == "bind" && filepath.Base(volume.Source) != "data" && err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", service.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
