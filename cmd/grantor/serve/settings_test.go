package serve_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/serve"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/service/must"
)

// TestSettingsOrder sets settings in one source or in several: the flag takes precedence, then the environment, then
// the file.
func TestSettingsOrder(t *testing.T) {
	config := servetest.WriteFile(t, "grantor.yaml", "cached_clients: 3\nissuer: https://file.example\nsigning_algorithms: [EdDSA, ES256, RS256]\n")
	t.Setenv("GRANTOR_CACHED_CLIENTS", "2")
	t.Setenv("GRANTOR_LOG_LEVEL", "warn")
	t.Setenv("GRANTOR_CONFIG", config)
	values := func(args ...string) map[string]string {
		_, flags, err := servetest.Parse(args...)
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[string]string)
		flags.VisitAll(func(flag *pflag.Flag) { found[flag.Name] = flag.Value.String() })
		return found
	}
	got := values("--cached-clients=1")
	for _, c := range []struct{ name, setting, want string }{
		{"flag over environment and file", "cached-clients", "1"},
		{"environment over default", "log-level", "warn"},
		{"file over default", "issuer", "https://file.example"},
		{"a list", "signing-algorithms", "[EdDSA,ES256,RS256]"},
		{"default", "access-token-lifetime", "1h0m0s"},
	} {
		if got[c.setting] != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got[c.setting], c.want)
		}
	}
	if got := values()["cached-clients"]; got != "2" {
		t.Errorf("environment over file: got %s, want 2", got)
	}
}

// TestSettingsErrors expects each error to be one line that names the setting, or the line of the file.
func TestSettingsErrors(t *testing.T) {
	kek := servetest.KEKFile(t)
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		file string
		want string
	}{
		{name: "misspelt key", file: "issuer: https://a.example\n\nlog_fromat: text\n", want: `grantor.yaml:3: there is no setting "log_fromat"`},
		{name: "hyphens in the file", file: "log-format: text\n", want: `grantor.yaml:1: there is no setting "log-format"`},
		{name: "key twice", file: "log_format: text\nlog_format: json\n", want: `grantor.yaml:2: duplicate "log_format"`},
		{name: "wrong type in the file", file: "cached_clients: many\n", want: "grantor.yaml:1: "},
		{name: "empty value in the file", file: "issuer:\n", want: "grantor.yaml:1: expected a value"},
		{name: "no YAML", file: "a: [\n", want: "grantor.yaml:2: "},
		{name: "an alias", file: "issuer: &i https://a.example\ngrpc_endpoint: *i\n", want: "grantor.yaml:2: the alias *i "},
		{name: "an alias in a list", file: "log_format: &f json\nsigning_algorithms: [ES256, *f]\n", want: "grantor.yaml:2: the alias *f "},
		{name: "a merge key", file: "log_format: json\n<<: {log_level: info}\n", want: "grantor.yaml:2: the merge key <<"},
		{name: "an anchor", file: "log_format: &f json\n", want: "grantor.yaml:1: an anchor"},
		{name: "a duration without a unit", file: "max_staleness: 30\n", want: `grantor.yaml:1: max_staleness: "30" is not a duration such as 30s, 5m or 1h`},
		{name: "neither true nor false in the environment", env: map[string]string{"GRANTOR_PROFILING": "yes"}, want: `GRANTOR_PROFILING: "yes" is neither true nor false`},
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
		{name: "certificate without key", args: []string{"--dev", "--tls-cert-file=a"}, want: "tls-cert-file: set it together with tls-key-file"},
		{name: "authorities without certificate", args: []string{"--dev", "--tls-client-ca-file=a"}, want: "tls-client-ca-file: "},
		{name: "no such certificate", args: []string{"--dev", "--tls-cert-file=/nonexistent", "--tls-key-file=/nonexistent"}, want: "tls-cert-file: "},
		{name: "short idle timeout", args: []string{"--dev", "--http-idle-timeout=999ms"}, want: "http-idle-timeout: 999ms is not between 1s and 2h"},
		{name: "long idle timeout", args: []string{"--dev", "--http-idle-timeout=2h1s"}, want: "http-idle-timeout: "},
		{name: "no idle timeout", args: []string{"--dev", "--http-idle-timeout=0s"}, want: "http-idle-timeout: "},
		{name: "plaintext HTTP/2 with TLS", args: []string{"--dev", "--http-h2c", "--tls-cert-file=a", "--tls-key-file=b"}, want: "http-h2c: "},
		{name: "a network to fetch from without a length", args: []string{"--dev", "--fetch-networks=10.0.0.0"}, want: `fetch-networks: "10.0.0.0" is no network`},
		{name: "a network to fetch from with bits beyond", args: []string{"--dev", "--fetch-networks=10.0.0.0/8,10.1.0.1/16"}, want: "fetch-networks: 10.1.0.1/16 has bits"},
		{name: "any origin", args: []string{"--dev", "--cors-origins=*"}, want: "cors-origins: * stands for any page"},
		{name: "one origin wrong", args: []string{"--dev", "--cors-origins=https://a.example,https://b.example/"}, want: `cors-origins: "https://b.example/" is not an origin`},
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
				args = append(args, "--config="+servetest.WriteFile(t, "grantor.yaml", c.file))
			}
			_, err := servetest.Try(t, args...)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
		})
	}
}

// TestPortTaken expects the start to fail if a port is in use, and the other ports to be released.
func TestPortTaken(t *testing.T) {
	first := servetest.Dev(t)
	_, err := servetest.Try(t, "--dev", "--ops-listen="+first.OpsAddr())
	if err == nil || !strings.HasPrefix(err.Error(), "ops-listen: ") {
		t.Errorf("got %v, want an error that names ops-listen", err)
	}
}

// FuzzSettings checks that no file of settings makes the reader panic.
func FuzzSettings(f *testing.F) {
	f.Add([]byte("issuer: https://a.example\nsigning_algorithms: [ES256]\n"))
	f.Add([]byte("cached_clients: 0x10\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := servetest.WriteFile(t, "grantor.yaml", string(data))
		if _, _, err := servetest.Parse("--config=" + path); err != nil && errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file that exists: %v", err)
		}
	})
}

// TestSecretsAreHidden sets each setting and prints it: only settings that are declared public are shown, URLs
// without their password.
func TestSecretsAreHidden(t *testing.T) {
	const canary = "canary"
	var s serve.Settings
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	s.Declare(flags)
	hidden := make(map[string]bool)
	flags.VisitAll(func(flag *pflag.Flag) {
		value := canary
		kind, usage := pflag.UnquoteUsage(flag)
		if kind == "URL" {
			value = "scheme://user:" + canary + "@host/?password=" + canary
		}
		if err := flag.Value.Set(value); err != nil {
			return // a number, a duration or a boolean is not a secret
		}
		shown := settings.Printable(flag)
		hidden[flag.Name] = shown == "(not shown)"
		secret := regexp.MustCompile(`-(key|secret|password|token)$`).MatchString(flag.Name)
		if secret && !hidden[flag.Name] || kind == "URL" && strings.Contains(shown, canary) {
			t.Errorf("%s (%s) is shown as %q", flag.Name, usage, shown)
		}
	})
	for _, name := range []string{"key-encryption-key", "previous-key-encryption-key"} {
		if !hidden[name] {
			t.Errorf("%s is shown", name)
		}
		delete(hidden, name)
	}
	for name, isHidden := range hidden {
		if isHidden {
			t.Errorf("%s is hidden; if that is intended, this test must name it", name)
		}
	}
	must.Succeed(t, flags.Set("key-encryption-key-url", "base64key://"+canary))
	if shown := settings.Printable(flags.Lookup("key-encryption-key-url")); strings.Contains(shown, canary) {
		t.Errorf("a key in a URL is shown as %q", shown)
	}
}
