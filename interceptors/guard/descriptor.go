package guard

import (
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
)

// DescriptorRoutes returns a route for each method of the set that has option (grantor.v1.rule), which package verify reads
// in a server written in Go, and the full names of the methods that have none: their calls are refused unless another route
// matches. It is an error if a rule is malformed or has a field that this version does not know, or if two services have the
// same name. The source of a route is its file and line, if the set was made with source information, or else its method.
func DescriptorRoutes(set *descriptorpb.FileDescriptorSet) (routes []Route, unruled []string, err error) {
	services := make(map[protoreflect.FullName]string)
	for _, file := range set.GetFile() {
		lines := methodLines(file)
		for i, service := range file.GetService() {
			name := protoreflect.FullName(service.GetName())
			if file.GetPackage() != "" {
				name = protoreflect.FullName(file.GetPackage()) + "." + name
			}
			if other, ok := services[name]; ok {
				return nil, nil, fmt.Errorf("guard: %.200q and %.200q both have the service %.200q", other, file.GetName(), name)
			}
			services[name] = file.GetName()
			for j, method := range service.GetMethod() {
				route, err := methodRoute(name, method)
				route.Source = file.GetName() + ": " + route.Path
				if line, ok := lines[[2]int{i, j}]; ok {
					route.Source = fmt.Sprintf("%s:%d", file.GetName(), line)
				}
				switch {
				case errors.Is(err, verify.ErrNoRule):
					unruled = append(unruled, route.Path[1:])
				case err != nil:
					return nil, nil, fmt.Errorf("guard: %.500s: %w", route.Source, err)
				default:
					routes = append(routes, route)
				}
			}
			if len(routes) > maxRoutes {
				return nil, nil, fmt.Errorf("guard: more than %d methods", maxRoutes)
			}
		}
	}
	return routes, unruled, nil
}

// methodRoute returns the route of a method, without its source. The error is verify.ErrNoRule if the method has no rule.
func methodRoute(service protoreflect.FullName, method *descriptorpb.MethodDescriptorProto) (Route, error) {
	route := Route{Path: "/" + string(service) + "/" + method.GetName(), Methods: []string{http.MethodPost}}
	if !service.IsValid() || !protoreflect.Name(method.GetName()).IsValid() {
		return route, errors.New("malformed name of a service or method")
	}
	var err error
	route.Rule, err = methodRule(method.GetOptions())
	return route, err
}

// methodRule returns the rule in the options of a method. The error is verify.ErrNoRule if there is none.
func methodRule(options *descriptorpb.MethodOptions) (verify.Rule, error) {
	// The set may have been parsed without knowledge of the option, or with a dynamic type for it.
	encoded, err := proto.Marshal(options)
	if err != nil {
		return verify.Rule{}, err
	}
	parsed := new(descriptorpb.MethodOptions)
	if err := proto.Unmarshal(encoded, parsed); err != nil {
		return verify.Rule{}, err
	}
	if !proto.HasExtension(parsed, grantorv1.E_Rule) {
		return verify.Rule{}, verify.ErrNoRule
	}
	message, _ := proto.GetExtension(parsed, grantorv1.E_Rule).(*grantorv1.Rule)
	rule := verify.ProtoRule(message)
	return rule, rule.Err()
}

// methodLines maps the index of a service and that of its method to the line of the method, counted from 1.
func methodLines(file *descriptorpb.FileDescriptorProto) map[[2]int]int32 {
	// The path of a method has the number of the field, and the index in it, of the service and of the method.
	const serviceField, methodField = 6, 2
	lines := make(map[[2]int]int32)
	for _, location := range file.GetSourceCodeInfo().GetLocation() {
		path, span := location.GetPath(), location.GetSpan()
		if len(path) == 4 && path[0] == serviceField && path[2] == methodField && len(span) > 0 {
			lines[[2]int{int(path[1]), int(path[3])}] = span[0] + 1
		}
	}
	return lines
}
