// Package apply implements grantor apply, which makes the registered clients and resources equal to a file: in Redis, or
// through the administration of a running issuer.
package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/storage"
	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/admin"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/telemetry"
)

// options are all settings of `grantor apply`.
type options struct {
	storage.Settings
	remote.Connection

	shared        settings.Names
	file          string
	dryRun, prune bool
	// remote says that a running issuer is asked, and not its Redis.
	remote bool
	// errOut gets what is wrong beside the command's own error.
	errOut io.Writer
}

// NewCommand makes the command. shared are settings that its file may have beside its own.
func NewCommand(shared settings.Names) *cobra.Command {
	s := options{shared: shared}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the registered clients and resources equal to a file",
		Long: `Create the clients and resources that a file names, change those that differ, and print what was done.
Applying the same file again changes nothing. Anything wrong in the file is told with its line, and nothing is applied.

With --redis and the key-encryption key the file is applied to the Redis directly; that is how the first administrator is
made. With --issuer or --profile it is applied by a running issuer, for a client with the scopes grantor:clients.write and
grantor:resources.write, with --prune also grantor:clients.read, and every scope "grantor:…" that a client in question has
or gets. Where the environment has both GRANTOR_REDIS and GRANTOR_ISSUER, as that of grantor serve has, the Redis is meant.`,
		Example: `  grantor apply -f clients.yaml --redis redis://localhost:6379 --key-encryption-key-file kek
  grantor apply -f clients.yaml --issuer https://auth.example.com --client-id administrator --dry-run
  grantor apply -f clients.yaml --profile prod --prune`,
		Args:    cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error { return s.prepare(cmd.Flags()) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := s.run(cmd)
			if err == nil && s.dryRun {
				cmd.PrintErrln("dry run: nothing was done")
			}
			return err
		},
	}
	flags := cmd.Flags()
	s.Settings.Declare(flags)
	s.Connection.Declare(flags, "")
	flags.StringVarP(&s.file, "file", "f", "", "`file` with clients and resources, in YAML")
	flags.BoolVar(&s.dryRun, "dry-run", false, "print what would be done and do nothing")
	flags.BoolVar(&s.prune, "prune", false, "remove the clients and resources that the file does not name")
	return cmd
}

// prepare reads the settings and finds out whom they mean. What the command line says wins over what stands elsewhere.
func (s *options) prepare(flags *pflag.FlagSet) error {
	direct, remote := flags.Changed("redis"), flags.Changed("issuer") || flags.Changed("profile")
	if direct && remote {
		return cli.SettingError("redis, issuer, profile", errors.New("a file is applied to a Redis or by an issuer, not both"))
	}
	if err := settings.Resolve(flags, s.shared); err != nil {
		return err
	}
	s.remote = remote || (s.Redis == "" && (s.Issuer != "" || s.ProfileName != ""))
	if !s.remote {
		return nil
	}
	return s.Fill(flags)
}

func (s *options) run(cmd *cobra.Command) error {
	switch {
	case s.file == "":
		return cli.SettingError("file", errors.New("is required: the file to apply"))
	case !s.remote && s.Redis == "":
		return cli.SettingError("redis, issuer", errors.New("one is required: the URL of the Redis, or that of a running issuer"))
	}
	s.errOut = cmd.ErrOrStderr()
	wanted, err := manifest.Read(s.file)
	if err != nil {
		return cli.WithExit(cli.ExitInvalid, err)
	}
	if s.prune && len(wanted.Clients)+len(wanted.Resources) == 0 {
		return cli.SettingError("prune", errors.New("the file names nothing, so everything would be removed"))
	}
	tell := func(c registry.Change) { _, _ = fmt.Fprintln(cmd.OutOrStdout(), describe(c)) }
	if s.remote {
		return s.applyRemotely(cmd, wanted, tell)
	}
	return s.applyDirectly(cmd.Context(), wanted, tell)
}

// applyDirectly applies a manifest to the Redis of the settings.
func (s *options) applyDirectly(ctx context.Context, wanted *manifest.File, tell func(registry.Change)) error {
	storage.SetRedisLog(slog.New(slog.DiscardHandler)) // what fails is told by the command itself
	client, err := s.Connect()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	store, err := s.Open(client)
	if err != nil {
		return err
	}
	pepper, algorithms, err := s.pepper(ctx, store)
	if err != nil {
		return err
	}
	store.Authenticate(keys.RecordKey(pepper))
	hasher, err := clientsecret.NewHasher(pepper)
	if err != nil {
		return err
	}
	var changes []registry.Change
	editor := registry.NewEditor(registry.Config{
		Clients: store, Resources: store, Hasher: hasher, Algorithms: algorithms, Now: time.Now,
		Confirm: service.Confirm(store, time.Now),
	}).As(registry.Unlimited())
	err = wanted.Apply(ctx, editor, registry.ApplyOptions{DryRun: s.dryRun, Prune: s.prune}, func(c registry.Change) {
		tell(c)
		changes = append(changes, c)
	})
	if s.dryRun {
		return err
	}
	return errors.Join(err, s.audit(ctx, store, changes))
}

// audit keeps the audit events of changes that no issuer made.
func (s *options) audit(ctx context.Context, store *redisstore.Store, changes []registry.Change) error {
	trail := s.AuditSink(store)
	if trail == nil {
		return nil
	}
	events, err := telemetry.New(slog.New(slog.NewTextHandler(s.errOut, &slog.HandlerOptions{Level: slog.LevelError})), noop.Meter{}, nil, nil)
	if err != nil {
		return err
	}
	events.Keep(trail)
	// What waits when a recorder stops is kept; it stops at once here.
	stopped, stop := context.WithCancel(ctx)
	stop()
	for some := range slices.Chunk(changes, 1000) {
		for _, c := range some {
			admin.Applied(ctx, events, telemetry.Administrator{}, c)
		}
		if err := events.Run(stopped); err != nil {
			return err
		}
	}
	return nil
}

// pepper gives what the store's secrets and records are keyed by, and the algorithms of the signing keys there are.
func (s *options) pepper(ctx context.Context, store *redisstore.Store) ([]byte, []jwks.Algorithm, error) {
	sealer, err := s.Sealer(ctx)
	if err != nil {
		return nil, nil, err
	}
	if sealer == nil {
		return nil, nil, storage.ErrNoKEK
	}
	pepper, algorithms, err := keys.Peek(ctx, store, sealer)
	if err == nil && pepper == nil && s.dryRun {
		return keys.NewKEK(), nil, nil // there is nothing to read yet, and nothing is written
	}
	if err == nil && pepper == nil {
		pepper, algorithms, err = keys.Prepare(ctx, store, sealer, storage.StartupGrace)
	}
	if err != nil {
		return nil, nil, cli.SettingError("redis", err)
	}
	return pepper, algorithms, nil
}

// describe words what applying a manifest did to one thing.
func describe(c registry.Change) string {
	line := fmt.Sprintf("%-9s %s %s", c.Action, c.Kind, c.ID)
	if len(c.Fields()) > 0 {
		line += " (" + strings.Join(c.Fields(), ", ") + ")"
	}
	return line
}
