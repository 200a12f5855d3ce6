package verify

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
)

// Rule says which callers may call a method. Make one with [Public], [Authenticated] or [Scopes]. The zero Rule admits
// no caller and keeps a server from starting.
type Rule struct {
	kind   kind
	scopes oauth.Scopes
	err    error
}

type kind int

const (
	invalid kind = iota
	public
	authenticated
)

// Public admits every caller, with or without a token. A token that is sent is ignored.
func Public() Rule { return Rule{kind: public} }

// Authenticated admits every caller with a valid token for this server.
func Authenticated() Rule { return Rule{kind: authenticated} }

// Scopes admits a caller whose token has all of the scopes (RFC 6749 §3.3). Without scopes, or with a malformed one,
// the rule is invalid and keeps a server from starting.
func Scopes(scopes ...string) Rule {
	if len(scopes) == 0 {
		return Rule{err: errors.New("a rule of no scopes; verify.Authenticated() is the one for any valid token")}
	}
	rule := Authenticated()
	for _, name := range scopes {
		scope, err := oauth.ReadScope(name)
		if err != nil {
			return Rule{err: fmt.Errorf("the scope %.200q: %w", name, err)}
		}
		rule.scopes = append(rule.scopes, scope)
	}
	return rule
}

// String returns "public", "authenticated", or "scopes" and the scopes in alphabetical order. Two valid rules with the
// same string admit the same callers.
func (r Rule) String() string {
	switch {
	case r.kind == public:
		return "public"
	case r.kind != authenticated:
		return "invalid"
	case len(r.scopes) == 0:
		return "authenticated"
	}
	names := r.scopes.Strings()
	slices.Sort(names)
	return "scopes " + strings.Join(slices.Compact(names), " ")
}

// Err returns why the rule is invalid, or nil.
func (r Rule) Err() error {
	if r.kind != invalid {
		return nil
	}
	if r.err == nil {
		return errors.New("the rule is empty")
	}
	return r.err
}

// Policy maps full method names, such as "/pkg.Service/Method", to rules. Names are compared byte for byte.
//
// A method without an entry has the rule of its proto definition: option (grantor.v1.rule). The service
// grpc.health.v1.Health is public unless an entry says otherwise. A nil Policy has no entries.
type Policy map[string]Rule

// Check compares the policy, completed by the rules in the proto definitions, with the services of a server (its
// GetServiceInfo). The error names every method that has no rule or an invalid one, and every entry of the policy that
// names no method of the server. A [Server] calls Check itself before it serves.
func (p Policy) Check(services map[string]grpc.ServiceInfo) error {
	return check(p, p.complete(), services)
}

// healthMethods are public by default: a prober has no token.
var healthMethods = [...]string{
	"/grpc.health.v1.Health/Check",
	"/grpc.health.v1.Health/List",
	"/grpc.health.v1.Health/Watch",
}

// complete returns the rules of the policy and those of methods that it does not name, keyed by full method name. A
// malformed rule in a proto definition is included as an invalid one, which admits no caller.
func (p Policy) complete() map[string]Rule {
	rules := map[string]Rule{}
	for _, method := range healthMethods {
		rules[method] = Public()
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			addProtoRules(rules, file.Services().Get(i))
		}
		return true
	})
	maps.Copy(rules, p)
	return rules
}

func addProtoRules(rules map[string]Rule, service protoreflect.ServiceDescriptor) {
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		if !proto.HasExtension(method.Options(), grantorv1.E_Rule) {
			continue
		}
		message, ok := proto.GetExtension(method.Options(), grantorv1.E_Rule).(*grantorv1.Rule)
		if ok {
			rules["/"+string(service.FullName())+"/"+string(method.Name())] = ProtoRule(message)
		}
	}
}

// ProtoRule returns the rule of option (grantor.v1.rule). Unless exactly one field is set, and none that this version
// does not know, the rule is invalid.
func ProtoRule(message *grantorv1.Rule) Rule {
	var rules []Rule
	if message.GetPublic() {
		rules = append(rules, Public())
	}
	if message.GetAuthenticated() {
		rules = append(rules, Authenticated())
	}
	if scopes := message.GetScopes(); len(scopes) > 0 {
		rules = append(rules, Scopes(scopes...))
	}
	if len(rules) != 1 || len(message.ProtoReflect().GetUnknown()) > 0 {
		return Rule{err: errors.New("option (grantor.v1.rule) must set exactly one of scopes, authenticated and public")}
	}
	return rules[0]
}

// check implements [Policy.Check]: rules are those of the completed policy.
func check(policy Policy, rules map[string]Rule, services map[string]grpc.ServiceInfo) error {
	var missing, wrong, unknown []string
	registered := map[string]bool{}
	for service, info := range services {
		for _, method := range info.Methods {
			name := "/" + service + "/" + method.Name
			registered[name] = true
			rule, ok := rules[name]
			if !ok {
				missing = append(missing, name)
			} else if err := rule.Err(); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s (%v)", name, err))
			}
		}
	}
	for name := range policy {
		if !registered[name] {
			unknown = append(unknown, fmt.Sprintf("%q", name))
		}
	}
	return errors.Join(
		findings("methods without a rule", missing),
		findings("methods with a malformed rule", wrong),
		findings("rules for methods that the server does not have", unknown),
	)
}

// findings returns an error that lists names under a heading, or nil if there are none.
func findings(heading string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("verify: %s: %s", heading, strings.Join(names, ", "))
}
