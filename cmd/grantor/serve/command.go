package serve

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/storage"
)

// NewCommand returns grantor serve.
func NewCommand() *cobra.Command {
	var s Settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the issuer",
		Long: `Run the issuer. Each setting below comes from its flag, else from the environment variable GRANTOR_NAME (in capitals,
with _ for -), else from the file that --config names.

On SIGHUP the settings are read again. Those marked below take effect; for others that have changed, the log says that they
need a restart. If any setting is wrong, the log says which one, and nothing changes.`,
		Args: cli.NoArgs("the file with settings follows --config, that with clients and resources --apply"),
	}
	set := s.Declare(cmd.Flags())
	cmd.PreRunE = func(*cobra.Command, []string) error { return set.Resolve(nil) }
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !s.dev {
			s.startupGrace = storage.StartupGrace
		}
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		reloader, err := newReloader(cmd.Flags(), hangup)
		if err != nil {
			return err
		}
		defer TuneGC(DefaultGarbage)()
		if !s.monitoring.Profiling {
			skipHeapProfile()
		}
		server, err := New(cmd.Context(), &s, cmd.OutOrStdout(), cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		server.reloader = reloader
		cli.EndsItself(cmd.Context())
		return server.Run(cmd.Context())
	}
	return cmd
}
