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

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
)

// applySettings are all settings of `grantor apply`.
type applySettings struct {
	storeSettings
	file          string
	dryRun, prune bool
}

func newApplyCommand() *cobra.Command {
	var s applySettings
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the registered clients and resources equal to a file",
		Long: `Create the clients and resources that a file names, change those that differ, and print what was done.
Applying the same file again changes nothing. Anything wrong in the file is told with its line, and nothing is applied.`,
		Args:    cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error { return resolve(cmd.Flags()) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := s.run(cmd.Context(), cmd.OutOrStdout())
			if err == nil && s.dryRun {
				cmd.PrintErrln("dry run: nothing was done")
			}
			return err
		},
	}
	flags := cmd.Flags()
	s.declare(flags)
	flags.StringVarP(&s.file, "file", "f", "", "`file` with clients and resources, in YAML")
	flags.BoolVar(&s.dryRun, "dry-run", false, "print what would be done and do nothing")
	flags.BoolVar(&s.prune, "prune", false, "remove the clients and resources that the file does not name")
	return cmd
}

func (s *applySettings) run(ctx context.Context, out io.Writer) error {
	if s.file == "" {
		return settingError("file", errors.New("is required: the file to apply"))
	}
	redis.SetLogger(redisLog{slog.New(slog.DiscardHandler)}) // what fails is told by the command itself
	wanted, err := readManifest(s.file)
	if err != nil {
		return err
	}
	if s.prune && len(wanted.Clients)+len(wanted.Resources) == 0 {
		return settingError("prune", errors.New("the file names nothing, so everything would be removed"))
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	store, err := s.open(client)
	if err != nil {
		return err
	}
	sealer, err := s.sealer()
	if err != nil {
		return err
	}
	if sealer == nil {
		return errNoKEK
	}
	pepper, algorithms, err := keys.Peek(ctx, store, sealer)
	if err != nil {
		return settingError("redis", err)
	}
	if pepper == nil {
		// Making the ring is left to serve: a running replica may hold the one that this Redis has lost.
		if slices.ContainsFunc(wanted.Clients, func(c registry.Wanted) bool { return registry.Generated(c.Secret) }) {
			return settingError("redis", errors.New("there is no key ring yet, which generated secrets need: start grantor serve, then apply"))
		}
		pepper = keys.NewKEK() // hashes nothing: chosen secrets have no part in it
	}
	hasher, err := registry.NewHasher(pepper)
	if err != nil {
		return err
	}
	return applyManifest(ctx, wanted, &registry.Applier{
		Clients: store, Resources: store, Hasher: hasher, Algorithms: algorithms, Now: time.Now, DryRun: s.dryRun, Prune: s.prune,
	}, func(c registry.Change) { _, _ = fmt.Fprintln(out, describe(c)) })
}

// applyManifest applies a manifest and tells each change.
func applyManifest(ctx context.Context, wanted *manifest, applier *registry.Applier, tell func(registry.Change)) error {
	changes, err := applier.Apply(ctx, wanted.Manifest)
	for _, change := range changes {
		tell(change)
	}
	return wanted.locate(err)
}

var errNoKEK = settingError("key-encryption-key-file", errors.New("is required: a file with 32 random bytes in base64, as of: openssl rand -base64 32"))

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
	return store, nil
}
