package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshv1 "istio.io/api/mesh/v1alpha1"
	securityv1 "istio.io/api/security/v1beta1"
	"sigs.k8s.io/yaml"
)

// istio decodes the resources and the mesh configuration of a folder strictly into the types of Istio.
func istio(dir string) error {
	mesh, err := os.ReadFile(filepath.Join(dir, "mesh-config.yaml"))
	if err != nil {
		return err
	}
	if err := decode(mesh, &meshv1.MeshConfig{}); err != nil {
		return fmt.Errorf("mesh-config.yaml: %w", err)
	}
	resources, err := os.ReadFile(filepath.Join(dir, "istio.yaml"))
	if err != nil {
		return err
	}
	for document := range bytes.SplitSeq(resources, []byte("\n---\n")) {
		var resource struct {
			APIVersion string         `json:"apiVersion"`
			Kind       string         `json:"kind"`
			Metadata   map[string]any `json:"metadata"`
			Spec       any            `json:"spec"`
		}
		if err := yaml.UnmarshalStrict(document, &resource); err != nil {
			return err
		}
		specs := map[string]proto.Message{"AuthorizationPolicy": &securityv1.AuthorizationPolicy{}, "PeerAuthentication": &securityv1.PeerAuthentication{}}
		spec, ok := specs[resource.Kind]
		if !ok || resource.APIVersion != "security.istio.io/v1" {
			return fmt.Errorf("istio.yaml: %s %s is not a known kind", resource.APIVersion, resource.Kind)
		}
		text, err := yaml.Marshal(resource.Spec)
		if err != nil {
			return err
		}
		if err := decode(text, spec); err != nil {
			return fmt.Errorf("istio.yaml: %s: %w", resource.Kind, err)
		}
	}
	return nil
}

// decode decodes YAML into a message, and rejects unknown fields.
func decode(text []byte, message proto.Message) error {
	document, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(document, message)
}

// rules has the binary check the settings and the rules of each folder with a guard. The paths in the settings are
// those in the container; that of the rules is replaced.
func rules(dir, binary string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*/guard.yaml"))
	if err != nil || len(files) == 0 {
		return errors.Join(err, errors.New("there are no settings of a guard"))
	}
	var errs []error
	for _, file := range files {
		out, err := exec.CommandContext(context.Background(), binary, "guard", "check", "--config", file, //nolint:gosec // fixed arguments
			"--rules", filepath.Join(filepath.Dir(file), "rules.yaml")).CombinedOutput()
		if err == nil && strings.Count(string(out), "\n") != 1 {
			err = errors.New("something is missing") // which the command lists below the line that says that all is well
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w\n%s", file, err, out))
		}
	}
	return errors.Join(errs...)
}
