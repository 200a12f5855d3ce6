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
	"github.com/grantorhq/grantor/cmd/grantor/secretmanager"
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

// options are the settings and flags of grantor apply.
type options struct {
	storage.Settings
	// Connection identifies the running issuer.
	remote.Connection

	// shared are settings that the file of settings may have although the command does not.
	shared        settings.Names
	file          string
	dryRun, prune bool
	// useIssuer says to apply the file through the issuer instead of Redis.
	useIssuer bool
	// errOut receives errors other than the one that the command returns.
	errOut io.Writer
}

// NewCommand returns grantor apply. Its file of settings may also have the settings in shared.
func NewCommand(shared settings.Names) *cobra.Command {
	s := options{shared: shared}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the registered clients and resources equal to a file",
		Long: `Create the resources, trusted issuers, workloads and clients that a file lists, change those that differ, and print what was
done. Applying the same file again changes nothing. An error in the file is reported with its line, and nothing is applied.

With --redis and the key-encryption key the file is applied to Redis directly; this is how the first administrator is
registered. With --issuer or --profile a running issuer applies it. That requires a client with the scopes
grantor:clients.write and grantor:resources.write, with --prune also grantor:clients.read, for workloads grantor:trust.write,
every scope "grantor:…" that a listed client has or gets, and to change a trusted issuer all of them. If the environment has both GRANTOR_REDIS and GRANTOR_ISSUER, as that of grantor serve has,
the file is applied to Redis.`,
		Example: `  grantor apply -f clients.yaml --redis redis://localhost:6379 --key-encryption-key-file kek
  grantor apply -f clients.yaml --issuer https://auth.example.com --client-id administrator --dry-run
  grantor apply -f clients.yaml --profile prod --prune`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fmt.Errorf("the file follows -f: grantor apply -f %s", cli.Printable(args[0]))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := s.run(cmd)
			if err == nil && s.dryRun {
				cmd.PrintErrln("dry run: nothing was done")
			}
			return err
		},
	}
	flags := cmd.Flags()
	set := settings.NewSet(flags)
	s.Settings.Declare(set)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return s.prepare(cmd.Flags(), set) }
	s.Connection.Declare(flags, "")
	flags.StringVarP(&s.file, "file", "f", "", "`file` with clients and resources, in YAML")
	flags.BoolVar(&s.dryRun, "dry-run", false, "print what would be done and do nothing")
	flags.BoolVar(&s.prune, "prune", false, "remove what the file does not list")
	return cmd
}

// prepare resolves the settings and determines whether they mean a Redis or an issuer. The command line takes
// precedence over the other sources.
func (s *options) prepare(flags *pflag.FlagSet, set *settings.Set) error {
	if err := set.Resolve(s.shared); err != nil {
		return err
	}
	byIssuer := settings.OnCommandLine(flags, "issuer") || settings.OnCommandLine(flags, "profile")
	if byIssuer && settings.OnCommandLine(flags, "redis") {
		return cli.SettingError("redis, issuer, profile", errors.New("a file is applied to Redis or by an issuer, not both"))
	}
	s.useIssuer = byIssuer || (s.Redis == "" && (s.Issuer != "" || s.ProfileName != ""))
	if !s.useIssuer {
		return nil
	}
	return s.Fill(flags)
}

func (s *options) run(cmd *cobra.Command) error {
	switch {
	case s.file == "":
		return cli.SettingError("file", errors.New("is required: the file to apply"))
	case !s.useIssuer && s.Redis == "":
		return cli.SettingError("redis, issuer", errors.New("one is required: the URL of the Redis, or that of a running issuer"))
	}
	s.errOut = cmd.ErrOrStderr()
	wanted, err := manifest.Read(cmd.Context(), s.file, secretmanager.Read)
	if err != nil {
		return cli.InputError(err)
	}
	if s.prune && len(wanted.Clients)+len(wanted.Resources) == 0 {
		return cli.SettingError("prune", errors.New("the file lists nothing, so everything would be removed"))
	}
	report := func(c registry.Change) { _, _ = fmt.Fprintln(cmd.OutOrStdout(), describe(c)) }
	if s.useIssuer {
		return s.applyRemotely(cmd, wanted, report)
	}
	return s.applyDirectly(cmd.Context(), wanted, report)
}

// applyDirectly applies a manifest to the Redis of the settings.
func (s *options) applyDirectly(ctx context.Context, wanted *manifest.File, report func(registry.Change)) error {
	client, store, err := s.OpenQuietly()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
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
		Clients: store, Resources: store, Trust: store, Hasher: hasher, Algorithms: algorithms, Now: time.Now,
		Confirm: service.Confirm(store, time.Now),
	}).As(registry.Unlimited())
	err = wanted.Apply(ctx, editor, registry.ApplyOptions{DryRun: s.dryRun, Prune: s.prune}, func(c registry.Change) {
		report(c)
		changes = append(changes, c)
	})
	err = s.Failure(err)
	if s.dryRun {
		return err
	}
	defer cli.Uninterrupted(ctx)() // also for the changes before an interruption
	return errors.Join(err, s.Failure(s.audit(ctx, store, changes)))
}

// audit records the audit events of changes that no issuer made.
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
	// A recorder that stops writes its pending events first. Here it stops at once.
	stopped, stop := context.WithCancel(ctx)
	stop()
	for chunk := range slices.Chunk(changes, 1000) {
		for _, c := range chunk {
			admin.Applied(ctx, events, telemetry.Administrator{}, c)
		}
		if err := events.Run(stopped); err != nil {
			return err
		}
	}
	return nil
}

// pepper returns the key of the stored secrets and records, and the algorithms of the signing keys.
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
		return keys.NewKEK(), nil, nil // nothing is stored yet, and nothing is written
	}
	if err == nil && pepper == nil {
		pepper, algorithms, err = keys.Prepare(ctx, store, sealer, storage.StartupGrace)
	}
	if err != nil {
		return nil, nil, s.Failure(err)
	}
	return pepper, algorithms, nil
}

// describe returns a change as one line.
func describe(c registry.Change) string {
	line := fmt.Sprintf("%-9s %s %s", c.Action, c.Kind, c.ID)
	if len(c.Fields()) > 0 {
		line += " (" + strings.Join(c.Fields(), ", ") + ")"
	}
	return line
}
