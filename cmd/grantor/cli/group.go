package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// MarkUsage makes wrong arguments of a command, and of those below it, errors of usage.
func MarkUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error { return UsageError(check(cmd, args)) }
	}
	for _, below := range cmd.Commands() {
		MarkUsage(below)
	}
}

// NewGroup makes a command that only has others below it.
func NewGroup(name, short, long string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Long:  long,
		// cobra would answer a misspelt command with the help and success, and quote what may be a token.
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, one := range below {
				names = append(names, one.Name())
			}
			last := len(names) - 1
			return fmt.Errorf("%s: the commands are %s and %s", name, strings.Join(names[:last], ", "), names[last])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(below...)
	return cmd
}

// CompleteFlag gives the shell the values of a flag.
func CompleteFlag(cmd *cobra.Command, flag string, values ...string) {
	// It fails only for a flag that there is not, or that has them already.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// WithPreRun has something looked at before the command talks to anybody.
func WithPreRun(cmd *cobra.Command, look func(cmd *cobra.Command, args []string) error) *cobra.Command {
	prepare := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := prepare(cmd, args); err != nil {
			return err
		}
		return look(cmd, args)
	}
	return cmd
}

// About names what a call that failed was about.
func About(kind, id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", kind, Printable(id), err)
}
