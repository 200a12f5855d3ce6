// Package settings fills the flags of a command from the environment and from a file. A flag wins over the environment, and
// the environment over the file; each value keeps the place that it came from.
package settings

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
)

// Names is a set of settings, by their names.
type Names map[string]bool

// NamesOf returns the names of the flags.
func NamesOf(flags *pflag.FlagSet) Names {
	names := make(Names)
	flags.VisitAll(func(flag *pflag.Flag) { names[flag.Name] = true })
	return names
}

// Resolve fills what no flag set from the environment, else from the file where there is a flag for one. others are the
// settings that the file may have although the command does not: one file serves grantor serve and the other commands.
func Resolve(flags *pflag.FlagSet, others Names) error {
	var values map[string]line
	file := flags.Lookup("config")
	if file != nil {
		err := fromEnvironment(file)
		if err == nil {
			values, err = readFile(file.Value.String(), flags, others)
		}
		if err != nil {
			return cli.UsageError(err)
		}
	}
	var err error
	flags.VisitAll(func(flag *pflag.Flag) {
		if err == nil && !flag.Changed && flag != file {
			err = fromEnvironment(flag)
		}
		if line, ok := values[flag.Name]; ok && err == nil && !flag.Changed {
			if set := flag.Value.Set(line.value); set != nil {
				err = fmt.Errorf("%s: %w", line.place, set)
			}
			flag.Changed = true
			flag.Annotations = map[string][]string{ofFile: {line.place}}
		}
	})
	return cli.UsageError(err)
}

// The marks of a flag that the command line did not set: by the environment, or by a file, whose place is with it.
const (
	ofEnvironment = "environment"
	ofFile        = "file"
)

// CheckEnvironment refuses a GRANTOR_ variable that no command knows: a misspelt one could leave TLS off without a word.
// Those that Kubernetes makes for a service whose name begins with grantor are passed over.
func CheckEnvironment(commands []*cobra.Command, others ...string) error {
	known := make(map[string]bool)
	for _, name := range others {
		known[name] = true
	}
	var learn func(commands []*cobra.Command)
	learn = func(commands []*cobra.Command) {
		for _, command := range commands {
			command.Flags().VisitAll(func(flag *pflag.Flag) { known[Variable(flag)] = true })
			learn(command.Commands())
		}
	}
	learn(commands)
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "GRANTOR_") && !known[name] && !ofKubernetes(name) {
			return fmt.Errorf("%s: there is no such setting", name)
		}
	}
	return nil
}

// serviceVariable is how the variables go on that Kubernetes makes for a service, after the service's name:
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
var serviceVariable = regexp.MustCompile(`^_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// ofKubernetes reports whether Kubernetes made a variable for a service. It makes all that a service has, so one without
// the service's host is somebody's mistake, such as GRANTOR_HTTP_PORT.
func ofKubernetes(name string) bool {
	for i, c := range name {
		if c == '_' && serviceVariable.MatchString(name[i:]) && os.Getenv(name[:i]+"_SERVICE_HOST") != "" {
			return true
		}
	}
	return false
}

// Variable names the variable of a setting.
func Variable(flag *pflag.Flag) string { return "GRANTOR_" + strings.ToUpper(Key(flag)) }

func Key(flag *pflag.Flag) string { return strings.ReplaceAll(flag.Name, "-", "_") }

func fromEnvironment(flag *pflag.Flag) error {
	value, ok := os.LookupEnv(Variable(flag))
	if !ok || flag.Changed || flag.Name == "help" {
		return nil
	}
	if err := flag.Value.Set(value); err != nil {
		return fmt.Errorf("%s: %w", Variable(flag), err)
	}
	flag.Changed = true
	flag.Annotations = map[string][]string{ofEnvironment: nil}
	return nil
}

// OnCommandLine reports whether the command line sets a flag.
func OnCommandLine(flags *pflag.FlagSet, name string) bool {
	flag := flags.Lookup(name)
	return flag.Changed && flag.Annotations == nil
}

// line is a setting as a file gives it.
type line struct {
	value string
	// place is file:line: name.
	place string
}

// readFile reads flag name → value. No path is no settings. It ignores others.
func readFile(path string, flags *pflag.FlagSet, others Names) (map[string]line, error) {
	if path == "" {
		return nil, nil
	}
	doc, err := yamldoc.Read(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	names := make(map[string]*pflag.Flag)
	flags.VisitAll(func(flag *pflag.Flag) { names[Key(flag)] = flag })
	delete(names, "help")
	delete(names, "config")
	values := make(map[string]line)
	err = doc.Fields(doc.Root, func(key string, node *yaml.Node) error {
		flag, ok := names[key]
		if meant := strings.ReplaceAll(key, "-", "_"); !ok && names[meant] != nil {
			return doc.Errorf(node, "there is no setting %q; in a file it is %s", key, meant)
		}
		if !ok && others[strings.ReplaceAll(key, "_", "-")] && !strings.Contains(key, "-") {
			return nil
		}
		if !ok {
			return doc.Errorf(node, "there is no setting %q", key)
		}
		value, err := doc.ScalarOrList(node)
		values[flag.Name] = line{strings.Join(value, ","), doc.Place(node) + ": " + key}
		return err
	})
	return values, err
}

func Source(flag *pflag.Flag) string {
	if place, ok := flag.Annotations[ofFile]; ok {
		return strings.TrimSuffix(place[0], ": "+strings.ReplaceAll(flag.Name, "-", "_"))
	}
	if _, ok := flag.Annotations[ofEnvironment]; ok {
		return Variable(flag)
	}
	if flag.Changed {
		return "flag"
	}
	return "default"
}
