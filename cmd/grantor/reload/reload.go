// Package reload reads the settings of a long-running command again, on SIGHUP, and applies those that can change while it
// runs.
package reload

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

// Group is a group of settings that can change while a T runs. S has all its settings.
type Group[T, S any] struct {
	Settings []string
	// Prepare reads and validates the settings as at start, without changing anything, and returns a function that
	// applies them.
	Prepare func(ctx context.Context, target T, next *S) (func() error, error)
}

// Groups are all settings that a reload applies, in their order. All are read again on each signal, whether the setting
// changed or not, because the file that a setting names may have changed. A setting that is in no group needs a restart.
type Groups[T, S any] []Group[T, S]

// Mark adds to the usage of each setting that can change that it is reloaded.
func (g Groups[T, S]) Mark(flags *pflag.FlagSet) {
	for _, group := range g {
		for _, name := range group.Settings {
			flags.Lookup(name).Usage += "; reloaded on SIGHUP"
		}
	}
}

// contain reports whether a setting can change while the command runs.
func (g Groups[T, S]) contain(name string) bool {
	return slices.ContainsFunc(g, func(group Group[T, S]) bool { return slices.Contains(group.Settings, name) })
}

// Config configures a [Reloader].
type Config[T, S any] struct {
	Groups Groups[T, S]
	// Declare declares the settings as flags.
	Declare func(*S, *pflag.FlagSet) *settings.Set
	// Adjust changes settings that were read again, as the command does at start. It may be nil.
	Adjust func(*S)
	// Hangup receives a signal for each reload.
	Hangup <-chan os.Signal
}

// Reloader reads the settings again while the command runs.
type Reloader[T, S any] struct {
	config Config[T, S]
	// commandLine are the flags of the command line, which take precedence over everything that is read again.
	commandLine *pflag.FlagSet
	// started has the values with which the command started and current those of the last reload, both keyed by setting.
	started, current map[string]string
}

// New records the settings before the command starts, because it may adjust them. resolved are its flags.
func New[T, S any](resolved *pflag.FlagSet, config Config[T, S]) (*Reloader[T, S], error) {
	r := &Reloader[T, S]{config: config, started: values(resolved)}
	r.current = r.started
	var err error
	r.commandLine, _, _, err = r.copyCommandLine(resolved)
	return r, err
}

// Run reloads the settings on each signal until ctx ends, and applies them to target.
func (r *Reloader[T, S]) Run(ctx context.Context, target T, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.config.Hangup:
			if err := r.reload(ctx, target, log); err != nil {
				log.Error("the settings are not reloaded; the previous ones stay in effect", "error", err)
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
func (r *Reloader[T, S]) prepare(ctx context.Context, target T) (*prepared, error) {
	flags, set, next, err := r.copyCommandLine(r.commandLine)
	if err != nil {
		return nil, err
	}
	if err := set.Resolve(nil); err != nil {
		return nil, err
	}
	p := &prepared{values: values(flags)}
	if r.config.Adjust != nil {
		r.config.Adjust(next)
	}
	for _, group := range r.config.Groups {
		apply, err := group.Prepare(ctx, target, next)
		if err != nil {
			return nil, err
		}
		p.applies = append(p.applies, apply)
	}
	return p, nil
}

// prepareUntil returns the result of prepare, or the error of ctx once it ends: reading a file may block forever, as that
// of a FIFO without a writer does, and no context ends it. The goroutine that is left behind changes nothing.
func (r *Reloader[T, S]) prepareUntil(ctx context.Context, target T) (*prepared, error) {
	done := make(chan struct{})
	var read *prepared
	var failure error
	go func() {
		defer close(done)
		read, failure = r.prepare(ctx, target)
	}()
	select {
	case <-done:
		return read, failure
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reload reads all settings again and applies those that can change while the command runs. If any setting is wrong, it
// changes nothing.
func (r *Reloader[T, S]) reload(ctx context.Context, target T, log *slog.Logger) error {
	next, err := r.prepareUntil(ctx, target)
	if err != nil {
		return err
	}
	for _, apply := range next.applies {
		if err := apply(); err != nil {
			log.Error("the settings are reloaded, except for this one", "error", err)
		}
	}
	var changed, pending []string
	for name, value := range next.values {
		switch reloaded := r.config.Groups.contain(name); {
		case reloaded && value != r.current[name]:
			changed = append(changed, name)
		case !reloaded && value != r.started[name]:
			pending = append(pending, name)
		}
	}
	r.current = next.values
	slices.Sort(changed)
	slices.Sort(pending)
	log.Info("reloaded", "changed", strings.Join(changed, ","))
	if len(pending) > 0 {
		log.Warn("changed settings need a restart", "settings", strings.Join(pending, ","))
	}
	return nil
}

// copyCommandLine declares the settings in a new flag set and sets those that the command line sets.
func (r *Reloader[T, S]) copyCommandLine(from *pflag.FlagSet) (*pflag.FlagSet, *settings.Set, *S, error) {
	s := new(S)
	flags := pflag.NewFlagSet("reload", pflag.ContinueOnError)
	set := r.config.Declare(s, flags)
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
	return flags, set, s, errors.Join(errs...)
}

// values returns the values of the flags, keyed by setting.
func values(flags *pflag.FlagSet) map[string]string {
	found := make(map[string]string)
	flags.VisitAll(func(flag *pflag.Flag) { found[flag.Name] = flag.Value.String() })
	return found
}
