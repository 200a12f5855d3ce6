package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/admin"
	"github.com/grantorhq/grantor/cmd/grantor/apply"
	"github.com/grantorhq/grantor/cmd/grantor/audit"
	"github.com/grantorhq/grantor/cmd/grantor/bench"
	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/doctor"
	"github.com/grantorhq/grantor/cmd/grantor/guard"
	"github.com/grantorhq/grantor/cmd/grantor/kms"
	"github.com/grantorhq/grantor/cmd/grantor/migrate"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/serve"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/tokens"
	"github.com/grantorhq/grantor/cmd/grantor/trustcheck"
	"github.com/grantorhq/grantor/cmd/grantor/version"
)

// newCommand returns the command line, with all commands.
func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "grantor",
		Short:         "OAuth 2.0 tokens for services, over gRPC and REST",
		SilenceErrors: true, // main prints the error, once
		SilenceUsage:  true, // the list of all settings would hide which one is wrong
	}
	server := serve.NewCommand()
	shared := settings.NamesOf(server.Flags()) // one file of settings can serve all commands
	// The package of a new command joins a list of checkCommands in service/layers_test.go, and a depguard list in
	// .golangci.yml.
	root.AddCommand(
		server, serve.NewConfigCommand(), guard.NewCommand(),
		apply.NewCommand(shared), audit.NewCommand(shared), doctor.NewCommand(shared), migrate.NewCommand(),
		admin.NewClientCommand(), admin.NewResourceCommand(), admin.NewTrustCommand(trustcheck.NewCommand()),
		admin.NewKeyCommand(kms.NewWrapCommand(shared)),
		tokens.NewCommand(shared), bench.NewCommand(shared),
		version.NewCommand(), cli.NewExitCodesTopic(), remote.NewProfilesTopic(),
	)
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		return cli.UsageError(settings.CheckEnvironment(root.Commands(), remote.SecretVariable))
	}
	root.SetFlagErrorFunc(flagError)
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return fmt.Errorf("there is no command %q; grantor --help lists the commands", args[0])
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	checkHelp(root)
	cli.MarkUsage(root)
	return root
}

// checkHelp makes grantor help and --help report a misspelled command. By default cobra prints the help of the command
// before it, and grantor help succeeds.
func checkHelp(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if rest := cmd.Flags().Args(); len(rest) > 0 && cmd.HasSubCommands() {
			cmd.PrintErrln("grantor:", unknownCommand(cmd, rest))
		}
		help(cmd, args)
	})
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			cmd.Run, cmd.RunE = nil, helpOn
		}
	}
}

// unknownCommand returns the error that args[0] is no subcommand of cmd.
func unknownCommand(cmd *cobra.Command, args []string) error {
	return cli.UsageError(cmp.Or(cli.Misspelled(cmd, args), cmd.Args(cmd, args)))
}

// helpOn prints the help of the command that args name.
func helpOn(help *cobra.Command, args []string) error {
	cmd, rest, err := help.Root().Find(args)
	if err != nil {
		return cli.UsageError(err)
	}
	if len(rest) > 0 && cmd.HasSubCommands() {
		return unknownCommand(cmd, rest)
	}
	cmd.InitDefaultHelpFlag()
	return cmd.Help()
}

// flagError returns the error of an unknown flag without the value that was typed after it, which may be a secret.
func flagError(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return cli.SettingError("--"+wrong.GetFlag().Name, settings.ValueError(wrong.GetFlag(), wrong.GetValue(), wrong.Unwrap()))
	}
	switch {
	case !ok:
		return cli.UsageError(err)
	case len(cmd.Flags().Args()) > 0 && cmd.HasSubCommands(): // the flag is that of the command which is misspelled
		return unknownCommand(cmd, cmd.Flags().Args())
	case cmd.HasSubCommands() && !hasSettings(cmd):
		return cli.UsageError(errors.New("flags follow the command; see " + cmd.CommandPath() + " --help"))
	case unknown.GetSpecifiedName() == "client-secret":
		return cli.UsageError(errors.New("there is no flag --client-secret, because other users could read it; " + remote.SecretWays))
	case unknown.GetSpecifiedShortnames() != "":
		return cli.UsageError(fmt.Errorf("there is no flag -%.1s; an id that begins with - must follow --, at the end", unknown.GetSpecifiedName()))
	}
	return cli.UsageError(fmt.Errorf("there is no flag --%s", unknown.GetSpecifiedName()))
}

// hasSettings reports whether a command has flags besides --help, as one does that can run without a subcommand.
func hasSettings(cmd *cobra.Command) bool {
	found := false
	cmd.LocalNonPersistentFlags().VisitAll(func(flag *pflag.Flag) { found = found || flag.Name != "help" })
	return found
}
