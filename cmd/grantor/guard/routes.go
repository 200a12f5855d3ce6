package guard

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
)

// maxDescriptorSet bounds a file with descriptors, in bytes.
const maxDescriptorSet = 64 << 20

// ruleSet is what the files of rules and descriptors say.
type ruleSet struct {
	table *guard.Table
	// rules and methods are the numbers of rules from the file of rules and from descriptors.
	rules, methods int
	// unruled are the methods of the descriptors that have no rule of their own and that no other rule matches.
	unruled []string
}

// readRules reads the files of rules and descriptors. Its errors name the setting, and the line of a rule.
func (s *Settings) readRules() (*ruleSet, error) {
	var routes []guard.Route
	read := &ruleSet{}
	if s.rules != "" {
		data, err := cli.ReadFile(s.rules, maxRules)
		if err != nil {
			return nil, cli.SettingError("rules", err)
		}
		if routes, err = parseRules(s.rules, data); err != nil {
			return nil, fmt.Errorf("rules: %w", cli.InputError(err))
		}
		read.rules = len(routes)
	}
	// All files are read as one set, so that a service which is in two of them is an error.
	set := new(descriptorpb.FileDescriptorSet)
	for _, file := range s.descriptorSets {
		one, err := readDescriptors(file)
		if err != nil {
			return nil, cli.SettingError("descriptor-set", err)
		}
		set.File = append(set.File, one.GetFile()...)
	}
	methods, unruled, err := guard.DescriptorRoutes(set)
	if err != nil {
		return nil, fmt.Errorf("descriptor-set: %w", cli.InputError(err))
	}
	read.methods = len(methods)
	if routes = append(routes, methods...); len(routes) == 0 {
		return nil, cli.SettingError("descriptor-set", errors.New("no method has option (grantor.v1.rule), so every request would be refused"))
	}
	if err := s.checkResources(routes); err != nil {
		return nil, cli.InputError(err)
	}
	if read.table, err = guard.NewTable(routes); err != nil {
		return nil, fmt.Errorf("rules: %w", cli.InputError(err))
	}
	for _, name := range unruled {
		if _, err := read.table.Find("POST", "any", "/"+name); errors.Is(err, verify.ErrNoRule) {
			read.unruled = append(read.unruled, name)
		}
	}
	return read, nil
}

// readDescriptors reads a file with descriptors.
func readDescriptors(file string) (*descriptorpb.FileDescriptorSet, error) {
	data, err := cli.ReadFile(file, maxDescriptorSet)
	if err != nil {
		return nil, err
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(data, set); err != nil || len(set.GetFile()) == 0 {
		return nil, fmt.Errorf("%s is not a descriptor set, as buf build -o FILE writes it", file)
	}
	return set, nil
}

// checkResources checks that each rule names a resource of the audience, or none if the audience has only one.
func (s *Settings) checkResources(routes []guard.Route) error {
	if len(s.audience) == 0 {
		return nil // of grantor guard check and explain: a running guard has an audience
	}
	for _, route := range routes {
		public := route.Rule.String() == verify.Public().String()
		switch {
		case route.Resource != "" && !slices.Contains(s.audience, route.Resource):
			return fmt.Errorf("%s: the resource %s is not in audience, so no token would do", route.Source, route.Resource)
		case route.Resource == "" && len(s.audience) > 1 && !public:
			return fmt.Errorf("%s: audience has several resources; name the one that this is with resource: in a file of rules, or run a guard for each", route.Source)
		}
	}
	return nil
}
