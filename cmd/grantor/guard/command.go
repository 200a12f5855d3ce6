package guard

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// NewCommand returns grantor guard.
func NewCommand() *cobra.Command {
	var s Settings
	cmd := &cobra.Command{
		Use:   "guard",
		Short: "Guard services behind a proxy: answer whether a request may pass",
		Long: `Guard services in any language behind a proxy. For each request the proxy asks whether it may pass: Envoy, and proxies built
on it, over gRPC (envoy.service.auth.v3.Authorization), and nginx, HAProxy, Traefik and Caddy with forward-auth over HTTP, at
/authorize. The guard checks the access token locally, with the issuer's keys, and follows the issuer's revocations. A request
that no rule allows is refused.

The rules are those of a file, of option (grantor.v1.rule) in protos, or of both:

  rules:
    - path: /orders/{id}
      methods: [GET]
      scopes: [orders.read]
    - grpc: orders.v1.Orders/*
      scopes: [orders.write]
    - path: /health
      public: true

Each setting below comes from its flag, else from the environment variable GRANTOR_NAME (in capitals, with _ for -), else
from the file that --config names.

On SIGHUP the settings are read again. Those marked below take effect, and so do changed files of rules; for others that have
changed, the log says that they need a restart. If any setting or file is wrong, the log says which one and in which line, and
nothing changes.`,
		Example: `  grantor guard --issuer https://auth.example.com --audience https://orders.internal --rules rules.yaml --grpc-listen localhost:9191
  grantor guard check --rules rules.yaml --descriptor-set api.binpb
  grantor guard explain --rules rules.yaml GET https://orders.example.com/orders/7`,
		Args: cli.NoArgs("the file of rules follows --rules, that with settings --config"),
	}
	set := s.Declare(cmd.Flags())
	cmd.PreRunE = func(*cobra.Command, []string) error { return set.Resolve(nil) }
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		reloader, err := newReloader(cmd.Flags(), hangup)
		if err != nil {
			return err
		}
		server, err := New(cmd.Context(), &s, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		server.reloader = reloader
		slog.SetDefault(server.log) // package verify logs there
		cli.EndsItself(cmd.Context())
		return server.Run(cmd.Context())
	}
	cmd.AddCommand(newCheckCommand(), newExplainCommand())
	return cmd
}
