package serve

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

// reloadable are settings that can change while the server runs, one or several that go together.
type reloadable struct {
	settings []string
	// prepare reads and checks what the settings say, as at the start, changes nothing, and gives what puts it in
	// force.
	prepare func(ctx context.Context, srv *Server, next *Settings) (func() error, error)
}

// reloads are all settings that SIGHUP puts in force, in this order: last what can still fail, and in part, so that a
// broken record keeps no limit from being tightened. All are read again each time, whether the setting changed or not,
// because a file that it names may have. Whatever is not here needs a restart.
var reloads = []reloadable{
	{[]string{"tls-cert-file", "tls-key-file", "tls-client-ca-file"}, reloadTLS},
	{[]string{"log-level"}, reloadLogLevel},
	{[]string{
		"failures-per-client", "failures-per-source", "tokens-per-client", "tokens-period", "tokens-mode", "requests-per-source",
		"streams-per-source",
	}, reloadLimits},
	{[]string{"apply"}, reloadManifest},
}

// markReloadable says of the settings that can be reloaded that they can.
func markReloadable(flags *pflag.FlagSet) {
	for _, r := range reloads {
		for _, name := range r.settings {
			flags.Lookup(name).Usage += "; reloaded on SIGHUP"
		}
	}
}

func reloadManifest(ctx context.Context, srv *Server, next *Settings) (func() error, error) {
	if next.apply == "" {
		return func() error { return nil }, nil
	}
	m, err := manifest.Read(next.apply)
	if err != nil {
		return nil, cli.SettingError("apply", err)
	}
	return func() error { return srv.applyFile(ctx, m) }, nil
}

func reloadTLS(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	files := srv.ports.Certificate()
	switch {
	case (files == nil) != (next.tlsCert == ""):
		return nil, cli.SettingError("tls-cert-file", errors.New("TLS is turned on or off by a restart"))
	case files == nil:
		return func() error { return nil }, nil
	}
	read, err := ports.NewTLSFiles(next.tlsPaths(), srv.log)
	return func() error { files.Replace(read); return nil }, err
}

func reloadLogLevel(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	var level slog.Level
	err := setLevel(&level, next)
	return func() error { srv.level.Set(level); return nil }, err
}

func reloadLimits(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	return func() error { srv.service.SetLimits(next.limits()); return nil }, nil
}

// reloader reads the settings again while the server runs.
type reloader struct {
	hangup <-chan os.Signal
	// commandLine are the flags as they were given, which win over whatever is read again.
	commandLine *pflag.FlagSet
	// started has the setting → value with which the server started, current that of the last reload.
	started, current map[string]string
}

// newReloader keeps what is known of the settings before the server starts, which may change them for itself.
func newReloader(resolved *pflag.FlagSet, hangup <-chan os.Signal) (*reloader, error) {
	r := &reloader{hangup: hangup, started: values(resolved)}
	r.current = r.started
	var err error
	r.commandLine, _, err = copyCommandLine(resolved)
	return r, err
}

// run reloads at each signal until ctx ends.
func (r *reloader) run(ctx context.Context, srv *Server) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.hangup:
			if err := r.reload(ctx, srv); err != nil {
				srv.log.Error("the settings are not reloaded; those before stay in force", "error", err)
			}
		}
	}
}

// reload reads all settings anew, and puts in force those that can be while the server runs. If anything is wrong with
// any of them, nothing changes.
func (r *reloader) reload(ctx context.Context, srv *Server) error {
	flags, next, err := copyCommandLine(r.commandLine)
	if err != nil {
		return err
	}
	if err := settings.Resolve(flags, nil); err != nil {
		return err
	}
	read := values(flags)
	if next.dev {
		next.develop()
	}
	if err := next.check(); err != nil {
		return err
	}
	var puts []func() error
	var can []string
	for _, one := range reloads {
		put, err := one.prepare(ctx, srv, next)
		if err != nil {
			return err
		}
		puts, can = append(puts, put), append(can, one.settings...)
	}
	for _, put := range puts {
		if err := put(); err != nil {
			srv.log.Error("the settings are reloaded, but for what is wrong here", "error", err)
		}
	}
	var changed, waiting []string
	for name, value := range read {
		switch reloaded := slices.Contains(can, name); {
		case reloaded && value != r.current[name]:
			changed = append(changed, name)
		case !reloaded && value != r.started[name]:
			waiting = append(waiting, name)
		}
	}
	r.current = read
	slices.Sort(changed)
	slices.Sort(waiting)
	srv.log.Info("reloaded", "changed", strings.Join(changed, ","))
	if len(waiting) > 0 {
		srv.log.Warn("settings have changed that need a restart", "settings", strings.Join(waiting, ","))
	}
	return nil
}

// copyCommandLine makes the settings anew, with what the command line said and nothing else.
func copyCommandLine(from *pflag.FlagSet) (*pflag.FlagSet, *Settings, error) {
	var s Settings
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	s.Declare(flags)
	var errs []error
	flags.VisitAll(func(to *pflag.Flag) {
		if !settings.OnCommandLine(from, to.Name) {
			return
		}
		given := from.Lookup(to.Name).Value
		value := given.String()
		if given.Type() == "stringSlice" {
			value = strings.Trim(value, "[]") // which Set does not take
		}
		errs = append(errs, flags.Set(to.Name, value))
	})
	return flags, &s, errors.Join(errs...)
}

// values gives setting → value.
func values(flags *pflag.FlagSet) map[string]string {
	found := make(map[string]string)
	flags.VisitAll(func(flag *pflag.Flag) { found[flag.Name] = flag.Value.String() })
	return found
}
