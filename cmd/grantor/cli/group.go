package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// MarkUsage makes the argument errors of cmd and of its subcommands usage errors.
func MarkUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error { return UsageError(check(cmd, args)) }
	}
	for _, sub := range cmd.Commands() {
		MarkUsage(sub)
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
