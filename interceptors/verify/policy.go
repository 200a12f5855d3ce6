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

// Rule says who may call a method. The zero Rule lets nobody in and stops a server's start.
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

// Public lets anyone in, with or without a token. A token that is sent is not looked at.
func Public() Rule { return Rule{kind: public} }

// Authenticated lets in any caller with a valid token for this server.
func Authenticated() Rule { return Rule{kind: authenticated} }

// Scopes lets in a caller whose token has all of the scopes (RFC 6749 §3.3). No scope at all, or a malformed one, makes
// a rule that stops a server's start.
func Scopes(scopes ...string) Rule {
	if len(scopes) == 0 {
		return Rule{err: errors.New("a rule of no scopes; verify.Authenticated() is the one for any valid token")}
	}
	rule := Authenticated()
	for _, name := range scopes {
		scope, err := oauth.ParseScope(name)
		if err != nil {
			return Rule{err: fmt.Errorf("the scope %.200q: %w", name, err)}
		}
		rule.scopes = append(rule.scopes, scope)
	}
	return rule
}

// check gives what is wrong with the rule, or nil.
func (r Rule) check() error {
	if r.kind != invalid {
		return nil
	}
	if r.err == nil {
		return errors.New("the rule is empty")
	}
	return r.err
}

// Policy says who may call what: full method name, as in "/pkg.Service/Method", → rule. Names are compared byte for
// byte.
//
// Where it has no entry, the rule in the method's proto counts: option (grantor.v1.rule). The service
// grpc.health.v1.Health is public unless an entry says otherwise. A nil Policy leaves everything to these two.
type Policy map[string]Rule

// Check compares the policy, completed by the rules in the protos, with the services of a server (its GetServiceInfo).
// It names every method that has no rule or a malformed one, and every entry of the policy that is for no method of the
// server. A [Server] checks itself.
func (p Policy) Check(services map[string]grpc.ServiceInfo) error {
	return check(p, p.complete(), services)
}

// health lists the methods that are public by default: a prober has no token.
var health = [...]string{
	"/grpc.health.v1.Health/Check",
	"/grpc.health.v1.Health/List",
	"/grpc.health.v1.Health/Watch",
}

// complete gives the policy with what stands for methods that it does not name: full method name → rule. A malformed
// rule in a proto stays in it as one that lets nobody in.
func (p Policy) complete() map[string]Rule {
	rules := map[string]Rule{}
	for _, method := range health {
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
			rules["/"+string(service.FullName())+"/"+string(method.Name())] = protoRule(message)
		}
	}
}

// protoRule reads a rule of which exactly one field must be set.
func protoRule(message *grantorv1.Rule) Rule {
	var said []Rule
	if message.GetPublic() {
		said = append(said, Public())
	}
	if message.GetAuthenticated() {
		said = append(said, Authenticated())
	}
	if scopes := message.GetScopes(); len(scopes) > 0 {
		said = append(said, Scopes(scopes...))
	}
	if len(said) != 1 || len(message.ProtoReflect().GetUnknown()) > 0 {
		return Rule{err: errors.New("option (grantor.v1.rule) must set exactly one of scopes, authenticated and public")}
	}
	return said[0]
}

// check is [Policy.Check] with the policy as it stands in Go and rules as it is completed.
func check(policy Policy, rules map[string]Rule, services map[string]grpc.ServiceInfo) error {
	var without, wrong, unknown []string
	registered := map[string]bool{}
	for service, info := range services {
		for _, method := range info.Methods {
			name := "/" + service + "/" + method.Name
			registered[name] = true
			rule, ok := rules[name]
			if !ok {
				without = append(without, name)
			} else if err := rule.check(); err != nil {
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
		list("methods without a rule", without),
		list("methods with a malformed rule", wrong),
		list("rules for methods that the server does not have", unknown),
	)
}

// list words a finding about names; none is no error.
func list(finding string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("verify: %s: %s", finding, strings.Join(names, ", "))
}
