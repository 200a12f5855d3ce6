package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/grantorhq/grantor/service/clientsecret"
)

// The client, the scope and the resource of all servers.
const (
	client   = "load"
	scope    = "orders.read"
	audience = "https://orders.internal"
)

// The versions of the peers. Hydra's is that of tools/hydra/go.mod, and Spring Boot's that of spring/pom.xml.
const (
	hydraVersion    = "2.3.0"
	keycloakVersion = "26.7.3"
	springVersion   = "Spring Boot 4.0.7"
)

// lab holds the programs to measure and the files that they need.
type lab struct {
	*settings

	dir string
	// secret is the secret of the client, the same at all servers.
	secret string
	// javaVersion is the line by which the Java machine presents itself.
	javaVersion string
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// keycloak returns the folder of the distribution.
func (l *lab) keycloak() string { return l.path("keycloak/keycloak-" + keycloakVersion) }

// java returns the program that runs Java, in JAVA_HOME if that is set, as the scripts of Maven and Keycloak choose it.
func (l *lab) java() string {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin/java")
	}
	return "java"
}

// newLab builds the programs and writes the files that they need.
func newLab(ctx context.Context, s *settings, dir string) (*lab, error) {
	l := &lab{settings: s, dir: dir, secret: clientsecret.New()}
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails (crypto/rand)
	if err := os.WriteFile(l.path("kek"), []byte(base64.StdEncoding.EncodeToString(kek)), 0o600); err != nil {
		return nil, err
	}
	version, err := l.run(ctx, ".", l.java(), "-version")
	if err != nil {
		return nil, err
	}
	l.javaVersion, _, _ = strings.Cut(version, "\n")
	for _, build := range []struct {
		name, dir string
		command   []string
	}{
		{"Grantor", ".", []string{"go", "build", "-tags", "grpcnotrace", "-o", l.path("grantor"), "./cmd/grantor"}},
		{"Hydra", "tools/hydra", []string{"env", "GOWORK=off", "go", "build", "-tags", "sqlite,json1", "-o", l.path("hydra"), "github.com/ory/hydra/v2"}},
		{"Spring Authorization Server", "tools/peers/spring", l.maven("-Doutput="+l.path("spring"), "package")},
		{"Keycloak", dir, l.maven("dependency:unpack", "-Dartifact=org.keycloak:keycloak-quarkus-dist:"+keycloakVersion+":zip", "-DoutputDirectory="+l.path("keycloak"))},
	} {
		progressf("building %s", build.name)
		if _, err := l.run(ctx, build.dir, build.command[0], build.command[1:]...); err != nil {
			return nil, err
		}
	}
	return l, l.configureKeycloak(ctx)
}

// maven returns a command of Maven.
func (l *lab) maven(args ...string) []string {
	return append([]string{"mvn", "--batch-mode", "--quiet"}, args...)
}

// configureKeycloak writes the realms, and runs the build that Keycloak requires for a choice of the database.
func (l *lab) configureKeycloak(ctx context.Context) error {
	realms, err := l.realms()
	if err != nil {
		return err
	}
	folder := filepath.Join(l.keycloak(), "data/import")
	err = os.MkdirAll(folder, 0o700)
	for name, realm := range realms {
		err = errors.Join(err, os.WriteFile(filepath.Join(folder, name+".json"), realm, 0o600))
	}
	if err != nil {
		return err
	}
	script := filepath.Join(l.keycloak(), "bin/kc.sh")
	_, err = l.run(ctx, ".", "sh", "-c", `chmod +x "$0" && "$0" build --db=dev-mem`, script)
	return err
}

// realms returns the realms for Keycloak, by name: one with its defaults, and one whose tokens have the claims of
// Grantor's alone.
func (l *lab) realms() (map[string][]byte, error) {
	type object = map[string]any
	newRealm := func(name string, clientScopes []object, more object) ([]byte, error) {
		c := object{
			"clientId": client, "secret": l.secret, "enabled": true, "publicClient": false, "protocol": "openid-connect",
			"serviceAccountsEnabled": true, "standardFlowEnabled": false,
		}
		maps.Copy(c, more)
		realm := object{"realm": name, "enabled": true, "clients": []object{c}}
		if clientScopes != nil {
			realm["clientScopes"] = clientScopes
		}
		return json.Marshal(realm)
	}
	usual, err := newRealm("default", nil, nil)
	lean, err2 := newRealm("best", []object{{
		"name": scope, "protocol": "openid-connect", "attributes": object{"include.in.token.scope": "true"},
		"protocolMappers": []object{{
			"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
			"config": object{"included.custom.audience": audience, "access.token.claim": "true"},
		}},
	}}, object{
		"attributes": object{"access.token.signed.response.alg": "ES256"}, "fullScopeAllowed": false,
		"defaultClientScopes": []string{}, "optionalClientScopes": []string{scope},
	})
	return map[string][]byte{"default": usual, "best": lean}, errors.Join(err, err2)
}

// run runs a command in a folder and returns what it printed.
func (l *lab) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // fixed programs and arguments
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// describe returns what describes the measurement, beside the machine.
func (l *lab) describe() string {
	return fmt.Sprintf("\n- Hydra: %s\n- Keycloak: %s\n- Spring Authorization Server: %s\n- Java: %s\n- rounds: %d of %s",
		hydraVersion, keycloakVersion, springVersion, l.javaVersion, l.rounds, l.duration)
}
