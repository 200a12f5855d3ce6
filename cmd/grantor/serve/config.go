package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

// NewConfigCommand returns grantor config.
func NewConfigCommand() *cobra.Command {
	return cli.NewGroup("config", "Check or print the settings of grantor serve",
		"Check or print the settings of grantor serve, without starting anything.", newConfigCheckCommand(), newConfigPrintCommand())
}

func newConfigCheckCommand() *cobra.Command {
	var s Settings
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	set := s.Declare(flags)
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a file with settings",
		Long: `Check a file as grantor serve --config FILE reads it, together with the environment: names, values, and what settings
require of each other. Nothing is opened or connected to. Settings that grantor serve needs, and that neither the file nor
the environment has, are listed.`,
		Example: `  grantor config check grantor.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.Set("config", args[0]); err != nil {
				return err
			}
			if err := set.Resolve(nil); err != nil {
				return err
			}
			var text strings.Builder
			_, _ = fmt.Fprintf(&text, "%s is well-formed.\n", args[0])
			for _, name := range s.missing() {
				flag := flags.Lookup(name)
				_, _ = fmt.Fprintf(&text, "%s is not in the file: it must come from %s or --%s\n", settings.Key(flag), settings.Variable(flag), name)
			}
			_, err := io.WriteString(cmd.OutOrStdout(), text.String())
			return err
		},
	}
}

// missing names the settings that grantor serve requires and that have no value.
func (s *Settings) missing() []string {
	var names []string
	if s.Redis == "" && !s.dev {
		names = append(names, "redis")
	}
	if s.KEK == "" && s.KEKFile == "" && !s.dev {
		names = append(names, "key-encryption-key-file")
	}
	return names
}

func newConfigPrintCommand() *cobra.Command {
	var s Settings
	var form string
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print the effective settings, and where each comes from",
		Long: `Print the settings that grantor serve would have here with the same flags, and where each comes from. Secrets are not
shown.`,
		Example: `  grantor config print --config grantor.yaml
  grantor config print --config grantor.yaml -o json`,
		Args: cli.NoArgs("the file follows --config"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.CheckOutput(form); err != nil {
				return err
			}
			flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
			cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
				if flag.Name != "output" && flag.Name != "help" {
					flags.AddFlag(flag)
				}
			})
			if err := settings.Resolve(flags, nil); err != nil {
				return err
			}
			return printSettings(cmd, flags, form)
		},
	}
	s.Declare(cmd.Flags())
	cmd.Flags().StringVarP(&form, "output", "o", "text", "`form` of the output: text for people, json for scripts")
	return cmd
}

// effective is the effective value of a setting.
type effective struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	// From is "default", "flag", the name of the variable, or the place in the file.
	From string `json:"from"`
}

func printSettings(cmd *cobra.Command, flags *pflag.FlagSet, form string) error {
	var all []effective
	lines := [][]string{{"SETTING", "VALUE", "FROM"}}
	flags.VisitAll(func(flag *pflag.Flag) {
		one := effective{flag.Name, settings.Printable(flag), settings.Source(flag)}
		all = append(all, one)
		lines = append(lines, []string{one.Setting, one.Value, one.From})
	})
	if form == "text" {
		return cli.WriteTable(cmd.OutOrStdout(), lines...)
	}
	encoder := json.NewEncoder(cmd.OutOrStdout())
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}
