package settings_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

// TestPrintable prints settings by how they are declared: one that is not declared public is a secret.
func TestPrintable(t *testing.T) {
	const url = "redis://user:secret@host/?password=secret"
	for _, c := range []struct {
		name, value, want string
		options           []settings.Option
	}{
		{"without a mark", "value", "(not shown)", nil},
		{"without a mark and a value", "", "", nil},
		{"public", "value", "value", []settings.Option{settings.Public}},
		{"a URL", url, "redis://user:xxxxx@host/?password=xxxxx", []settings.Option{settings.PublicURL}},
		{"a malformed URL", "redis://user:secret@ho st", "(not shown)", []settings.Option{settings.PublicURL}},
		{"a key as a URL", "base64key://c2VjcmV0", "(not shown)", []settings.Option{settings.PublicURL}},
	} {
		flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
		var value string
		settings.NewSet(flags).String(&value, "setting", c.value, "usage", c.options...)
		if got := settings.Printable(flags.Lookup("setting")); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestValidate expects the error of each validation to name its setting, and none for a valid value.
func TestValidate(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", ""},
		{"--count=-1", "count: must not be negative"},
		{"--size=0", "size: must be at least 1"},
		{"--form=xml", `form: "xml" is neither json nor text`},
		{"--color=blue", `color: "blue" is not one of red, green, gray`},
		{"--life=1500ms", "life: 1.5s is not between 1s and 24h in whole seconds"},
		{"--life=25h", "life: 25h0m0s is not between 1s and 24h in whole seconds"},
		{"--life=0s", "life: 0s is not between"},
		{"--size=0 --count=-1", "count: "}, // the order of the declaration
	} {
		var count, size int
		var form, color string
		var life time.Duration
		flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
		set := settings.NewSet(flags)
		set.Int(&count, "count", 0, "", settings.NotNegative(&count))
		set.Int(&size, "size", 1, "", settings.AtLeast(&size, 1))
		set.String(&form, "form", "json", "", settings.OneOf(&form, "json", "text"))
		set.String(&color, "color", "gray", "", settings.OneOf(&color, "red", "green", "gray"))
		set.Duration(&life, "life", time.Second, "", settings.WholeSeconds(&life, 24*time.Hour))
		if err := flags.Parse(strings.Fields(c.args)); err != nil {
			t.Fatal(err)
		}
		err := set.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.args, err, c.want)
		}
	}
}

// TestSource expects the source of a value to be the first of flag, environment and default that has one.
func TestSource(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	set := settings.NewSet(flags)
	var a, b, c string
	for name, p := range map[string]*string{"from-flag": &a, "from-env": &b, "no-value": &c} {
		set.String(p, name, "", "", settings.Public)
	}
	t.Setenv("GRANTOR_FROM_FLAG", "environment")
	t.Setenv("GRANTOR_FROM_ENV", "environment")
	if err := flags.Parse([]string{"--from-flag=flag"}); err != nil {
		t.Fatal(err)
	}
	if err := set.Resolve(nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"from-flag": "flag", "from-env": "GRANTOR_FROM_ENV", "no-value": "default"} {
		if got := settings.Source(flags.Lookup(name)); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if got := settings.OnCommandLine(flags, name); got != (name == "from-flag") {
			t.Errorf("%s: on the command line: got %t", name, got)
		}
	}
	if a != "flag" || b != "environment" {
		t.Errorf("got %q and %q", a, b)
	}
}
