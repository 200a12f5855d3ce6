package main

import (
	"regexp"
	"slices"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestHelpWords expects no name of the program's code in the help of a command: renaming an identifier must not change
// a text that happens to contain the same word.
func TestHelpWords(t *testing.T) {
	identifier := regexp.MustCompile(`\b[a-z]+[A-Z]\w*`)
	check := func(cmd *cobra.Command, text string) {
		for _, word := range identifier.FindAllString(text, -1) {
			if word != "gRPC" {
				t.Errorf("%s: got %q in its help", cmd.CommandPath(), word)
			}
		}
	}
	commands := []*cobra.Command{newCommand()}
	for len(commands) > 0 {
		cmd := commands[0]
		commands = slices.Concat(commands[1:], cmd.Commands())
		check(cmd, cmd.Short)
		check(cmd, cmd.Long)
		check(cmd, cmd.Example)
		cmd.Flags().VisitAll(func(f *pflag.Flag) { check(cmd, f.Usage) })
	}
}
