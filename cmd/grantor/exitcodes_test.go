package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/redistest"
)

// requiredArgs are the arguments with which a command gets as far as its first request, apart from its settings. A command
// that is not listed needs none.
var requiredArgs = map[string]string{
	"guard explain":         "GET https://orders.example.com/",
	"apply":                 "-f MANIFEST",
	"client create":         "x",
	"client delete":         "x --yes",
	"client disable":        "x",
	"client enable":         "x",
	"client get":            "x",
	"client revoke":         "x --yes",
	"client secret create":  "x",
	"client secret delete":  "x y --yes",
	"client secret expire":  "x y",
	"client secret list":    "x",
	"client secret rotate":  "x",
	"client update":         "x --name=y",
	"key compromise":        "x --yes",
	"key retire":            "x",
	"resource create":       "https://a.example",
	"resource delete":       "https://a.example --yes",
	"resource get":          "https://a.example",
	"resource update":       "https://a.example --name=y",
	"serve":                 "--issuer=http://localhost:1 --http-listen=127.0.0.1:0 --grpc-listen=127.0.0.1:0 --ops-listen=127.0.0.1:0",
	"token decode":          "--verify e30.e30.x",
	"token introspect":      "x",
	"token revoke":          "x",
	"trust check":           "e30.e30.e30",
	"trust issuer create":   "https://a.example",
	"trust issuer delete":   "https://a.example --yes",
	"trust issuer get":      "https://a.example",
	"trust issuer update":   "https://a.example --single-use",
	"trust workload create": "x",
	"trust workload delete": "x --yes",
	"trust workload get":    "x",
	"trust workload update": "x --subject=y",
}

// commandLines returns the command line of each command that has all flags, and that gets as far as its first request.
func commandLines(t *testing.T, flags ...string) map[string][]string {
	t.Helper()
	manifest := servetest.WriteFile(t, "clients.yaml", "clients: [{client_id: a}]")
	lines := make(map[string][]string)
	var collect func(cmd *cobra.Command, path []string)
	collect = func(cmd *cobra.Command, path []string) {
		for _, sub := range cmd.Commands() {
			collect(sub, append(path[:len(path):len(path)], sub.Name()))
		}
		lacks := func(flag string) bool { return cmd.Flags().Lookup(flag) == nil }
		if name := strings.Join(path, " "); cmd.Runnable() && !cmd.HasSubCommands() && !slices.ContainsFunc(flags, lacks) {
			lines[name] = append(path, strings.Fields(strings.ReplaceAll(requiredArgs[name], "MANIFEST", manifest))...)
		}
	}
	collect(newCommand(), nil)
	return lines
}

// TestExitCodes has each kind of failure in all commands in which it can occur, and expects the same code of all. The
// exception is grantor doctor, for which it is a finding.
func TestExitCodes(t *testing.T) {
	clitest.Isolate(t)
	r := servetest.Dev(t, "--failures-per-client=0", "--failures-per-source=0")
	pair := servetest.Trusted.WriteCertificate(t, time.Hour)
	secure := servetest.Dev(t, "--tls-cert-file="+pair.Cert, "--tls-key-file="+pair.Key)
	issuer, err := r.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	redis := redistest.New(t)
	right, wrong, malformed := servetest.KEKFile(t), servetest.KEKFile(t), servetest.WriteFile(t, "kek", "c2hvcnQ=")
	run(t, "apply", "-f", servetest.WriteFile(t, "clients.yaml", "clients: [{client_id: a}]"), "--redis", redis.URL(), "--key-encryption-key-file", right).Works(t)
	t.Setenv("GRANTOR_KEY_ENCRYPTION_KEY_FILE", right)
	t.Setenv("GRANTOR_CLIENT_ID", "background-service")
	t.Setenv("GRANTOR_CLIENT_SECRET", "another-secret-instead")
	for _, c := range []struct {
		name string
		// flags select the commands, and args are appended to their command lines.
		flags, args []string
		code        int
		want        string
		// without are the commands that do not use the flags in this way.
		without []string
	}{
		{"an unknown flag", nil, []string{"--no-such-flag"}, cli.ExitUsage, "there is no flag --no-such-flag", nil},
		{"no file of settings", []string{"config"}, []string{"--config=/nonexistent"}, cli.ExitUsage, "config: ", nil},
		{"a wrong file of settings", []string{"config"}, []string{"--config=" + servetest.WriteFile(t, "grantor.yaml", "isuer: x\n")}, cli.ExitUsage, `grantor.yaml:1: there is no setting "isuer"`, nil},
		{"an unknown form of output", []string{"output", "issuer"}, []string{"--output=xml"}, cli.ExitUsage, "output: ", nil},
		{"an issuer in plaintext", []string{"issuer"}, []string{"--issuer=http://auth.example.com"}, cli.ExitUsage, "issuer: ", []string{"config print"}},
		{"an issuer without a scheme", []string{"profile"}, []string{"--issuer=" + r.GRPCAddr()}, cli.ExitUsage, "is a host and a port, as gRPC takes them", nil},
		{"a gRPC target as issuer", []string{"profile"}, []string{"--issuer=dns:///" + r.GRPCAddr()}, cli.ExitUsage, "issuer: ", nil},
		{"a gRPC port as issuer", []string{"profile"}, []string{"--issuer=http://" + r.GRPCAddr()}, cli.ExitUsage, "is a gRPC port; the issuer is the URL of the REST port", []string{"doctor"}},
		{"a gRPC port with TLS as issuer", []string{"profile"}, []string{"--issuer=https://" + secure.GRPCAddr()}, cli.ExitUsage, "is a gRPC port; ", []string{"doctor"}},
		{"a gRPC port with TLS as issuer in plaintext", []string{"profile"}, []string{"--issuer=http://" + secure.GRPCAddr()}, cli.ExitUsage, "is a gRPC port; ", []string{"doctor"}},
		{"no profile", []string{"profile"}, []string{"--profile=nobody"}, cli.ExitUsage, "profile: ", nil},
		{"no client", []string{"client-id"}, []string{"--client-id=", "--issuer=" + issuer.String()}, cli.ExitUsage, "client-id: is required", []string{"bench"}},
		{"no secret", []string{"client-id"}, []string{"--client-secret-file=/nonexistent", "--issuer=" + issuer.String()}, cli.ExitUsage, "client-secret-file", nil},
		{"an issuer out of reach", []string{"profile"}, []string{"--issuer=http://localhost:1"}, cli.ExitUnavailable, "no metadata of the issuer", []string{"doctor"}},
		{"a client that the issuer refuses", []string{"client-id"}, []string{"--issuer=" + issuer.String()}, cli.ExitDenied, "invalid_client: ", nil},
		{"no Redis", []string{"redis"}, nil, cli.ExitUsage, "redis", []string{"config print"}},
		{"a Redis that is no URL", []string{"redis"}, []string{"--redis=localhost"}, cli.ExitUsage, "redis: ", []string{"config print"}},
		{"a Redis out of reach", []string{"redis"}, []string{"--redis=redis://127.0.0.1:1"}, cli.ExitUnavailable, "redis: ", []string{"config print", "doctor"}},
		{"a user whom Redis refuses", []string{"redis"}, []string{"--redis=redis://user:hush@" + redis.Addr()}, cli.ExitDenied, "redis: ", []string{"config print", "doctor"}},
		{"a prefix that Redis Cluster does not take", []string{"redis"}, []string{"--redis=" + redis.URL(), "--redis-prefix=a{"}, cli.ExitUsage, "redis-prefix: ", []string{"config print"}},
		{"a wrong key-encryption key", []string{"key-encryption-key-file"}, []string{"--redis=" + redis.URL(), "--key-encryption-key-file=" + wrong}, cli.ExitUsage, "the key-encryption key does not open the key ring", []string{"config print", "doctor"}},
		{"a malformed key-encryption key", []string{"key-encryption-key-file"}, []string{"--redis=" + redis.URL(), "--key-encryption-key-file=" + malformed}, cli.ExitUsage, "key-encryption-key-file: ", []string{"config print"}},
		{"no key-encryption key", []string{"key-encryption-key-file"}, []string{"--redis=" + redis.URL(), "--key-encryption-key-file=/nonexistent"}, cli.ExitUsage, "key-encryption-key-file: ", []string{"config print"}},
		{"a wrong KMS", []string{"key-encryption-key-url"}, []string{"--redis=" + redis.URL(), "--key-encryption-key-file=" + right, "--key-encryption-key-url=nokms://x"}, cli.ExitUsage, "key-encryption-key-url: ", []string{"config print", "key wrap"}},
	} {
		lines := commandLines(t, c.flags...)
		if len(lines) <= len(c.without) {
			t.Errorf("%s: got %d commands", c.name, len(lines))
		}
		for name, line := range lines {
			if slices.Contains(c.without, name) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", c.name, name), func(t *testing.T) {
				run(t, append(line, c.args...)...).Exits(t, c.code, c.want, "hush", "another-secret-instead")
			})
		}
	}
}

// TestExitCodesOfFiles has a file of clients, an export, a token and an address, each malformed or missing, in the commands
// that read it.
func TestExitCodesOfFiles(t *testing.T) {
	clitest.Isolate(t)
	redis := redistest.New(t)
	t.Setenv("GRANTOR_REDIS", redis.URL())
	t.Setenv("GRANTOR_KEY_ENCRYPTION_KEY_FILE", servetest.KEKFile(t))
	bad := servetest.WriteFile(t, "clients.yaml", "clients: [{client_id: a, sopes: [x]}]")
	unknown := servetest.WriteFile(t, "clients.yaml", "clients: [{client_id: a, scopes: [x]}]")
	serve := "serve " + requiredArgs["serve"]
	for _, c := range []struct {
		command string
		code    int
		want    string
	}{
		{"apply -f " + bad, cli.ExitInvalid, "clients.yaml:1: "},
		{"apply -f " + unknown, cli.ExitInvalid, "clients.yaml:1: "},
		{"apply -f /nonexistent", cli.ExitUsage, "/nonexistent"},
		{"apply", cli.ExitUsage, "file: is required"},
		{serve + " --apply " + bad, cli.ExitInvalid, "apply: "},
		{serve + " --apply " + unknown, cli.ExitInvalid, "apply: "},
		{serve + " --apply /nonexistent", cli.ExitUsage, "apply: "},
		{serve + " --ops-listen 8082", cli.ExitUsage, "ops-listen: "},
		{serve + " --grpc-listen 0.0.0.0:0", cli.ExitUsage, "grpc-listen: "},
		{serve + " --tls-cert-file /nonexistent --tls-key-file /nonexistent", cli.ExitUsage, "tls-cert-file: "},
		{"import hydra " + bad, cli.ExitInvalid, "clients.yaml:1:"},
		{"import hydra /nonexistent", cli.ExitUsage, "/nonexistent"},
		{"import openiddict /nonexistent", cli.ExitUsage, "/nonexistent"},
		{"trust check --file " + bad + " e30.e30.e30", cli.ExitInvalid, "clients.yaml:1: "},
		{"trust check --file /nonexistent e30.e30.e30", cli.ExitUsage, "/nonexistent"},
		{"trust check x.y.z", cli.ExitInvalid, "not a signed JWT"},
		{"trust check @/nonexistent", cli.ExitUsage, "/nonexistent"},
		{"token decode x.y", cli.ExitInvalid, "not a signed JWT"},
		{"token introspect --client-id x", cli.ExitUsage, "no token"},
		{"token revoke --client-id x --all token", cli.ExitUsage, "not both"},
	} {
		t.Run(c.command, func(t *testing.T) { run(t, strings.Fields(c.command)...).Exits(t, c.code, c.want) })
	}
}
