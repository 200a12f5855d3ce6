// Package doctor implements grantor doctor, which inspects a deployment and its Redis and says what to do. It changes
// nothing.
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
	"github.com/grantorhq/grantor/service/redisstore"
)

// options are the settings and flags of grantor doctor. Those that it shares with grantor serve identify the
// deployment.
type options struct {
	storage.Settings
	// shared are settings that the file of settings may have although the command does not.
	shared settings.Names
	issuer string
	// keyRotation and maxStaleness apply to replicas that do not report theirs.
	keyRotation, maxStaleness time.Duration
	// trustDirectories are those of the replicas; empty if they are not known here.
	trustDirectories []string

	profileName string
	// redisUser is the Redis user of the replicas. If it is empty, it is the user of doctor itself.
	redisUser string
	// opsPorts are the URLs of the operations ports of replicas.
	opsPorts        []string
	skip            []string
	strict, verbose bool
	output          string
	timeout         time.Duration
	clients         int
	// now is the clock of this machine.
	now func() time.Time
}

// sharedWithServe are the flags that grantor serve has too.
var sharedWithServe = []string{
	"config", "redis", "redis-prefix", "redis-tls-cert-file", "redis-tls-key-file", "redis-tls-ca-file", "key-encryption-key", "key-encryption-key-file", "previous-key-encryption-key",
	"previous-key-encryption-key-file", kms.URLSetting, "revocation-replicas", "issuer",
}

// NewCommand returns grantor doctor. Its file of settings may also have the settings in shared.
func NewCommand(shared settings.Names) *cobra.Command {
	return (&options{shared: shared, now: time.Now}).command()
}

func (s *options) command() *cobra.Command {
	serve := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	set := s.declareShared(serve)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Inspect a running deployment and its Redis, and say what to do",
		Long: `Inspect a running deployment and say what is wrong with it, and what to do: the Redis, the replicas, the signing keys, the
records of the clients and, with an issuer's URL, what clients see from outside. Nothing is changed.

The settings that doctor shares with grantor serve can be in the same file and environment. Without the key-encryption key,
the key ring and the clients are not checked. docs/doctor.md lists all checks.

The exit code is 0 if no finding is worse than a warning, with --strict than a note, and 1 otherwise.`,
		Example: `  grantor doctor --redis redis://localhost:6379 --key-encryption-key-file kek
  grantor doctor --config grantor.yaml --replica http://10.0.0.1:8082 --replica http://10.0.0.2:8082
  grantor doctor --config grantor.yaml --strict --skip redis.alone,replica.alone -o json`,
		Args: cli.NoArgs("the issuer follows --issuer, the file with settings --config"),
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
	flags.StringVar(&s.profileName, "profile", "", "`name` of a profile whose issuer is checked; see grantor help profiles")
	flags.StringVar(&s.redisUser, "redis-user", "", "`name` of the Redis user of the replicas, whose rights are checked; default: the one of redis")
	flags.StringSliceVar(&s.opsPorts, "replica", nil, "`URL` of a replica's operations port, such as http://10.0.0.1:8082; can be repeated")
	flags.StringSliceVar(&s.skip, "skip", nil, "`checks` to skip, by their ids")
	flags.BoolVar(&s.strict, "strict", false, "end with code 1 for warnings too")
	flags.BoolVarP(&s.verbose, "verbose", "v", false, "also list the checks that found nothing")
	flags.StringVarP(&s.output, "output", "o", "text", "`form` of the output: text for people, json for scripts")
	flags.DurationVar(&s.timeout, "timeout", time.Minute, "maximum `time` of all checks")
	flags.IntVar(&s.clients, "clients", 10_000, "maximum `number` of clients that are checked")
	cli.CompleteFlag(cmd, "output", "text", "json")
	return cmd
}

// declareShared declares the settings that grantor serve has too. The last three have no flag here: they come from the
// file or the environment of grantor serve.
func (s *options) declareShared(flags *pflag.FlagSet) *settings.Set {
	set := settings.NewSet(flags)
	s.Declare(set)
	flags.StringVar(&s.issuer, "issuer", "", "`URL` of this issuer: the iss of its tokens and the base of the REST API")
	flags.DurationVar(&s.keyRotation, "key-rotation", 30*24*time.Hour, "`time` for which a key signs; at least 10m more than twice jwks-max-age")
	set.Strings(&s.trustDirectories, "trust-directories", nil, "`list` of the directories below which the files are read that trusted issuers name (ca_file, bearer_token_file, bundle_file, workload_api)", settings.Public)
	flags.DurationVar(&s.maxStaleness, "max-staleness", 30*time.Second, "`time` for which tokens are issued without contact to Redis; at least 2s")
	return set
}

// prepare validates the flags. issuer reports whether a source other than the command line of doctor has the issuer.
func (s *options) prepare(flags *pflag.FlagSet, issuer bool) error {
	if err := settings.Resolve(without(flags, sharedWithServe), nil); err != nil {
		return err
	}
	if err := cli.CheckOutput(s.output); err != nil {
		return err
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
		if err := remote.CheckIssuer(s.issuer); err != nil {
			return err
		}
	}
	return nil
}

// without returns the flags except those of the names.
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
	case found.count(severityError) > 0:
		return cli.WithExit(cli.ExitOther, errors.New("errors were found"))
	case s.strict && found.count(severityWarning) > 0:
		return cli.WithExit(cli.ExitOther, errors.New("warnings were found, and --strict is given"))
	}
	return nil
}

// doctor is one inspection of a deployment.
type doctor struct {
	*options
	*report

	store *redisstore.Store
	tls   redisTLS
	// server is the Redis server that has the keys, and info its INFO.
	server *redis.Client
	info   map[string]string
	sealer *keys.Sealer
	// ring is nil if it could not be opened.
	ring *keys.Inspection
	// fleet are the replicas that announced themselves, and live those that still do.
	fleet, live []heartbeat.Status
}

// examine runs all checks. Its errors are those of the settings.
func (s *options) examine(ctx context.Context) (*report, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	storage.SetRedisLog(slog.New(slog.DiscardHandler))
	files, err := s.RedisTLS(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	d := &doctor{options: s, report: newReport(s.skip), tls: redisTLS{files: files}}
	client, err := s.ConnectTLS(d.tls.configure)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	if d.store, err = s.Open(client); err != nil {
		return nil, err
	}
	if d.sealer, err = s.Sealer(ctx); err != nil {
		return nil, err
	}
	if d.reach(ctx) {
		for _, check := range []func(context.Context) error{
			d.checkServer, d.checkReplication, d.checkUsers, d.checkData, d.checkSpeed,
			d.checkReplicas, d.checkRing, d.checkRecords, d.checkEntries,
		} {
			err := check(ctx)
			switch {
			case err == nil || ctx.Err() != nil:
			case redis.HasErrorPrefix(err, "WRONGTYPE"):
				d.checkf("record.unreadable", true, "a key is of another type: %v", err)
			default:
				d.checkf("redis.allowed", true, "%v", err)
			}
		}
	}
	for _, check := range []func(context.Context){d.checkPorts, d.checkIssuer} {
		if ctx.Err() == nil {
			check(ctx)
		}
	}
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	d.checkf("doctor.time", late, "not everything was checked within %s", s.timeout)
	if ctx.Err() != nil && !late {
		return nil, ctx.Err()
	}
	return d.report, nil
}

// answerTimeout bounds the wait for one response.
const answerTimeout = 5 * time.Second

// reach reports whether the Redis answers.
func (d *doctor) reach(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	server, err := d.store.Owner(ctx)
	if err == nil {
		// TIME rather than PING, to which a server may respond without authentication.
		err = server.Time(ctx).Err()
	}
	d.checkClientCertificate(err)
	if redis.HasErrorPrefix(err, "NOPERM") {
		d.checkf("redis.allowed", true, "%v", err)
		return false
	}
	d.server = server
	d.checkf("redis.reach", err != nil, "%v", err)
	return err == nil
}
