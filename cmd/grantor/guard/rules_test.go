package guard_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/guard"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
)

// TestParseRules reads each field.
func TestParseRules(t *testing.T) {
	routes, err := guard.ParseRules("rules.yaml", []byte(`rules:
  - host: orders.example.com
    path: /orders/{id}
    methods: [GET, POST]
    scopes: [orders.read, orders.write]
    except: [/orders/export]
    resource: https://orders.internal
  - grpc: orders.v1.Orders/*
    except: [orders.v1.Orders/Reset]
    authenticated: true
  - grpc: orders.v1.Orders/Reset
    public: true
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range routes {
		got = append(got, fmt.Sprintf("%s %q %s %v except %v: %s for %q", r.Source, r.Host, r.Path, r.Methods, r.Except, r.Rule, r.Resource))
	}
	want := []string{
		`rules.yaml:2 "orders.example.com" /orders/{id} [GET POST] except [/orders/export]: scopes orders.read orders.write for "https://orders.internal"`,
		`rules.yaml:8 "" /orders.v1.Orders/{method} [POST] except [/orders.v1.Orders/Reset]: authenticated for ""`,
		`rules.yaml:11 "" /orders.v1.Orders/Reset [POST] except []: public for ""`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestRuleMistakes expects the error of each mistake to name its line.
func TestRuleMistakes(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"empty":                 {"", "rules.yaml: the file is empty"},
		"no rules":              {"rules: []\n", "rules.yaml:1: there are no rules"},
		"another field":         {"rule: []\n", `rules.yaml:1: there is no field "rule"`},
		"no list":               {"rules: all\n", "rules.yaml:1: expected a list"},
		"misspelt field":        {"rules:\n  - path: /a\n    scope: [b]\n", `rules.yaml:3: there is no field "scope"`},
		"field twice":           {"rules:\n  - path: /a\n    path: /b\n    public: true\n", `rules.yaml:3: duplicate "path"`},
		"nobody":                {"rules:\n  - path: /a\n", "rules.yaml:2: a rule has exactly one of scopes,"},
		"two kinds of callers":  {"rules:\n  - path: /a\n    public: true\n    scopes: [b]\n", "rules.yaml:2: a rule has exactly one of scopes,"},
		"neither path nor grpc": {"rules:\n  - host: a.example\n    public: true\n", "rules.yaml:2: a rule has exactly one of path and grpc"},
		"path and grpc":         {"rules:\n  - path: /a\n    grpc: a.B/C\n    public: true\n", "rules.yaml:2: a rule has exactly one of path and grpc"},
		"public: false":         {"rules:\n  - path: /a\n    public: false\n", "rules.yaml:3: public is true or absent"},
		"scopes are no list":    {"rules:\n  - path: /a\n    scopes: b\n", "rules.yaml:3: expected a list"},
		"no scopes":             {"rules:\n  - path: /a\n    scopes: []\n", "rules.yaml:3: scopes: "},
		"malformed scope":       {"rules:\n  - path: /a\n    scopes: ['b c']\n", "rules.yaml:3: scopes: "},
		"methods in lower case": {"rules:\n  - path: /a\n    methods: [get]\n    public: true\n", `rules.yaml:3: the method "get" is in lower case`},
		"no methods":            {"rules:\n  - path: /a\n    methods: []\n    public: true\n", "rules.yaml:3: methods is empty"},
		"methods of gRPC":       {"rules:\n  - grpc: a.B/C\n    methods: [GET]\n    public: true\n", "rules.yaml:2: a rule with grpc has no methods"},
		"gRPC without method":   {"rules:\n  - grpc: a.B\n    public: true\n", `rules.yaml:2: grpc: "a.B" is not a method`},
		"gRPC with a slash":     {"rules:\n  - grpc: /a.B/C\n    public: true\n", "rules.yaml:2: grpc: "},
		"half a wildcard":       {"rules:\n  - grpc: a.B/Get*\n    public: true\n", "rules.yaml:2: grpc: "},
		"exception of gRPC":     {"rules:\n  - grpc: a.B/*\n    except: [/a.B/C]\n    public: true\n", "rules.yaml:3: except: "},
		"no resource":           {"rules:\n  - path: /a\n    resource: orders orders\n    public: true\n", "rules.yaml:3: "},
		"an alias":              {"rules:\n  - &a {path: /a, public: true}\n  - *a\n", "rules.yaml:3: the alias *a"},
	} {
		_, err := guard.ParseRules("rules.yaml", []byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// FuzzParseRules checks that no file of rules makes the parser panic.
func FuzzParseRules(f *testing.F) {
	f.Add([]byte("rules:\n  - path: /a/{b}\n    scopes: [c]\n    except: [/a/d]\n"))
	f.Add([]byte("rules:\n  - grpc: a.B/*\n    public: true\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		routes, err := guard.ParseRules("rules.yaml", data)
		if err == nil && len(routes) == 0 {
			t.Error("got no rules and no error")
		}
	})
}

// descriptorSet writes the descriptors of Grantor's own services, whose methods have rules, and of one that has none.
func descriptorSet(t *testing.T) string {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(grantorv1.File_grantor_v1_revocation_service_proto),
		{
			Name: proto.String("orders.proto"), Package: proto.String("orders.v1"),
			Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Orders"), Method: []*descriptorpb.MethodDescriptorProto{
				{Name: proto.String("Get"), InputType: proto.String(".a"), OutputType: proto.String(".a")},
			}}},
		},
	}}
	path := filepath.Join(t.TempDir(), "api.binpb")
	must.Succeed(t, os.WriteFile(path, must.Get(proto.Marshal(set)), 0o600))
	return path
}

// run runs a subcommand of grantor guard, as the binary does.
func run(t *testing.T, args ...string) clitest.Result {
	t.Helper()
	cmd := guard.NewCommand()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	return clitest.Run(t, cmd, nil, args...)
}

// TestCheckCommand checks rules without a guard.
func TestCheckCommand(t *testing.T) {
	rules, set := servetest.WriteFile(t, "rules.yaml", orders), descriptorSet(t)
	check := func(args ...string) clitest.Result {
		return run(t, append([]string{"check"}, args...)...)
	}
	out := check("--rules="+rules, "--descriptor-set="+set).Works(t)
	for _, want := range []string{"3 of the file, ", "no rule: orders.v1.Orders/Get is refused", "issuer is not set", "audience is not set: it must come from GRANTOR_AUDIENCE"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q", out, want)
		}
	}
	covered := servetest.WriteFile(t, "rules.yaml", orders+"  - grpc: orders.v1.Orders/*\n    public: true\n")
	if out := check("--rules="+covered, "--descriptor-set="+set).Works(t); strings.Contains(out, "no rule") {
		t.Errorf("got %q, but a rule of the file covers the method", out)
	}
	config := servetest.WriteFile(t, "guard.yaml", "issuer: https://auth.example.com\naudience: [https://orders.internal]\nrules: "+rules+"\n")
	if out := check("--config=" + config).Works(t); strings.Count(out, "\n") != 1 {
		t.Errorf("got %q, want one line", out)
	}
	wrong := servetest.WriteFile(t, "rules.yaml", orders+"  - path: /{page}\n    authenticated: true\n")
	check("--rules="+wrong).Exits(t, cli.ExitInvalid, "rules.yaml:")
	check().Exits(t, cli.ExitUsage, "rules: is required")
	check("--rules=/nonexistent").Exits(t, cli.ExitUsage, "rules: ")
	check("--descriptor-set="+rules).Exits(t, cli.ExitUsage, "is not a descriptor set")
	check("--rules="+rules, "extra").Exits(t, cli.ExitOther, "the file of rules follows --rules")
}

// TestExplainCommand asks which rule decides.
func TestExplainCommand(t *testing.T) {
	rules := servetest.WriteFile(t, "rules.yaml", orders)
	explain := func(args ...string) clitest.Result {
		return run(t, append([]string{"explain", "--rules=" + rules}, args...)...)
	}
	if got, want := explain("get", "https://orders.example.com/orders/7?page=2").Works(t), rules+":2\nadmits: scopes api1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	explain("DELETE", "https://orders.example.com/orders/7").Exits(t, cli.ExitNotFound, "no rule matches")
	explain("GET", "https://orders.example.com").Exits(t, cli.ExitNotFound, "no rule matches")
	explain("GET", "https://orders.example.com/a/../orders/7").Exits(t, cli.ExitNotFound, "dot segment")
	explain("GET", "/orders/7").Exits(t, cli.ExitUsage, "the URL begins with https://")
	explain("GET", "https:///orders/7").Exits(t, cli.ExitUsage, "the URL has no host")
}

// TestDocsRules parses the rules that docs/guard.md and the help show.
func TestDocsRules(t *testing.T) {
	found := 0
	for name, text := range map[string]string{
		"docs/guard.md": string(must.Get(os.ReadFile("../../../docs/guard.md"))), "the help": guard.NewCommand().Long + "\n\n",
	} {
		for _, block := range regexp.MustCompile(`(?m)^( +)rules:\n(?:\s+.*\n)+?\n`).FindAllStringSubmatch(text, -1) {
			var file strings.Builder
			for line := range strings.Lines(block[0]) {
				file.WriteString(strings.TrimPrefix(line, block[1]))
			}
			found++
			if _, err := guard.ParseRules(name, []byte(file.String())); err != nil {
				t.Errorf("%v in\n%s", err, file.String())
			}
		}
	}
	if found != 3 {
		t.Errorf("found %d files of rules, want 3", found)
	}
}
