package guard_test

import (
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

// TestSettingsErrors expects each error to be one line that names the setting.
func TestSettingsErrors(t *testing.T) {
	rules := servetest.WriteFile(t, "rules.yaml", orders)
	issuer, other := servetest.Dev(t), servetest.Dev(t)
	name := must.Get(issuer.Issuer()).String()
	secure := httptest.NewTLSServer(nil)
	defer secure.Close()
	usual := []string{"--issuer=" + name, "--audience=https://orders.internal", "--rules=" + rules}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", []string{"--rules=" + rules}, "issuer: is required"},
		{"no audience", []string{"--rules=" + rules, "--issuer=" + name}, "audience: is required"},
		{"no rules", usual[:2], "rules: is required, or descriptor-set"},
		{"issuer over http", []string{"--issuer=http://auth.example.com"}, "issuer: "},
		{"issuer of no URL", []string{"--issuer=auth.example.com"}, `issuer: "auth.example.com" is not a URL`},
		{"another issuer", []string{"--issuer=http://localhost:1", "--fetch-from=" + other.URL("")}, "issuer: "},
		{"an untrusted certificate", []string{"--issuer=" + secure.URL}, "issuer-ca-file: the certificate of " + secure.URL + " is not trusted"},
		{"authorities that are none", []string{"--issuer-ca-file=" + rules}, "issuer-ca-file: "},
		{"a certificate without a key", []string{"--issuer-cert-file=a"}, "issuer-cert-file: set it together with issuer-key-file"},
		{"audience twice", []string{"--audience=https://orders.internal"}, `audience: "https://orders.internal" is named twice`},
		{"a resource with a fragment", []string{"--audience=https://b.internal#c"}, "audience: "},
		{"several audiences", []string{"--audience=https://b.internal"}, "rules.yaml:2: audience has several resources"},
		{"a feed of no address", []string{"--feed-from=https://auth.example.com"}, "feed-from: "},
		{"an origin with a path", []string{"--dpop-origins=https://a.example/b"}, "dpop-origins: "},
		{"short staleness", []string{"--max-staleness=1s"}, "max-staleness: 1s is less than 2s"},
		{"an unknown form", []string{"--forward-auth=nginx"}, `forward-auth: "nginx" is not one of off, x-forwarded, x-original`},
		{"no proxies", []string{"--forward-auth=x-original"}, "trusted-proxies: is required with forward-auth"},
		{"a malformed network", []string{"--trusted-proxies=10.0.0.1"}, "trusted-proxies: "},
		{"a header that means something", []string{"--client-id-header=host"}, "client-id-header, scopes-header: "},
		{"one header for both", []string{"--client-id-header=x-caller", "--scopes-header=x_caller"}, "client-id-header, scopes-header: "},
		{"certificate without key", []string{"--tls-cert-file=a"}, "tls-cert-file: set it together with tls-key-file"},
		{"authorities without certificate", []string{"--tls-client-ca-file=a"}, "tls-client-ca-file: "},
		{"plaintext beyond loopback", []string{"--grpc-listen=0.0.0.0:0"}, "grpc-listen: 0.0.0.0:0 is reachable from other machines"},
		{"plaintext forward-auth beyond loopback", []string{"--http-listen=:0", "--forward-auth=x-original", "--trusted-proxies=10.0.0.0/8"}, "http-listen: :0 is reachable"},
		{"negative checks", []string{"--max-checks=-1"}, "max-checks: "},
		{"log level", []string{"--log-level=loud"}, "log-level: "},
		{"an unknown key", []string{"--config=" + servetest.WriteFile(t, "guard.yaml", "redis: a\n")}, `guard.yaml:1: there is no setting "redis"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := c.args
			if c.name != "nothing" && c.name != "no audience" && c.name != "no rules" {
				args = append(append([]string{}, usual...), c.args...)
			}
			_, err := try(t, args...)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
		})
	}
}

// TestSettingsFile starts a guard with a file of settings alone.
func TestSettingsFile(t *testing.T) {
	issuer := servetest.Dev(t)
	config := servetest.WriteFile(t, "guard.yaml", "issuer: "+must.Get(issuer.Issuer()).String()+"\naudience: [https://orders.internal]\nrules: "+
		servetest.WriteFile(t, "rules.yaml", orders)+"\nlog_format: text\n")
	r, err := try(t, "--config="+config)
	if err != nil {
		t.Fatal(err)
	}
	if got := status(ask(t, servetest.Dial(t, r.ready(t).GRPCAddr()), "GET", "/orders/7", issuer.Token(t))); got != 200 {
		t.Errorf("got %d, want 200", got)
	}
	if r.HTTPAddr() != "" {
		t.Errorf("there is an HTTP port at %s without forward-auth", r.HTTPAddr())
	}
}

// TestTelemetry expects the spans and metrics of checks to be sent.
func TestTelemetry(t *testing.T) {
	c, issuer := servetest.NewCollector(t), servetest.Dev(t)
	r := start(t, must.Get(issuer.Issuer()).String(), orders, "--otlp-endpoint="+c.URL, "--trace-sampling=1").ready(t)
	token := issuer.Token(t)
	ask(t, servetest.Dial(t, r.GRPCAddr()), "GET", "/orders/7", token)
	r.authorize(t, "GET", "/orders/7", token)
	r.stop() // sends the remaining data
	<-r.ended
	spans := strings.Join(c.Spans, "\n")
	for _, want := range []string{"grantor-guard: envoy.service.auth.v3.Authorization/Check", "grantor-guard: GET /authorize"} {
		if !strings.Contains(spans, want) {
			t.Errorf("got the spans\n%s\nwant %s", spans, want)
		}
	}
	for _, name := range []string{"grantor.guard.checks", "grantor.verify.cache.lookups", "rpc.server.call.duration"} {
		if !c.Metrics["grantor-guard: "+name] {
			t.Errorf("the collector has no %s", name)
		}
	}
	if text := c.Text(); strings.Contains(text, token) || strings.Contains(text, "/orders/7") {
		t.Error("a token or a path was sent")
	}
}

// TestMetricsTable compares the table of docs/telemetry.md with the metrics of a guard that has answered on both wires.
func TestMetricsTable(t *testing.T) {
	issuer, authority := servetest.Dev(t), servetest.NewAuthority(t)
	r := start(t, must.Get(issuer.Issuer()).String(), orders).ready(t)
	ask(t, servetest.Dial(t, r.GRPCAddr()), "GET", "/orders/7", issuer.Token(t))
	r.authorize(t, "GET", "/orders/7", "forged")
	cert, key := authority.WriteLeaf(t, t.TempDir(), 2)
	secure := start(t, must.Get(issuer.Issuer()).String(), orders, "--tls-cert-file="+cert, "--tls-key-file="+key)
	_, plain := servetest.Get(t, r.ops("/metrics"))
	_, withTLS := servetest.Get(t, secure.ops("/metrics"))
	got := make(map[string]string)
	for _, line := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(plain+withTLS, -1) {
		if name := line[1]; !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && name != "target_info" && !strings.HasPrefix(name, "promhttp_") {
			got[name] = line[2]
		}
	}
	page := string(must.Get(os.ReadFile("../../../docs/telemetry.md")))
	_, section, _ := strings.Cut(page, "\n## grantor guard\n")
	section, _, _ = strings.Cut(section, "\n## ")
	want := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| (\\w+) \\| (\\S*) ").FindAllStringSubmatch(section, -1) {
		name := strings.ReplaceAll(row[1], ".", "_")
		if row[3] == "s" {
			name += "_seconds"
		}
		if row[2] == "counter" {
			name += "_total"
		}
		want[name] = row[2]
	}
	if !maps.Equal(got, want) {
		t.Errorf("got the metrics\n%v\nwant those of the table\n%v", got, want)
	}
}
