package service_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/grantorhq/grantor/"

// TestLayers checks the directions of dependency, direct and indirect.
func TestLayers(t *testing.T) {
	packages := list(t)
	domain := []string{
		"oauth", "certificate", "jwks", "jws", "dpop", "trust", "token", "keys", "clientsecret", "clientassertion", "registry", "clientauth",
		"grant", "revocation", "limit", "remoteaddr",
		"issuer",
	}
	transports := []string{"rpc", "broadcast", "admin", "rest", "connectrpc", "middleware", "status"}
	edges := []string{
		"service", "service/rpc", "service/broadcast", "service/admin", "service/registrypb", "service/rest", "service/connectrpc", "service/middleware", "service/tokentest",
		"interceptors/", "cmd/", "gen/", "examples/", "tools/",
	}
	for path, deps := range packages {
		name, ours := strings.CutPrefix(path, module)
		if !ours {
			continue
		}
		forbid := func(why string, forbidden ...string) {
			for _, dep := range deps {
				if slices.ContainsFunc(forbidden, func(f string) bool { return dep == f || strings.HasPrefix(dep, f+"/") }) {
					t.Errorf("%s depends on %s: %s", name, dep, why)
				}
			}
		}
		if inner, ok := strings.CutPrefix(name, "service/"); ok && slices.Contains(domain, inner) {
			forbid("the domain knows neither transports nor stores", "google.golang.org/grpc", "google.golang.org/protobuf",
				"github.com/redis", "github.com/grpc-ecosystem", module+"gen")
		}
		if inner, ok := strings.CutPrefix(name, "service/"); ok && slices.Contains(transports, inner) {
			forbid("the transports know the domain, and no store", "github.com/redis", module+"service/redisstore")
			if slices.Contains(deps, module+"service") {
				t.Errorf("%s depends on the service, which assembles it", name)
			}
		}
		if strings.HasPrefix(name, "interceptors/") {
			forbidInLibrary(name, forbid)
			checkLibrary(t, name, deps)
		}
		checkCommands(t, name, deps)
		followsSecrets := strings.HasPrefix(name+"/", "interceptors/secretvar/")
		azure, vault := []string{"github.com/Azure", "github.com/AzureAD"}, []string{"github.com/hashicorp"}
		clouds := slices.Concat(azure, vault, []string{"cloud.google.com", "github.com/aws"})
		without := func(allowed []string) []string {
			return slices.DeleteFunc(slices.Clone(clouds), func(cloud string) bool { return slices.Contains(allowed, cloud) })
		}
		drivers := []string{"gocloud.dev/runtimevar/awssecretsmanager", "gocloud.dev/runtimevar/gcpsecretmanager", "gocloud.dev/blob"}
		switch {
		case name == "interceptors/secretvar/azurekeyvault":
			forbid("the user's program chooses the driver", append(without(azure), drivers...)...)
		case name == "interceptors/secretvar/hashivault":
			forbid("the user's program chooses the driver", append(without(vault), drivers...)...)
		case followsSecrets:
			forbid("the user's program chooses the driver", append(clouds, drivers...)...)
		case !strings.HasPrefix(name, "cmd/"):
			forbid("only cmd/grantor links a KMS or vault, and only interceptors/secretvar secret managers",
				append(clouds, "gocloud.dev", "go.opencensus.io", "github.com/googleapis", "google.golang.org/api")...)
		}
		if !slices.ContainsFunc([]string{"cmd/", "service/tokentest", "service/redisstore", "service/redistest", "examples/"},
			func(p string) bool { return strings.HasPrefix(name, p) }) {
			forbid("only cmd/grantor and tokentest choose the store", module+"service/redisstore")
		}
		if !slices.ContainsFunc(edges, func(p string) bool { return name == p || (strings.HasSuffix(p, "/") && strings.HasPrefix(name, p)) }) {
			forbid("generated code is for the edges", module+"gen")
		}
	}
	for name, dep := range map[string]string{
		"cmd/grantor/kms": "gocloud.dev/secrets", "cmd/grantor/secretmanager": "gocloud.dev/runtimevar",
		"interceptors/secretvar/azurekeyvault": "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets",
		"interceptors/secretvar/hashivault":    "github.com/hashicorp/vault/api",
		"interceptors/attach/spiffe":           "github.com/spiffe/go-spiffe/v2/workloadapi",
		"interceptors/guard/extauthz":          "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3",
		"interceptors/guard":                   module + "interceptors/verify",
	} {
		if !slices.Contains(packages[module+name], dep) {
			t.Errorf("%s does not link %s, so this test checks nothing of it", name, dep)
		}
	}
	named := []string{
		"cmd/grantor/cli", "cmd/grantor/yamldoc", "cmd/grantor/admin", "cmd/grantor/tokens", "cmd/grantor/bench", "cmd/grantor/trustcheck",
		"cmd/grantor/guard", "cmd/grantor/ports", "cmd/grantor/monitoring", "cmd/grantor/reload",
		"service/redisstore", "interceptors/attach", "interceptors/verify", "interceptors/guard", "interceptors/secretvar", "interceptors/secretvar/poll",
	}
	for _, name := range append(transports, domain...) {
		named = append(named, "service/"+name)
	}
	for _, name := range named {
		if _, ok := packages[module+name]; !ok {
			t.Errorf("there is no package %s, so this test checks nothing of it", name)
		}
	}
}

// forbidInLibrary forbids a package of interceptors the modules that a user's build need not compile.
func forbidInLibrary(name string, forbid func(why string, forbidden ...string)) {
	forbid("a user's build must not compile the server", "github.com/redis", "github.com/grpc-ecosystem", "github.com/spf13",
		"golang.org/x/crypto/argon2")
	if name != "interceptors/attach/spiffe" {
		forbid("only programs that need the SPIFFE Workload API compile its client", "github.com/spiffe")
	}
	if name != "interceptors/guard/extauthz" {
		forbid("only programs that Envoy asks compile its messages", "github.com/envoyproxy", "github.com/cncf/xds")
	}
	if !strings.HasPrefix(name+"/", "interceptors/secretvar/") {
		forbid("the user's program chooses its telemetry", "go.opentelemetry.io/otel/sdk")
	}
}

// checkLibrary checks that a package of interceptors depends on no package of this module but those that a user's build may
// compile.
func checkLibrary(t *testing.T, name string, deps []string) {
	t.Helper()
	shared := []string{"service/oauth", "service/jwks", "service/jws", "service/dpop", "service/clientassertion", "service/token",
		"service/revocation", "service/instrument", "service/recovery"}
	if name == "interceptors/secretvar/vaulttest" { // support for tests, which no program of a user compiles
		shared = append(shared, "service/freeport")
	}
	for _, dep := range deps {
		inner, ours := strings.CutPrefix(dep, module)
		if ours && !strings.HasPrefix(inner, "interceptors/") && !strings.HasPrefix(inner, "gen/") && !slices.Contains(shared, inner) {
			t.Errorf("%s depends on %s: a user's build must not compile the server", name, inner)
		}
	}
}

// checkCommands checks the dependencies of a package on the packages of cmd, and those of a package of cmd.
func checkCommands(t *testing.T, name string, deps []string) {
	t.Helper()
	const commands = module + "cmd/"
	_, command, inGrantor := strings.Cut(name, "cmd/grantor/")
	// The packages that link the SDKs of the clouds, and those that reach a store or a signing key.
	withClouds := []string{"kms", "secretmanager", "storage", "serve", "servetest", "apply", "audit", "doctor"}
	remoteOnly := []string{"remote", "admin", "tokens", "bench", "trustcheck"}
	// The packages that run beside guarded services, where no issuer is.
	withoutServer := []string{"guard", "ports", "monitoring", "reload"}
	foundations := []string{"cli", "yamldoc"}
	for _, dep := range deps {
		below := func(prefix string) bool { return dep == prefix || strings.HasPrefix(dep, prefix+"/") }
		switch {
		case !strings.HasPrefix(name, "cmd/") && strings.HasPrefix(dep, commands):
			t.Errorf("%s depends on %s: only cmd imports its own packages", name, dep)
		case inGrantor && slices.Contains(remoteOnly, command) &&
			(below("github.com/redis") || below(module+"service/redisstore") || below(module+"service/keys")):
			t.Errorf("%s depends on %s: it reaches an issuer as a client does, and neither Redis nor a signing key", name, dep)
		case inGrantor && slices.Contains(withoutServer, command) && (below("github.com/redis") || dep == module+"service" ||
			slices.ContainsFunc([]string{"redisstore", "keys", "issuer", "registry", "rpc", "admin", "middleware", "rest"},
				func(server string) bool { return below(module + "service/" + server) })):
			t.Errorf("%s depends on %s: it runs beside guarded services, and has nothing of the issuer", name, dep)
		case inGrantor && !slices.Contains(withClouds, command) && below("gocloud.dev"):
			t.Errorf("%s depends on %s: only kms and secretmanager link the SDKs of the clouds", name, dep)
		case inGrantor && slices.Contains(foundations, command) && strings.HasPrefix(dep, module):
			t.Errorf("%s depends on %s: it imports nothing of this module", name, dep)
		}
	}
}

// list maps each package of go.work to everything that it depends on, tests aside.
func list(t *testing.T) map[string][]string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Deps", "work")
	command.Dir = ".."
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := make(map[string][]string)
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string   `json:"ImportPath"`
			Deps       []string `json:"Deps"`
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p.Deps
	}
}
