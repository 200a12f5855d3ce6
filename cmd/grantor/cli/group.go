package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// MarkUsage makes the argument errors of cmd and of its subcommands usage errors. For a misspelled subcommand they suggest
// the one that is meant.
func MarkUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			return UsageError(cmp.Or(Misspelled(cmd, args), check(cmd, args)))
		}
	}
	for _, sub := range cmd.Commands() {
		MarkUsage(sub)
	}
}

// Misspelled returns an error that suggests which subcommand of cmd the first argument misspells, or nil if it resembles
// none. The error quotes only an argument that resembles one, because another may be a token or a secret.
func Misspelled(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || args[0] == "" || !cmd.HasSubCommands() {
		return nil
	}
	var similar []string
	for distance := 1; len(similar) == 0 && distance <= 2; distance++ { // in letters
		cmd.SuggestionsMinimumDistance = distance
		similar = cmd.SuggestionsFor(args[0])
	}
	if len(similar) == 0 {
		return nil
	}
	group := ""
	if cmd.HasParent() {
		group = strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ") + ": "
	}
	return fmt.Errorf("%sthere is no command %q; did you mean %s?", group, args[0], strings.Join(similar, " or "))
}

// NoArgs returns the validation of a command without arguments. Its error says what to write instead, such as a flag.
func NoArgs(instead string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return fmt.Errorf("%s takes no argument; %s", cmd.Name(), instead)
	}
}

// NewGroup returns a command that only has subcommands.
func NewGroup(name, short, long string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Long:  long,
		// By default cobra prints the help and succeeds for a misspelled subcommand. It would also quote the argument, which
		// may be a token.
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, sub := range subs {
				names = append(names, sub.Name())
			}
			last := len(names) - 1
			return fmt.Errorf("%s: the commands are %s and %s", name, strings.Join(names[:last], ", "), names[last])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(subs...)
	return cmd
}

// CompleteFlag registers the values of a flag for shell completion.
func CompleteFlag(cmd *cobra.Command, flag string, values ...string) {
	// Registering fails only for an unknown flag, or for one that has completions already.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// WithPreRun adds a check that runs after the other preparations of cmd and before any network call. It returns cmd.
func WithPreRun(cmd *cobra.Command, check func(cmd *cobra.Command, args []string) error) *cobra.Command {
	prepare := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := prepare(cmd, args); err != nil {
			return err
		}
		return check(cmd, args)
	}
	return cmd
}

// About prefixes err with the kind and the ID of what the failed call concerned. It returns nil if err is nil.
func About(kind, id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", kind, Printable(id), err)
}
