package serve

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
)

// reloadable is a group of settings that can change while the server runs.
type reloadable struct {
	settings []string
	// prepare reads and validates the settings as at start, without changing anything, and returns a function that
	// applies them.
	prepare func(ctx context.Context, srv *Server, next *Settings) (func() error, error)
}

// reloads are all settings that SIGHUP applies, in this order. The manifest comes last because applying it can still
// fail, in part: a broken record must not keep a limit from being tightened. All are read again on each signal, whether
// the setting changed or not, because the file that a setting names may have changed. A setting that is not listed
// needs a restart.
var reloads = []reloadable{
	{[]string{"tls-cert-file", "tls-key-file", "tls-client-ca-file"}, reloadTLS},
	{[]string{"client-certificate-ca-file"}, reloadAuthorities},
	{[]string{"log-level"}, reloadLogLevel},
	{[]string{
		"failures-per-client", "failures-per-source", "tokens-per-client", "tokens-period", "tokens-mode", "requests-per-source",
		"streams-per-source",
	}, reloadLimits},
	{[]string{"apply"}, reloadManifest},
}

// markReloadable adds to the usage of each reloadable setting that it is reloaded.
func markReloadable(flags *pflag.FlagSet) {
	for _, r := range reloads {
		for _, name := range r.settings {
			flags.Lookup(name).Usage += "; reloaded on SIGHUP"
		}
	}
}

// canReload reports whether a setting can change while the server runs.
func canReload(name string) bool {
	return slices.ContainsFunc(reloads, func(r reloadable) bool { return slices.Contains(r.settings, name) })
}

func reloadManifest(ctx context.Context, srv *Server, next *Settings) (func() error, error) {
	if next.apply == "" {
		return func() error { return nil }, nil
	}
	m, err := next.readManifest(ctx)
	if err != nil {
		return nil, err
	}
	return func() error { return srv.applyManifest(ctx, m) }, nil
}

func reloadTLS(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	files := srv.ports.Certificate()
	switch {
	case (files == nil) != (next.tlsCert == ""):
		return nil, cli.SettingError("tls-cert-file", errors.New("turning TLS on or off needs a restart"))
	case files == nil:
		return func() error { return nil }, nil
	}
	read, err := tlsfiles.New(next.tlsPaths(), srv.log)
	return func() error { files.Replace(read); return nil }, err
}

func reloadLogLevel(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	level, err := next.monitoring.Level()
	return func() error { srv.level.Set(level); return nil }, err
}

func reloadLimits(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	return func() error { srv.service.SetLimits(next.limits()); return nil }, nil
}

// reloader reads the settings again while the server runs.
type reloader struct {
	hangup <-chan os.Signal
	// commandLine are the flags of the command line, which take precedence over everything that is read again.
	commandLine *pflag.FlagSet
	// started has the values with which the server started and current those of the last reload, both keyed by setting.
	started, current map[string]string
}

// newReloader records the settings before the server starts, because the server may adjust them.
func newReloader(resolved *pflag.FlagSet, hangup <-chan os.Signal) (*reloader, error) {
	r := &reloader{hangup: hangup, started: values(resolved)}
	r.current = r.started
	var err error
	r.commandLine, _, _, err = copyCommandLine(resolved)
	return r, err
}

// run reloads the settings on each signal until ctx ends.
func (r *reloader) run(ctx context.Context, srv *Server) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.hangup:
			if err := r.reload(ctx, srv); err != nil {
				srv.log.Error("the settings are not reloaded; the previous ones stay in effect", "error", err)
			}
		}
	}
}

// prepared are settings that were read again and are not yet applied.
type prepared struct {
	values  map[string]string // keyed by setting
	applies []func() error
}

// prepare reads and validates all settings. It changes nothing.
func (r *reloader) prepare(ctx context.Context, srv *Server) (*prepared, error) {
	flags, set, next, err := copyCommandLine(r.commandLine)
	if err != nil {
		return nil, err
	}
	if err := set.Resolve(nil); err != nil {
		return nil, err
	}
	p := &prepared{values: values(flags)}
	if next.dev {
		next.develop()
	}
	for _, one := range reloads {
		apply, err := one.prepare(ctx, srv, next)
		if err != nil {
			return nil, err
		}
		p.applies = append(p.applies, apply)
	}
	return p, nil
}

// prepareUntil returns the result of prepare, or the error of ctx once it ends: reading a file may block forever, as that
// of a FIFO without a writer does, and no context ends it. The goroutine that is left behind changes nothing.
func (r *reloader) prepareUntil(ctx context.Context, srv *Server) (*prepared, error) {
	done := make(chan struct{})
	var read *prepared
	var failure error
	go func() {
		defer close(done)
		read, failure = r.prepare(ctx, srv)
	}()
	select {
	case <-done:
		return read, failure
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reload reads all settings again and applies those that can change while the server runs. If any setting is wrong, it
// changes nothing.
func (r *reloader) reload(ctx context.Context, srv *Server) error {
	next, err := r.prepareUntil(ctx, srv)
	if err != nil {
		return err
	}
	for _, apply := range next.applies {
		if err := apply(); err != nil {
			srv.log.Error("the settings are reloaded, except for this one", "error", err)
		}
	}
	var changed, pending []string
	for name, value := range next.values {
		switch reloaded := canReload(name); {
		case reloaded && value != r.current[name]:
			changed = append(changed, name)
		case !reloaded && value != r.started[name]:
			pending = append(pending, name)
		}
	}
	r.current = next.values
	slices.Sort(changed)
	slices.Sort(pending)
	srv.log.Info("reloaded", "changed", strings.Join(changed, ","))
	if len(pending) > 0 {
		srv.log.Warn("changed settings need a restart", "settings", strings.Join(pending, ","))
	}
	return nil
}

// copyCommandLine declares the settings in a new flag set and sets those that the command line sets.
func copyCommandLine(from *pflag.FlagSet) (*pflag.FlagSet, *settings.Set, *Settings, error) {
	var s Settings
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	set := s.Declare(flags)
	var errs []error
	flags.VisitAll(func(to *pflag.Flag) {
		if !settings.OnCommandLine(from, to.Name) {
			return
		}
		given := from.Lookup(to.Name).Value
		value := given.String()
		if given.Type() == "stringSlice" {
			value = strings.Trim(value, "[]") // Set accepts no brackets
		}
		errs = append(errs, flags.Set(to.Name, value))
	})
	return flags, set, &s, errors.Join(errs...)
}

// values returns the values of the flags, keyed by setting.
func values(flags *pflag.FlagSet) map[string]string {
	found := make(map[string]string)
	flags.VisitAll(func(flag *pflag.Flag) { found[flag.Name] = flag.Value.String() })
	return found
}
