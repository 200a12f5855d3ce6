package settings

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// A Set declares settings as flags. Each setting is declared once, with its name, its default, its usage, whether its value
// may be printed, and its validation; the declaration serves the flag, the environment variable, the file, the
// documentation and grantor config.
type Set struct {
	flags  *pflag.FlagSet
	checks []check
}

// check is the validation of one setting.
type check struct {
	setting  string
	validate func() error
}

// NewSet returns a Set that declares settings in flags.
func NewSet(flags *pflag.FlagSet) *Set { return &Set{flags: flags} }

// An Option is a property of a setting that its flag does not have.
type Option func(*Set, *pflag.Flag)

// redacted is the annotation of a flag whose value may be printed, if only in part.
const redacted = "redacted"

// The ways to print a value.
const (
	whole         = "whole"
	urlOnly       = "url"
	withoutSecret = "(not shown)"
)

// Public marks a setting whose value may be printed. The value of a setting without a mark is a secret, so that a new
// setting is hidden until its declaration says otherwise.
func Public(_ *Set, flag *pflag.Flag) { annotate(flag, redacted, whole) }

// PublicURL marks a URL that may be printed without its password.
func PublicURL(_ *Set, flag *pflag.Flag) { annotate(flag, redacted, urlOnly) }

// Check adds a validation, which runs after all settings have their values.
func Check(validate func() error) Option {
	return func(s *Set, flag *pflag.Flag) { s.checks = append(s.checks, check{flag.Name, validate}) }
}

// String declares a setting that is a text.
func (s *Set) String(p *string, name, value, usage string, options ...Option) {
	s.flags.StringVar(p, name, value, usage)
	s.apply(name, options)
}

// Strings declares a setting that is a list of texts.
func (s *Set) Strings(p *[]string, name string, value []string, usage string, options ...Option) {
	s.flags.StringSliceVar(p, name, value, usage)
	s.apply(name, options)
}

// Bool declares a setting that is true or false.
func (s *Set) Bool(p *bool, name string, value bool, usage string, options ...Option) {
	s.flags.BoolVar(p, name, value, usage)
	s.apply(name, options)
}

// Int declares a setting that is an integer.
func (s *Set) Int(p *int, name string, value int, usage string, options ...Option) {
	s.flags.IntVar(p, name, value, usage)
	s.apply(name, options)
}

// Float declares a setting that is a number.
func (s *Set) Float(p *float64, name string, value float64, usage string, options ...Option) {
	s.flags.Float64Var(p, name, value, usage)
	s.apply(name, options)
}

// Duration declares a setting that is a duration.
func (s *Set) Duration(p *time.Duration, name string, value time.Duration, usage string, options ...Option) {
	s.flags.DurationVar(p, name, value, usage)
	s.apply(name, options)
}

func (s *Set) apply(name string, options []Option) {
	for _, option := range options {
		option(s, s.flags.Lookup(name))
	}
}

// Resolve calls [Resolve] on the flags and validates the settings.
func (s *Set) Resolve(others Names) error {
	if err := Resolve(s.flags, others); err != nil {
		return err
	}
	return s.Validate()
}

// Validate returns the error of the first setting that is not valid, in the order of their declaration. It opens and
// connects to nothing.
func (s *Set) Validate() error {
	for _, check := range s.checks {
		if err := check.validate(); err != nil {
			return cli.SettingError(check.setting, err)
		}
	}
	return nil
}

// Printable returns the value of a setting without what is secret in it.
func Printable(flag *pflag.Flag) string {
	value := flag.Value.String()
	mark := flag.Annotations[redacted]
	switch {
	case value == "" || slices.Contains(mark, whole):
		return value
	case slices.Contains(mark, urlOnly):
		return withoutPassword(value)
	}
	return withoutSecret
}

// withoutPassword removes the password from a URL, whether it is part of the user information or of the query.
func withoutPassword(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "base64key" {
		return withoutSecret // the error would quote the URL, and the host of base64key:// is a key
	}
	query := u.Query()
	if u.User == nil && !query.Has("password") {
		return text // u.String could differ from it in letter case
	}
	if query.Has("password") {
		query.Set("password", "xxxxx")
		u.RawQuery = query.Encode()
	}
	return u.Redacted()
}

// AtLeast validates that a number is not below a bound.
func AtLeast(p *int, bound int) Option {
	return Check(func() error {
		if *p < bound {
			return fmt.Errorf("must be at least %d", bound)
		}
		return nil
	})
}

// NotNegative validates that a number is not negative.
func NotNegative(p *int) Option {
	return Check(func() error {
		if *p < 0 {
			return errors.New("must not be negative")
		}
		return nil
	})
}

// OneOf validates that a text is one of the words.
func OneOf(p *string, words ...string) Option {
	return Check(func() error { return cli.OneOf(*p, words...) })
}

// WholeSeconds validates that a duration is a number of whole seconds from one second to a bound.
func WholeSeconds(p *time.Duration, bound time.Duration) Option {
	return Check(func() error {
		if *p < time.Second || *p > bound || *p%time.Second != 0 {
			return fmt.Errorf("%s is not between 1s and %s in whole seconds", *p, strings.TrimSuffix(bound.String(), "0m0s"))
		}
		return nil
	})
}
