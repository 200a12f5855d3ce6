package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

func NewConfigCommand() *cobra.Command {
	return cli.NewGroup("config", "Look at the settings of grantor serve",
		"Look at the settings of grantor serve, without starting anything.", newConfigCheckCommand(), newConfigPrintCommand())
}

func newConfigCheckCommand() *cobra.Command {
	var s Settings
	hidden := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	s.Declare(hidden)
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a file with settings",
		Long: `Check a file as grantor serve --config FILE reads it, with what the environment adds: names, values, and what settings ask of
each other. Nothing is opened or connected to. What grantor serve also needs, and neither file nor environment here has, is
listed.`,
		Example: `  grantor config check grantor.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := hidden.Set("config", args[0]); err != nil {
				return err
			}
			if err := settings.Resolve(hidden, nil); err != nil {
				return err
			}
			if err := cli.UsageError(s.check()); err != nil {
				return err
			}
			var text strings.Builder
			_, _ = fmt.Fprintf(&text, "%s is well-formed.\n", args[0])
			for _, name := range s.missing() {
				flag := hidden.Lookup(name)
				_, _ = fmt.Fprintf(&text, "%s is not in the file: it must come from %s or --%s\n", settings.Key(flag), settings.Variable(flag), name)
			}
			_, err := io.WriteString(cmd.OutOrStdout(), text.String())
			return err
		},
	}
}

// missing names what grantor serve does not start without and was given nowhere.
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
		Short: "Print the settings in force, and where each comes from",
		Long: `Print the settings with which grantor serve would start here with the same flags, and where each comes from. Secrets are not
shown.`,
		Example: `  grantor config print --config grantor.yaml
  grantor config print --config grantor.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if form != "text" && form != "json" {
				return cli.SettingError("output", fmt.Errorf("%q is neither text nor json", form))
			}
			flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
			cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
				if flag.Name != "output" {
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

// inForce is a setting as it is in force.
type inForce struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	// From is default, flag, the variable or the place in the file.
	From string `json:"from"`
}

func printSettings(cmd *cobra.Command, flags *pflag.FlagSet, form string) error {
	var all []inForce
	lines := [][]string{{"SETTING", "VALUE", "FROM"}}
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Name == "help" {
			return
		}
		one := inForce{flag.Name, masked(flag), settings.Source(flag)}
		all = append(all, one)
		lines = append(lines, []string{one.Setting, cli.Printable(one.Value), cli.Printable(one.From)})
	})
	if form == "text" {
		return cli.WriteTable(cmd.OutOrStdout(), lines...)
	}
	encoder := json.NewEncoder(cmd.OutOrStdout())
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}

// masked gives a setting's value without what is secret in it: the keys, and the password in a URL.
func masked(flag *pflag.Flag) string {
	value := flag.Value.String()
	switch flag.Name {
	case "key-encryption-key", "previous-key-encryption-key":
		if value != "" {
			return "(not shown)"
		}
	case "redis", "key-encryption-key-url":
		u, err := url.Parse(value)
		if err != nil {
			return "(not shown)" // an error would quote it
		}
		if query := u.Query(); query.Has("password") {
			query.Set("password", "xxxxx")
			u.RawQuery = query.Encode()
		}
		return u.Redacted()
	}
	return value
}
