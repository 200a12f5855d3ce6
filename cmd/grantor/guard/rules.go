package guard

import (
	"fmt"
	"net/http"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/oauth"
)

// maxRules bounds a file of rules, in bytes.
const maxRules = 4 << 20

// parseRules parses a file of rules, which errors call file. Each error names the line.
func parseRules(file string, data []byte) ([]guard.Route, error) {
	doc, err := yamldoc.Parse(file, data)
	if err != nil {
		return nil, err
	}
	var routes []guard.Route
	err = doc.Fields(doc.Root, func(key string, node *yaml.Node) error {
		if key != "rules" {
			return doc.Errorf(node, "there is no field %q; the rules are a list below rules", key)
		}
		return doc.Items(node, func(item *yaml.Node) error {
			route, err := parseRule(doc, item)
			routes = append(routes, route)
			return err
		})
	})
	if err == nil && len(routes) == 0 {
		err = doc.Errorf(doc.Root, "there are no rules, so every request would be refused")
	}
	return routes, err
}

// ruleParser collects the fields of one rule.
type ruleParser struct {
	doc   *yamldoc.Document
	route guard.Route
	// grpc is the value of the field grpc, or nil.
	grpc *yaml.Node
	// except is the value of the field except, or nil. It is read last, because grpc decides whether its items are methods.
	except *yaml.Node
	// methods and path report whether the rule has these fields.
	methods, path bool
	// callers has the names of the fields that decide which callers are admitted. There must be one.
	callers []string
}

// parseRule parses one rule.
func parseRule(doc *yamldoc.Document, item *yaml.Node) (guard.Route, error) {
	p := &ruleParser{doc: doc, route: guard.Route{Source: doc.Place(item)}}
	if err := doc.Fields(item, p.field); err != nil {
		return p.route, err
	}
	switch {
	case len(p.callers) != 1:
		return p.route, doc.Errorf(item, "a rule has exactly one of scopes, authenticated: true and public: true")
	case (p.grpc == nil) == !p.path:
		return p.route, doc.Errorf(item, "a rule has exactly one of path and grpc")
	case p.grpc != nil && p.methods:
		return p.route, doc.Errorf(item, "a rule with grpc has no methods: the method of a gRPC call is POST")
	case p.grpc != nil:
		if err := p.setGRPC(); err != nil {
			return p.route, err
		}
	}
	return p.route, p.setExcept()
}

// field reads one field of the rule.
func (p *ruleParser) field(key string, node *yaml.Node) (err error) {
	switch key {
	case "host":
		p.route.Host, err = p.doc.Scalar(node)
	case "path":
		p.path = true
		p.route.Path, err = p.doc.Scalar(node)
	case "grpc":
		p.grpc = node
	case "methods":
		p.methods = true
		err = p.setMethods(node)
	case "except":
		p.except = node
	case "resource":
		if p.route.Resource, err = p.doc.Scalar(node); err == nil {
			if _, malformed := oauth.ParseResource(p.route.Resource); malformed != nil {
				err = p.doc.Errorf(node, "%.200q is not a resource such as https://orders.internal", p.route.Resource)
			}
		}
	case "scopes", "authenticated", "public":
		p.callers = append(p.callers, key)
		p.route.Rule, err = p.rule(key, node)
	default:
		err = p.doc.Errorf(node, "there is no field %q; the fields are host, path, grpc, methods, except, resource, scopes, authenticated and public", key)
	}
	return err
}

// rule reads the field that decides which callers are admitted.
func (p *ruleParser) rule(key string, node *yaml.Node) (verify.Rule, error) {
	if key == "scopes" {
		names, err := p.doc.List(node)
		if err != nil {
			return verify.Rule{}, err
		}
		rule := verify.Scopes(names...)
		if err := rule.Err(); err != nil {
			return rule, p.doc.Errorf(node, "scopes: %v", err)
		}
		return rule, nil
	}
	value, err := p.doc.Scalar(node)
	switch {
	case err != nil:
		return verify.Rule{}, err
	case value != "true":
		return verify.Rule{}, p.doc.Errorf(node, "%s is true or absent", key)
	case key == "public":
		return verify.Public(), nil
	}
	return verify.Authenticated(), nil
}

func (p *ruleParser) setMethods(node *yaml.Node) error {
	methods, err := p.doc.List(node)
	if err != nil {
		return err
	}
	if len(methods) == 0 {
		return p.doc.Errorf(node, "methods is empty; a rule for every method has no methods")
	}
	for _, method := range methods {
		if method != strings.ToUpper(method) {
			return p.doc.Errorf(node, "the method %.50q is in lower case, which no client sends", method)
		}
	}
	p.route.Methods = methods
	return nil
}

// setGRPC sets the path and the method to those of the gRPC calls that the rule is for.
func (p *ruleParser) setGRPC() error {
	name, err := p.doc.Scalar(p.grpc)
	if err != nil {
		return err
	}
	p.route.Path, err = grpcPath(name)
	if err != nil {
		return p.doc.Errorf(p.grpc, "grpc: %v", err)
	}
	p.route.Methods = []string{http.MethodPost}
	return nil
}

// grpcPath returns the path of a method (package.Service/Method), or the template of those of all methods of a service
// (package.Service/*).
func grpcPath(name string) (string, error) {
	service, method, ok := strings.Cut(name, "/")
	if !ok || service == "" || method == "" || strings.ContainsAny(service+method, "/{}") || strings.Contains(service, "*") {
		return "", fmt.Errorf("%.200q is not a method such as orders.v1.Orders/Get, or orders.v1.Orders/* for each of a service", name)
	}
	if method == "*" {
		return "/" + service + "/{method}", nil
	}
	if strings.Contains(method, "*") {
		return "", fmt.Errorf("%.200q: * stands for a whole method only", name)
	}
	return "/" + name, nil
}

// setExcept sets the exceptions, which are methods in a rule with grpc, or else templates of paths.
func (p *ruleParser) setExcept() error {
	if p.except == nil {
		return nil
	}
	names, err := p.doc.List(p.except)
	if err != nil || p.grpc == nil {
		p.route.Except = names
		return err
	}
	for _, name := range names {
		path, err := grpcPath(name)
		if err != nil {
			return p.doc.Errorf(p.except, "except: %v", err)
		}
		p.route.Except = append(p.route.Except, path)
	}
	return nil
}
