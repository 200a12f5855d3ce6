// Package doctor implements grantor doctor, which inspects a deployment and its Redis and says what to do. It changes nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/kms"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/storage"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
)

// options are all settings of `grantor doctor`. Those that grantor serve has too say which deployment is looked at.
type options struct {
	storage.Settings
	// shared are settings that the file may have beside these.
	shared settings.Names
	issuer string
	// keyRotation and maxStaleness are what the replicas are held against that tell of none themselves.
	keyRotation, maxStaleness time.Duration

	profileName string
	// redisUser is the replicas' user of the Redis; empty for the one that doctor itself is.
	redisUser string
	// opsPorts are the URLs of replicas' operations ports.
	opsPorts        []string
	skip            []string
	strict, verbose bool
	output          string
	timeout         time.Duration
	clients         int
	// now is the clock of this machine.
	now func() time.Time
}

// sharedWithServe are the settings that both commands have.
var sharedWithServe = []string{
	"config", "redis", "redis-prefix", "key-encryption-key", "key-encryption-key-file", "previous-key-encryption-key",
	"previous-key-encryption-key-file", kms.URLSetting, "revocation-replicas", "issuer",
}

// NewCommand makes the command. shared are settings that its file may have beside its own.
func NewCommand(shared settings.Names) *cobra.Command {
	return (&options{shared: shared, now: time.Now}).command()
}

func (s *options) command() *cobra.Command {
	serve := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	set := s.declareShared(serve)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at a running deployment and its Redis, and say what to do",
		Long: `Look at a running deployment and say what is wrong with it, and what to do: the Redis, the replicas, the signing keys, the
records of the clients and, with an issuer's URL, what callers see from outside. Nothing is changed anywhere.

The settings that it shares with grantor serve may stand in the same file and environment. Without the key-encryption key
the key ring and the clients are not looked at. All checks are in docs/doctor.md.

The exit code is 0 when nothing was found that is worse than a warning, with --strict than a note, and 1 otherwise.`,
		Example: `  grantor doctor --redis redis://localhost:6379 --key-encryption-key-file kek
  grantor doctor --config grantor.yaml --replica http://10.0.0.1:8082 --replica http://10.0.0.2:8082
  grantor doctor --config grantor.yaml --strict --skip redis.alone,replica.alone -o json`,
		Args: cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := set.Resolve(s.shared); err != nil {
				return err
			}
			return s.prepare(cmd.Flags(), serve.Changed("issuer"))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	flags := cmd.Flags()
	for _, name := range sharedWithServe {
		flags.AddFlag(serve.Lookup(name))
	}
	flags.StringVar(&s.profileName, "profile", "", "`name` of a profile whose issuer is looked at; see grantor help profiles")
	flags.StringVar(&s.redisUser, "redis-user", "", "`name` of the replicas' user of the Redis, whose rights are looked at; default: the one of redis")
	flags.StringSliceVar(&s.opsPorts, "replica", nil, "`URL` of a replica's operations port, such as http://10.0.0.1:8082; may be given several times")
	flags.StringSliceVar(&s.skip, "skip", nil, "`checks` to leave out, by their ids")
	flags.BoolVar(&s.strict, "strict", false, "end with code 1 for warnings too")
	flags.BoolVarP(&s.verbose, "verbose", "v", false, "list also the checks that found nothing")
	flags.StringVarP(&s.output, "output", "o", "text", "`form` of the output: text for people, json for scripts")
	flags.DurationVar(&s.timeout, "timeout", time.Minute, "`time` that everything may take")
	flags.IntVar(&s.clients, "clients", 10_000, "`number` of clients that are looked at")
	cli.CompleteFlag(cmd, "output", "text", "json")
	return cmd
}

// declareShared adds the settings that are those of grantor serve. The last two have no flag of the command: they are in
// the file or the environment of grantor serve, or nowhere.
func (s *options) declareShared(flags *pflag.FlagSet) *settings.Set {
	set := settings.NewSet(flags)
	s.Settings.Declare(set)
	flags.StringVar(&s.issuer, "issuer", "", "`URL` of this issuer: the iss of its tokens and the base of the REST API")
	flags.DurationVar(&s.keyRotation, "key-rotation", 30*24*time.Hour, "`time` for which a key signs")
	flags.DurationVar(&s.maxStaleness, "max-staleness", 30*time.Second, "`time` for which tokens are issued without contact to Redis")
	return set
}

// prepare checks the settings. issuer says that one is given already.
func (s *options) prepare(flags *pflag.FlagSet, issuer bool) error {
	if err := settings.Resolve(without(flags, sharedWithServe), nil); err != nil {
		return err
	}
	if s.output != "text" && s.output != "json" {
		return cli.SettingError("output", fmt.Errorf("%.20q is neither text nor json", s.output))
	}
	for _, id := range s.skip {
		if !slices.ContainsFunc(checks, func(c check) bool { return c.ID == id }) {
			return cli.SettingError("skip", fmt.Errorf("there is no check %.40q; docs/doctor.md lists them", id))
		}
	}
	if s.timeout <= 0 || s.clients < 0 {
		return cli.SettingError("timeout, clients", errors.New("must be positive"))
	}
	for _, port := range s.opsPorts {
		if u, err := url.Parse(port); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
			return cli.SettingError("replica", errors.New("is not a URL such as http://10.0.0.1:8082"))
		}
	}
	if s.profileName != "" && (!issuer || settings.OnCommandLine(flags, "profile")) && !settings.OnCommandLine(flags, "issuer") {
		issuer, err := remote.ProfileIssuer(s.profileName)
		if err != nil {
			return cli.SettingError("profile", err)
		}
		s.issuer = issuer
	}
	if s.issuer != "" {
		if err := oauth.SecureURL(s.issuer); err != nil {
			return cli.SettingError("issuer", err)
		}
	}
	return nil
}

// without gives the flags but those of the names.
func without(flags *pflag.FlagSet, names []string) *pflag.FlagSet {
	rest := pflag.NewFlagSet("own", pflag.ContinueOnError)
	flags.VisitAll(func(flag *pflag.Flag) {
		if !slices.Contains(names, flag.Name) {
			rest.AddFlag(flag)
		}
	})
	return rest
}

func (s *options) run(cmd *cobra.Command) error {
	found, err := s.examine(cmd.Context())
	if err != nil {
		return err
	}
	if s.output == "json" {
		err = found.printJSON(cmd.OutOrStdout())
	} else {
		err = found.printText(cmd.OutOrStdout(), s.verbose)
	}
	if err != nil {
		return err
	}
	switch {
	case found.count(isError) > 0:
		return cli.WithExit(cli.ExitOther, errors.New("errors were found"))
	case s.strict && found.count(isWarning) > 0:
		return cli.WithExit(cli.ExitOther, errors.New("warnings were found, and --strict is given"))
	}
	return nil
}

// doctor is one look at a deployment.
type doctor struct {
	*options
	*report

	store *redisstore.Store
	// server is the one that has the keys; redisTime is its clock.
	server *redis.Client
	info   map[string]string
	sealer *keys.Sealer
	// ring is nil where it could not be opened.
	ring *keys.Inspection
	// fleet are the replicas that tell about themselves, live those that still do.
	fleet, live []heartbeat.Status
}

// examine makes all checks. Its errors are those of the settings.
func (s *options) examine(ctx context.Context) (*report, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	storage.SetRedisLog(slog.New(slog.DiscardHandler))
	client, err := s.Connect()
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	d := &doctor{options: s, report: newReport(s.skip)}
	if d.store, err = s.Open(client); err != nil {
		return nil, err
	}
	if d.sealer, err = s.Sealer(ctx); err != nil {
		return nil, err
	}
	if d.reach(ctx) {
		for _, look := range []func(context.Context) error{
			d.lookAtServer, d.lookAtReplication, d.lookAtUsers, d.lookAtData, d.lookAtSpeed,
			d.lookAtReplicas, d.lookAtRing, d.lookAtRecords,
		} {
			if err := look(ctx); err != nil && ctx.Err() == nil {
				d.checkf("redis.allowed", true, "%v", err)
			}
		}
	}
	for _, look := range []func(context.Context){d.lookAtPorts, d.lookAtIssuer} {
		if ctx.Err() == nil {
			look(ctx)
		}
	}
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	d.checkf("doctor.time", late, "not everything was looked at within %s", s.timeout)
	if ctx.Err() != nil && !late {
		return nil, ctx.Err()
	}
	return d.report, nil
}

// patience bounds the wait for one answer.
const patience = 5 * time.Second

// reach reports whether there is a Redis to look at.
func (d *doctor) reach(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	server, err := d.store.Owner(ctx)
	if err == nil {
		// TIME rather than PING, which a server answers that waits for a password in vain.
		err = server.Time(ctx).Err()
	}
	if redis.HasErrorPrefix(err, "NOPERM") {
		d.checkf("redis.allowed", true, "%v", err)
		return false
	}
	d.server = server
	d.checkf("redis.reach", err != nil, "%v", err)
	return err == nil
}
