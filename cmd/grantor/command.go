package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newCommand makes the whole command line.
func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "grantor",
		Short:         "OAuth 2.0 tokens for services, over gRPC and REST",
		SilenceErrors: true, // main prints the error, once
		SilenceUsage:  true, // a wrong setting is no reason to print every setting
	}
	root.AddCommand(newServeCommand(), newApplyCommand(), newClientCommand(), newResourceCommand(), newKeyCommand(),
		newTokenCommand(), newAuditCommand(), newDoctorCommand(), newBenchCommand(), newImportCommand(), newConfigCommand(), newVersionCommand(), newExitCodesTopic(), newProfilesTopic())
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return usage(checkEnvironment(root.Commands())) }
	root.SetFlagErrorFunc(flagError)
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return fmt.Errorf("there is no command %q; grantor --help lists those that there are", args[0])
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	markUsage(root)
	return root
}

// markUsage makes wrong arguments of a command, and of those below it, errors of usage.
func markUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error { return usage(check(cmd, args)) }
	}
	for _, below := range cmd.Commands() {
		markUsage(below)
	}
}

// newGroup makes a command that only has others below it.
func newGroup(name, short, long string, below ...*cobra.Command) *cobra.Command {
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

// flagError names a flag that is not there without what was typed after it: that may be a secret.
func flagError(_ *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	switch {
	case !ok:
		return usage(err)
	case unknown.GetSpecifiedName() == "client-secret":
		return usage(errors.New("there is no flag --client-secret, as others could read it; " + secretWays))
	case unknown.GetSpecifiedShortnames() != "":
		return usage(fmt.Errorf("there is no flag -%.1s; an id that begins with - goes behind --, at the end", unknown.GetSpecifiedName()))
	}
	return usage(fmt.Errorf("there is no flag --%s", unknown.GetSpecifiedName()))
}
