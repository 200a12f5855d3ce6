//go:build conformance

package conformance_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
)

// proxy is a proxy with a configuration in deploy/proxies.
type proxy struct {
	name string
	// files are those of deploy/proxies that it reads, the main one first.
	files []string
	// find returns the program.
	find func(t *testing.T) string
	// args returns the arguments for a main file.
	args func(main string) []string
	// version are the arguments with which the program prints its version.
	version string
	// forwardAuth is the guard's setting forward-auth, and empty if the proxy uses ext_authz.
	forwardAuth string
	// closed is the status of every request while the guard does not run, as docs/proxies.md has it.
	closed int
	// change returns the text of a file in another form; nil to keep it.
	change func(t *testing.T, dir, text string) string
}

// proxies lists the proxies of deploy/proxies.
var proxies = []proxy{
	{
		name: "envoy", files: []string{"envoy.yaml"}, find: installed("envoy"), version: "--version",
		closed: http.StatusServiceUnavailable,
		args: func(main string) []string {
			return []string{"-c", main, "--use-dynamic-base-id", "--concurrency", "2", "-l", "error"}
		},
	},
	{
		name: "nginx", files: []string{"nginx.conf"}, find: installed("nginx"), version: "-v", forwardAuth: "x-original",
		closed: http.StatusServiceUnavailable,
		args: func(main string) []string {
			dir := filepath.Dir(main)
			return []string{"-c", main, "-p", dir, "-e", "stderr", "-g", "daemon off; pid " + dir + "/nginx.pid;"}
		},
	},
	{
		name: "haproxy", files: []string{"haproxy.cfg", "haproxy.lua"}, find: installed("haproxy"), version: "-v", forwardAuth: "x-original",
		closed: http.StatusServiceUnavailable,
		args:   func(main string) []string { return []string{"-db", "-f", main} },
	},
	{
		name: "caddy", files: []string{"Caddyfile"}, find: installed("caddy"), version: "version", forwardAuth: "x-forwarded",
		closed: http.StatusBadGateway,
		args:   func(main string) []string { return []string{"run", "--config", main, "--adapter", "caddyfile"} },
	},
	{
		name: "traefik", files: []string{"traefik.yaml", "traefik-routes.yaml"}, find: buildTraefik, version: "version", forwardAuth: "x-forwarded",
		closed: http.StatusInternalServerError,
		args:   func(main string) []string { return []string{"--configFile=" + main} },
	},
}

// forEachProxy runs a test for each proxy.
func forEachProxy(t *testing.T, test func(t *testing.T, p proxy)) {
	t.Helper()
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) { test(t, p) })
	}
}

// installed returns a function that finds a program which tools/install-for-tests installs.
func installed(program string) func(t *testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatalf("there is no %s: make conformance installs it", program)
		}
		return path
	}
}

// binaries is the directory of the programs that the tests build.
var binaries string

func TestMain(m *testing.M) {
	binaries = must.Get(os.MkdirTemp("", "binaries"))
	code := m.Run()
	_ = os.RemoveAll(binaries)
	os.Exit(code)
}

// buildTraefik builds Traefik, which takes minutes the first time. Two modules are changed in copies: that of Traefik has no
// built web page and does not compile without one, and gets an empty page; that of the ACME client has the SDKs of some hundred DNS
// providers, which would take most of the time to compile, and gets none.
func buildTraefik(t *testing.T) string {
	t.Helper()
	built := filepath.Join(binaries, "traefik")
	if _, err := os.Stat(built); err == nil {
		return built
	}
	dir := t.TempDir()
	modfile := filepath.Join(dir, "traefik.mod")
	for from, to := range map[string]string{"go.mod": modfile, "go.sum": filepath.Join(dir, "traefik.sum")} {
		must.Succeed(t, os.WriteFile(to, must.Get(os.ReadFile(filepath.Join("../traefik", from))), 0o600))
	}
	flags, began := "-s -w", time.Now()
	for module, changes := range map[string]map[string]string{
		"github.com/traefik/traefik/v3": {"webui/static/index.html": "<!doctype html>"},
		"github.com/go-acme/lego/v4": {"providers/dns/zz_gen_dns_providers.go": `package dns

import (
	"errors"

	"github.com/go-acme/lego/v4/challenge"
)

func NewDNSChallengeProviderByName(string) (challenge.Provider, error) { return nil, errors.New("no DNS providers") }
`},
	} {
		var downloaded struct {
			Dir     string `json:"Dir"` //nolint:tagliatelle // of the go command
			Version string `json:"Version"`
		}
		must.Succeed(t, json.Unmarshal([]byte(run(t, "../traefik", nil, "go", "mod", "download", "-json", module)), &downloaded))
		changed := filepath.Join(dir, filepath.Base(filepath.Dir(module)))
		must.Succeed(t, os.CopyFS(changed, os.DirFS(downloaded.Dir)))
		for name, text := range changes {
			must.Succeed(t, os.MkdirAll(filepath.Dir(filepath.Join(changed, name)), 0o700))
			must.Succeed(t, os.WriteFile(filepath.Join(changed, name), []byte(text), 0o600))
		}
		if strings.HasPrefix(module, "github.com/traefik/") {
			flags += " -X github.com/traefik/traefik/v3/pkg/version.Version=" + downloaded.Version
		}
		run(t, "../traefik", nil, "go", "mod", "edit", "-replace", module+"="+changed, modfile)
	}
	run(t, "../traefik", nil, "go", "build", "-trimpath", "-modfile", modfile, "-ldflags", flags, "-o", built, "github.com/traefik/traefik/v3/cmd/traefik")
	t.Logf("built Traefik in %s", time.Since(began).Round(time.Second))
	return built
}

// behind lists the addresses of what is behind a proxy.
type behind struct{ guardGRPC, guardHTTP, service, serviceGRPC string }

// front is a running proxy.
type front struct {
	address string
	roots   *x509.CertPool
	// certificates are those of the caller.
	certificates []tls.Certificate
}

// start runs the proxy with its files of deploy/proxies, in which only the addresses and the certificates are replaced, until the
// test ends.
func (p proxy) start(t *testing.T, b behind) *front {
	t.Helper()
	dir := must.Get(os.MkdirTemp("", p.name)) //nolint:usetesting // t.TempDir may not be readable for nginx's workers
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	root := certtest.NewAuthority()
	own := root.Sign()
	f := &front{address: freeport.Address(t), roots: root.Pool()}
	cert, key := certtest.PEM(own.Certificate...), certtest.KeyPEM(own)
	for name, text := range map[string]string{"tls.crt": cert, "tls.key": key, "tls.pem": cert + key} {
		must.Succeed(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	replaced := strings.NewReplacer("/etc/proxy/", dir+"/", "8443", port(t, f.address),
		"127.0.0.1:9190", b.guardHTTP, "127.0.0.1:8000", b.service,
		"port_value: 9191", "port_value: "+port(t, b.guardGRPC), "port_value: 8000", "port_value: "+port(t, b.service),
		"port_value: 9000", "port_value: "+port(t, b.serviceGRPC),
		// Directories that only root can write to.
		"\taccess_log off;\n", "\taccess_log off;\n\tclient_body_temp_path "+dir+"/body;\n\tproxy_temp_path "+dir+"/proxy;\n\tfastcgi_temp_path "+dir+"/fastcgi;\n"+
			"\tuwsgi_temp_path "+dir+"/uwsgi;\n\tscgi_temp_path "+dir+"/scgi;\n")
	for _, name := range p.files {
		text := must.Get(os.ReadFile(filepath.Join("../../deploy/proxies", name)))
		changed := replaced.Replace(string(text))
		if p.change != nil {
			changed = p.change(t, dir, changed)
		}
		must.Succeed(t, os.WriteFile(filepath.Join(dir, name), []byte(changed), 0o600))
	}
	startProgram(t, dir, p.find(t), p.args(filepath.Join(dir, p.files[0]))...)
	must.Eventually(t, p.name+" accepts connections", func() bool {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", f.address, f.tls("http/1.1"))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return f
}

// port returns the port of an address, which may be empty.
func port(t *testing.T, address string) string {
	t.Helper()
	if address == "" {
		address = freeport.Address(t)
	}
	_, port, err := net.SplitHostPort(address)
	must.Succeed(t, err)
	return port
}

// dial opens a connection to the proxy for a protocol of ALPN.
func (f *front) dial(t *testing.T, protocol string) *tls.Conn {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", f.address, f.tls(protocol))
	must.Succeed(t, err)
	return conn
}

func (f *front) tls(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: f.roots, Certificates: f.certificates, ServerName: "localhost", NextProtos: protocols, MinVersion: tls.VersionTLS12}
}

// program is a running program.
type program struct {
	command *exec.Cmd
	output  *must.Buffer
	done    chan struct{}
	cancel  context.CancelFunc
}

// startProgram runs a program in dir until the test ends. Its output is logged if the test fails.
func startProgram(t *testing.T, dir, path string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{exec.CommandContext(ctx, path, args...), new(must.Buffer), make(chan struct{}), cancel}
	p.command.Dir, p.command.Stdout, p.command.Stderr = dir, p.output, p.output
	p.command.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	p.command.Cancel = func() error { return p.command.Process.Signal(syscall.SIGTERM) } // SIGINT is ignored in the background of a shell
	p.command.WaitDelay = 5 * time.Second
	must.Succeed(t, p.command.Start())
	go func() { defer close(p.done); _ = p.command.Wait() }()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(path), p.output.String())
		}
	})
	return p
}

// stop ends the program and waits for it.
func (p *program) stop() {
	p.cancel()
	<-p.done
}

// ended reports whether the program ended.
func (p *program) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
