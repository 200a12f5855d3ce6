package settings

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// prefix begins the name of each environment variable that a command reads.
const prefix = "GRANTOR_"

// Variable returns the name of the environment variable of a setting.
func Variable(flag *pflag.Flag) string { return prefix + strings.ToUpper(Key(flag)) }

func fromEnvironment(flag *pflag.Flag) error {
	value, ok := os.LookupEnv(Variable(flag))
	if !ok || flag.Changed || flag.Name == "help" {
		return nil
	}
	if err := flag.Value.Set(value); err != nil {
		return fmt.Errorf("%s: %w", Variable(flag), ValueError(flag, value, err))
	}
	flag.Changed = true
	annotate(flag, inEnvironment)
	return nil
}

// CheckEnvironment returns an error if the environment has a GRANTOR_ variable that is neither a setting of a command nor
// one of others: a misspelled variable could leave TLS off unnoticed. It ignores the variables that Kubernetes sets for a
// service whose name begins with grantor.
func CheckEnvironment(commands []*cobra.Command, others ...string) error {
	known := make(map[string]bool)
	for _, name := range others {
		known[name] = true
	}
	var collect func(commands []*cobra.Command)
	collect = func(commands []*cobra.Command) {
		for _, command := range commands {
			command.Flags().VisitAll(func(flag *pflag.Flag) { known[Variable(flag)] = true })
			collect(command.Commands())
		}
	}
	collect(commands)
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, prefix) && !known[name] && !isServiceVariable(name) {
			return fmt.Errorf("%s: there is no such setting", name)
		}
	}
	return nil
}

// serviceSuffix matches what follows the name of the service in the variables that Kubernetes sets for it:
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
var serviceSuffix = regexp.MustCompile(`^_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// isServiceVariable reports whether Kubernetes set a variable for a service. Kubernetes sets all variables of a service, so
// that one without the host of its service, such as GRANTOR_HTTP_PORT, is a mistake.
func isServiceVariable(name string) bool {
	for i, c := range name {
		if c == '_' && serviceSuffix.MatchString(name[i:]) && os.Getenv(name[:i]+"_SERVICE_HOST") != "" {
			return true
		}
	}
	return false
}
