package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// TestMisspelledCommand leaves out the last letter of each command at each level, with flags of the command and without,
// and expects the command to be suggested.
func TestMisspelledCommand(t *testing.T) {
	var check func(group *cobra.Command, path []string)
	check = func(group *cobra.Command, path []string) {
		for _, cmd := range group.Commands() {
			if !cmd.IsAvailableCommand() {
				continue
			}
			wrong := strings.TrimSuffix(cmd.Name(), cmd.Name()[len(cmd.Name())-1:])
			want := fmt.Sprintf("there is no command %q; did you mean ", wrong)
			for _, args := range [][]string{{wrong}, {wrong, "--config=x", "argument"}, {wrong, "-x"}} {
				got := run(t, append(path, args...)...)
				got.Exits(t, cli.ExitUsage, want)
				if suggested := strings.TrimSuffix(got.Err.Error(), "?"); !strings.Contains(suggested[strings.Index(suggested, want):], cmd.Name()) {
					t.Errorf("%s %s: got %v", path, wrong, got.Err)
				}
			}
			check(cmd, append(path[:len(path):len(path)], cmd.Name()))
		}
	}
	root := newCommand()
	root.InitDefaultHelpCmd()
	check(root, nil)

	run(t, "serv", "--dev").Exits(t, cli.ExitUsage, `there is no command "serv"; did you mean serve?`)
	run(t, "help", "client", "lst").Exits(t, cli.ExitUsage, `client: there is no command "lst"; did you mean list?`)
	if got := run(t, "help", "client", "secret", "list"); !strings.Contains(got.Works(t), "grantor client secret list CLIENT") {
		t.Errorf("got %q, want the help of the command", got.Out)
	}
	if got := run(t, "serv", "--help"); !strings.Contains(got.ErrOut, `there is no command "serv"`) || !strings.Contains(got.Works(t), "Available Commands") {
		t.Errorf("got %q and %q, want the mistake and the help", got.ErrOut, got.Out)
	}
	// An argument that resembles no command may be a token or a secret.
	run(t, "token", "eyJhbGciOiJFUzI1NiJ9").Exits(t, cli.ExitUsage, "token: the commands are ", "eyJ")
	run(t, "--dev").Exits(t, cli.ExitUsage, "flags follow the command")
}

// TestArgumentsOfOthers passes a file or a URL as the argument of a command that takes it by a flag.
func TestArgumentsOfOthers(t *testing.T) {
	for args, want := range map[string]string{
		"apply clients.yaml":                         "the file follows -f: grantor apply -f clients.yaml",
		"apply -f a.yaml b.yaml":                     "the file follows -f: grantor apply -f b.yaml",
		"serve grantor.yaml":                         "--config",
		"config print grantor.yaml":                  "--config",
		"doctor https://auth.example.com":            "--issuer",
		"audit background-service":                   "--client",
		"key wrap awskms://alias/grantor":            "--key-encryption-key-url",
		"bench --duration=600":                       `--duration: "600" is not a duration such as 30s, 5m or 1h`,
		"client update a --access-token-lifetime=10": `--access-token-lifetime: "10" is not a duration such as 30s, 5m or 1h`,
	} {
		run(t, strings.Fields(args)...).Exits(t, cli.ExitUsage, want)
	}
}
