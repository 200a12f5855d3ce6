// Package settings fills the flags of a command from the environment and from a file. A flag takes precedence over the
// environment, and the environment over the file; each value keeps the place that it came from.
package settings

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
)

// Names is a set of names of settings.
type Names map[string]bool

// NamesOf returns the names of the flags.
func NamesOf(flags *pflag.FlagSet) Names {
	names := make(Names)
	flags.VisitAll(func(flag *pflag.Flag) { names[flag.Name] = true })
	return names
}

// The annotations of a flag whose value is not from the command line: it is from the environment, or from the place in a
// file that the annotation has.
const (
	inEnvironment = "environment"
	inFile        = "file"
)

// Resolve sets each flag that the command line does not set from the environment, or else from the file that the flag
// --config names, if there is one. others are settings that the file may have although the command does not: one file can
// serve all commands.
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
				err = fmt.Errorf("%s: %w", line.place, ValueError(flag, line.value, set))
			}
			flag.Changed = true
			annotate(flag, inFile, line.place)
		}
	})
	return cli.UsageError(err)
}

// ValueError returns the error that a value is not of the type of its flag. It quotes the value once and bounds it. err is
// what Set returned, and the result for the types that are not listed.
func ValueError(flag *pflag.Flag, value string, err error) error {
	problem, ok := map[string]string{
		"bool":     "neither true nor false",
		"duration": "not a duration such as 30s, 5m or 1h",
		"float64":  "not a number",
		"int":      "not a whole number",
		"int64":    "not a whole number",
	}[flag.Value.Type()]
	switch {
	case !ok:
		return err
	case errors.Is(err, strconv.ErrRange):
		problem = "out of range"
	}
	return fmt.Errorf("%.100q is %s", value, problem)
}

func annotate(flag *pflag.Flag, name string, values ...string) {
	if flag.Annotations == nil {
		flag.Annotations = make(map[string][]string)
	}
	flag.Annotations[name] = values
}

// Key returns the key of a setting in a file.
func Key(flag *pflag.Flag) string { return strings.ReplaceAll(flag.Name, "-", "_") }

// OnCommandLine reports whether the command line sets a flag.
func OnCommandLine(flags *pflag.FlagSet, name string) bool {
	flag := flags.Lookup(name)
	_, environment := flag.Annotations[inEnvironment]
	_, file := flag.Annotations[inFile]
	return flag.Changed && !environment && !file
}

// Source returns where the value of a setting is from: file:line, the name of the variable, "flag" or "default".
func Source(flag *pflag.Flag) string {
	if place, ok := flag.Annotations[inFile]; ok {
		return strings.TrimSuffix(place[0], ": "+Key(flag))
	}
	if _, ok := flag.Annotations[inEnvironment]; ok {
		return Variable(flag)
	}
	if flag.Changed {
		return "flag"
	}
	return "default"
}

// line is a setting in a file.
type line struct {
	value string
	// place is "file:line: key".
	place string
}

// readFile reads the settings of a file, keyed by the names of their flags. It returns none if path is empty, and ignores
// the settings in others.
func readFile(path string, flags *pflag.FlagSet, others Names) (map[string]line, error) {
	if path == "" {
		return nil, nil
	}
	data, err := cli.ReadFile(path, yamldoc.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	doc, err := yamldoc.Parse(path, data)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	byKey := make(map[string]*pflag.Flag)
	flags.VisitAll(func(flag *pflag.Flag) { byKey[Key(flag)] = flag })
	delete(byKey, "help")
	delete(byKey, "config")
	values := make(map[string]line)
	err = doc.Fields(doc.Root, func(key string, node *yaml.Node) error {
		flag, ok := byKey[key]
		underscored := strings.ReplaceAll(key, "-", "_")
		switch {
		case ok:
			value, err := doc.ScalarOrList(node)
			values[flag.Name] = line{strings.Join(value, ","), doc.Place(node) + ": " + key}
			return err
		case byKey[underscored] != nil:
			return doc.Errorf(node, "there is no setting %q; in a file it is %s", key, underscored)
		case key == underscored && others[strings.ReplaceAll(key, "_", "-")]:
			return nil
		}
		return doc.Errorf(node, "there is no setting %q", key)
	})
	return values, err
}
