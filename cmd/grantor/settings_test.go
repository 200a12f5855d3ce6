package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestSettingsOrder has one setting from each source and all of them: the flag wins, then the environment, then the file.
func TestSettingsOrder(t *testing.T) {
	config := file(t, "grantor.yaml", "cached_clients: 3\nissuer: https://file.example\nsigning_algorithms: [EdDSA, ES256, RS256]\n")
	t.Setenv("GRANTOR_CACHED_CLIENTS", "2")
	t.Setenv("GRANTOR_LOG_LEVEL", "warn")
	t.Setenv("GRANTOR_CONFIG", config)
	s, err := parseServe("--cached-clients=1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, got, want string }{
		{"flag over environment and file", fmt.Sprint(s.cachedClients), "1"},
		{"environment over default", s.logLevel, "warn"},
		{"file over default", s.issuer, "https://file.example"},
		{"a list", fmt.Sprint(s.algorithms), "[EdDSA ES256 RS256]"},
		{"default", s.tokenLifetime.String(), "1h0m0s"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, c.got, c.want)
		}
	}
	if s, err = parseServe(); err != nil || s.cachedClients != 2 {
		t.Errorf("environment over file: got %d and %v, want 2", s.cachedClients, err)
	}
}

// TestSettingsErrors expects each mistake to be one line that names the setting, or the file's line.
func TestSettingsErrors(t *testing.T) {
	kek := kekFile(t)
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		file string
		want string
	}{
		{name: "misspelt key", file: "issuer: https://a.example\n\nlog_fromat: text\n", want: `grantor.yaml:3: there is no setting "log_fromat"`},
		{name: "hyphens in the file", file: "log-format: text\n", want: `grantor.yaml:1: there is no setting "log-format"`},
		{name: "key twice", file: "log_format: text\nlog_format: json\n", want: `grantor.yaml:2: "log_format" is there twice`},
		{name: "wrong type in the file", file: "cached_clients: many\n", want: "grantor.yaml:1: "},
		{name: "empty value in the file", file: "issuer:\n", want: "grantor.yaml:1: expected a value"},
		{name: "no YAML", file: "a: [\n", want: "grantor.yaml: "},
		{name: "no such file", args: []string{"--config=/nonexistent"}, want: "config: "},
		{name: "wrong type in the environment", env: map[string]string{"GRANTOR_MAX_STALENESS": "soon"}, want: "GRANTOR_MAX_STALENESS: "},
		{name: "wrong type in a flag", args: []string{"--max-staleness=soon"}, want: `--max-staleness`},
		{name: "no issuer", want: "issuer: is required"},
		{name: "issuer over http", args: []string{"--issuer=http://auth.example.com"}, want: "issuer: "},
		{name: "issuer with a slash", args: []string{"--issuer=https://auth.example.com/"}, want: "issuer: "},
		{name: "issuer with a query", args: []string{"--issuer=https://auth.example.com?a=b"}, want: "issuer: "},
		{name: "no Redis", args: []string{"--issuer=http://localhost:1"}, want: "redis: is required"},
		{name: "Redis of no URL", args: []string{"--issuer=http://localhost:1", "--redis=localhost"}, want: "redis: "},
		{name: "Redis out of reach", args: []string{"--issuer=http://localhost:1", "--redis=redis://127.0.0.1:1"}, want: "redis: "},
		{name: "no key-encryption key", args: []string{"--dev", "--key-encryption-key-file=/nonexistent"}, want: "key-encryption-key-file: "},
		{name: "short key-encryption key", args: []string{"--dev", "--key-encryption-key=c2hvcnQ="}, want: "key-encryption-key: a key-encryption key is 32 random bytes"},
		{name: "two key-encryption keys", args: []string{"--dev", "--key-encryption-key=x", "--key-encryption-key-file=" + kek}, want: "key-encryption-key, key-encryption-key-file: "},
		{name: "certificate without key", args: []string{"--dev", "--tls-cert-file=a"}, want: "tls-cert-file, tls-key-file: "},
		{name: "authorities without certificate", args: []string{"--dev", "--tls-client-ca-file=a"}, want: "tls-client-ca-file: "},
		{name: "no such certificate", args: []string{"--dev", "--tls-cert-file=/nonexistent", "--tls-key-file=/nonexistent"}, want: "tls-cert-file: "},
		{name: "unknown algorithm", args: []string{"--dev", "--signing-algorithms=ES256,RS256,HS256"}, want: "signing-algorithms: "},
		{name: "without RS256", args: []string{"--dev", "--signing-algorithms=ES256"}, want: "signing-algorithms: "},
		{name: "long lifetime", args: []string{"--dev", "--access-token-lifetime=25h"}, want: "access-token-lifetime: "},
		{name: "fraction of a second", args: []string{"--dev", "--access-token-lifetime=1500ms"}, want: "access-token-lifetime: "},
		{name: "rotation faster than publication", args: []string{"--dev", "--key-rotation=10m"}, want: "key-rotation: "},
		{name: "no cache", args: []string{"--dev", "--cached-clients=0"}, want: "cached-clients: "},
		{name: "log format", args: []string{"--dev", "--log-format=xml"}, want: "log-format: "},
		{name: "log level", args: []string{"--dev", "--log-level=loud"}, want: "log-level: "},
		{name: "collector of no URL", args: []string{"--dev", "--otlp-endpoint=localhost:4317"}, want: "otlp-endpoint: not a URL"},
		{name: "collector with a password", args: []string{"--dev", "--otlp-endpoint=http://a:b@localhost:4317"}, want: "otlp-endpoint: not a URL"},
		{name: "more than all traces", args: []string{"--dev", "--trace-sampling=1.5"}, want: "trace-sampling: "},
		{name: "no number of traces", args: []string{"--dev", "--trace-sampling=NaN"}, want: "trace-sampling: "},
		{name: "key prefix", args: []string{"--dev", "--redis-prefix=a{b}:"}, want: "redis-prefix: "},
		{name: "plaintext beyond loopback", args: []string{"--dev", "--grpc-listen=0.0.0.0:0"}, want: "grpc-listen: 0.0.0.0:0 is reachable from other machines"},
		{name: "no such manifest", args: []string{"--dev", "--apply=/nonexistent"}, want: "apply: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			args := c.args
			if c.file != "" {
				args = append(args, "--config="+file(t, "grantor.yaml", c.file))
			}
			_, err := tryServe(t, args...)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
		})
	}
}

// TestPortTaken expects the start to fail where a port is taken, and the other ports to be free again.
func TestPortTaken(t *testing.T) {
	first := serveDev(t)
	_, err := tryServe(t, "--dev", "--ops-listen="+first.ports.ops.Addr().String())
	if err == nil || !strings.HasPrefix(err.Error(), "ops-listen: ") {
		t.Errorf("got %v, want an error that names ops-listen", err)
	}
}

// TestSettingsTable compares the table of docs/settings.md with what `grantor serve --help` lists.
func TestSettingsTable(t *testing.T) {
	var settings serveSettings
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	settings.declare(flags)
	var table strings.Builder
	table.WriteString("| setting | default | what it is |\n|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		value := f.DefValue
		if value == "" || value == "[]" {
			value = "none"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", f.Name, strings.Trim(value, "[]"), usage)
	})
	if !strings.Contains(page(t, "docs/settings.md"), table.String()) {
		t.Errorf("docs/settings.md lacks this table:\n%s", table.String())
	}
}

// TestServiceLinks starts in a Kubernetes namespace with services whose names begin with grantor.
func TestServiceLinks(t *testing.T) {
	for _, service := range []string{"GRANTOR", "GRANTOR_OPS", "GRANTOR_SERVICE", "GRANTOR_HTTP_2"} {
		t.Run(service, func(t *testing.T) {
			for suffix, value := range map[string]string{
				"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8080", "SERVICE_PORT_HTTP_API": "8080", "PORT": "tcp://10.0.0.1:8080",
				"PORT_8080_TCP": "tcp://10.0.0.1:8080", "PORT_8080_TCP_PROTO": "tcp", "PORT_8080_TCP_PORT": "8080", "PORT_8080_TCP_ADDR": "10.0.0.1",
			} {
				t.Setenv(service+"_"+suffix, value)
			}
			run(t, "version").works(t)
			for _, name := range []string{"GRANTOR_HTTP_PORT", "GRANTOR_GRPC_SERVICE_PORT", service + "_PORTS", service + "_PORT_HTTP", service + "_SERVICE_HOSTS"} {
				t.Run(name, func(t *testing.T) {
					t.Setenv(name, "8080")
					run(t, "version").exits(t, exitUsage, name+": there is no such setting")
				})
			}
		})
	}
}
