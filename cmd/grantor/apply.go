package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/grantorhq/grantor/service"
	"github.com/grantorhq/grantor/service/admin"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/telemetry"
)

// applySettings are all settings of `grantor apply`.
type applySettings struct {
	storeSettings
	connection

	file          string
	dryRun, prune bool
	// remote says that a running issuer is asked, and not its Redis.
	remote bool
	// errOut gets what is wrong beside the command's own error.
	errOut io.Writer
}

func newApplyCommand() *cobra.Command {
	var s applySettings
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
	s.storeSettings.declare(flags)
	s.connection.declare(flags, "")
	flags.StringVarP(&s.file, "file", "f", "", "`file` with clients and resources, in YAML")
	flags.BoolVar(&s.dryRun, "dry-run", false, "print what would be done and do nothing")
	flags.BoolVar(&s.prune, "prune", false, "remove the clients and resources that the file does not name")
	return cmd
}

// prepare reads the settings and finds out whom they mean. What the command line says wins over what stands elsewhere.
func (s *applySettings) prepare(flags *pflag.FlagSet) error {
	direct, remote := flags.Changed("redis"), flags.Changed("issuer") || flags.Changed("profile")
	if direct && remote {
		return settingError("redis, issuer, profile", errors.New("a file is applied to a Redis or by an issuer, not both"))
	}
	if err := resolve(flags); err != nil {
		return err
	}
	s.remote = remote || (s.redis == "" && (s.issuer != "" || s.profileName != ""))
	if !s.remote {
		return nil
	}
	return s.fill(flags)
}

func (s *applySettings) run(cmd *cobra.Command) error {
	switch {
	case s.file == "":
		return settingError("file", errors.New("is required: the file to apply"))
	case !s.remote && s.redis == "":
		return settingError("redis, issuer", errors.New("one is required: the URL of the Redis, or that of a running issuer"))
	}
	s.errOut = cmd.ErrOrStderr()
	wanted, err := readManifest(s.file)
	if err != nil {
		return withExit(exitInvalid, err)
	}
	if s.prune && len(wanted.Clients)+len(wanted.Resources) == 0 {
		return settingError("prune", errors.New("the file names nothing, so everything would be removed"))
	}
	tell := func(c registry.Change) { _, _ = fmt.Fprintln(cmd.OutOrStdout(), describe(c)) }
	if s.remote {
		return s.applyRemotely(cmd, wanted, tell)
	}
	return s.applyDirectly(cmd.Context(), wanted, tell)
}

// applyDirectly applies a manifest to the Redis of the settings.
func (s *applySettings) applyDirectly(ctx context.Context, wanted *manifest, tell func(registry.Change)) error {
	redis.SetLogger(redisLog{slog.New(slog.DiscardHandler)}) // what fails is told by the command itself
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	store, err := s.open(client)
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
	err = applyManifest(ctx, wanted, registry.NewEditor(registry.Config{
		Clients: store, Resources: store, Hasher: hasher, Algorithms: algorithms, Now: time.Now,
		Confirm: service.Confirm(store, time.Now),
	}).As(registry.Unlimited()), registry.ApplyOptions{DryRun: s.dryRun, Prune: s.prune}, func(c registry.Change) {
		tell(c)
		changes = append(changes, c)
	})
	if s.dryRun {
		return err
	}
	return errors.Join(err, s.audit(ctx, store, changes))
}

// audit keeps the audit events of changes that no issuer made.
func (s *applySettings) audit(ctx context.Context, store *redisstore.Store, changes []registry.Change) error {
	trail := s.trail(store)
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
func (s *applySettings) pepper(ctx context.Context, store *redisstore.Store) ([]byte, []jwks.Algorithm, error) {
	sealer, err := s.sealer(ctx)
	if err != nil {
		return nil, nil, err
	}
	if sealer == nil {
		return nil, nil, errNoKEK
	}
	pepper, algorithms, err := keys.Peek(ctx, store, sealer)
	if err == nil && pepper == nil && s.dryRun {
		return keys.NewKEK(), nil, nil // there is nothing to read yet, and nothing is written
	}
	if err == nil && pepper == nil {
		pepper, algorithms, err = keys.Prepare(ctx, store, sealer, settle)
	}
	if err != nil {
		return nil, nil, settingError("redis", err)
	}
	return pepper, algorithms, nil
}

// settle is how long a new key ring waits for a replica that holds the one which the Redis has lost: a replica whose Redis
// is back looks within a second.
const settle = 2 * time.Second

// applyManifest applies a manifest and tells each change.
func applyManifest(ctx context.Context, wanted *manifest, editor *registry.Editor, options registry.ApplyOptions, tell func(registry.Change)) error {
	changes, err := editor.Apply(ctx, wanted.Manifest, options)
	for _, change := range changes {
		tell(change)
	}
	return wanted.locate(err)
}

// connect makes a client for the Redis of the settings.
func (s *storeSettings) connect() (redis.UniversalClient, error) {
	if s.redis == "" {
		return nil, settingError("redis", errors.New("is required: the URL of the Redis, such as redis://localhost:6379"))
	}
	client, err := redisstore.Connect(s.redis)
	if err != nil {
		return nil, settingError("redis", err)
	}
	return client, nil
}

// open makes the store of the settings.
func (s *storeSettings) open(client redis.UniversalClient) (*redisstore.Store, error) {
	store, err := redisstore.New(client, s.redisPrefix, registry.MaxLifetime+time.Hour)
	if err != nil {
		return nil, settingError("redis-prefix", err)
	}
	if s.redisReplicas < 0 {
		return nil, settingError("revocation-replicas", errors.New("must not be negative"))
	}
	if s.auditEntries < 0 {
		return nil, settingError("audit-entries", errors.New("must not be negative"))
	}
	store.RequireReplicas(s.redisReplicas)
	return store, nil
}

// trail is where the audit events are kept; nil where they are not.
func (s *storeSettings) trail(store *redisstore.Store) telemetry.AuditSink {
	if s.auditEntries == 0 {
		return nil
	}
	return store.AuditTrail(s.auditEntries)
}
