package main

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// newCommand makes the whole command line.
func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "grantor",
		Short:         "OAuth 2.0 tokens for services, over gRPC and REST",
		SilenceErrors: true, // main prints the error, once
		SilenceUsage:  true, // a wrong setting is no reason to print every setting
	}
	root.AddCommand(newServeCommand(), newApplyCommand(), newTokenCommand(), newVersionCommand())
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return checkEnvironment(root.Commands()) }
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version and what it was built with",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return errors.New("this binary has no build information")
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "grantor %s %s\n", info.Main.Version, info.GoVersion)
			return err
		},
	}
}
