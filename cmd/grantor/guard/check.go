package guard

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/interceptors/verify"
)

func newCheckCommand() *cobra.Command {
	var s Settings
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the settings and the rules of grantor guard",
		Long: `Check the settings, the file of rules and the descriptor sets as grantor guard reads them, with the same flags. Nothing is
opened or connected to. Methods of the descriptors that no rule matches are listed, and settings that grantor guard needs
and that nothing sets.

The exit code is 0 if all is well, 2 if a setting is wrong or a file cannot be read, and 7 if a rule is wrong or two rules
disagree about a request.`,
		Example: `  grantor guard check --config guard.yaml
  grantor guard check --rules rules.yaml --descriptor-set api.binpb`,
		Args: cli.NoArgs("the file of rules follows --rules, that with settings --config"),
	}
	set := s.Declare(cmd.Flags())
	cmd.PreRunE = func(*cobra.Command, []string) error { return set.Resolve(nil) }
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		rules, err := s.readRules()
		if err != nil {
			return err
		}
		var text strings.Builder
		_, _ = fmt.Fprintf(&text, "The rules are well-formed and agree: %d of the file, %d of descriptors.\n", rules.rules, rules.methods)
		for _, name := range rules.unruled {
			_, _ = fmt.Fprintf(&text, "no rule: %s is refused\n", cli.Printable(name))
		}
		for _, name := range s.missing() {
			flag := cmd.Flags().Lookup(name)
			_, _ = fmt.Fprintf(&text, "%s is not set: it must come from %s, --%s or the file of --config\n", settings.Key(flag), settings.Variable(flag), name)
		}
		_, err = io.WriteString(cmd.OutOrStdout(), text.String())
		return err
	}
	return cmd
}

func newExplainCommand() *cobra.Command {
	var s Settings
	cmd := &cobra.Command{
		Use:   "explain METHOD URL",
		Short: "Say which rule decides about a request",
		Long: `Say which rule of grantor guard decides about a request, with the same flags, and which callers it admits. A gRPC call is
POST and the URL with /package.Service/Method. The URL is taken as it is, without any normalization but the guard's.

The exit code is 0 if a rule matches, and 4 if none does, or if the request is refused as ambiguous.`,
		Example: `  grantor guard explain --rules rules.yaml GET https://orders.example.com/orders/7
  grantor guard explain --config guard.yaml POST https://orders.example.com/orders.v1.Orders/Get`,
		Args: cobra.ExactArgs(2),
	}
	set := s.Declare(cmd.Flags())
	cmd.PreRunE = func(*cobra.Command, []string) error { return set.Resolve(nil) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		host, path, err := splitURL(args[1])
		if err != nil {
			return cli.UsageError(err)
		}
		rules, err := s.readRules()
		if err != nil {
			return err
		}
		route, err := rules.table.Find(strings.ToUpper(args[0]), host, path)
		switch {
		case errors.Is(err, verify.ErrNoRule):
			return cli.WithExit(cli.ExitNotFound, errors.New("no rule matches; the request is refused with 403 no_rule"))
		case err != nil:
			return cli.WithExit(cli.ExitNotFound, fmt.Errorf("the request is refused with 403: %w", err))
		}
		text := fmt.Sprintf("%s\nadmits: %s\n", cli.Printable(route.Source), cli.Printable(route.Rule.String()))
		if route.Resource != "" {
			text += "for the resource: " + cli.Printable(route.Resource) + "\n"
		}
		_, err = io.WriteString(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}

// splitURL returns the host and the path of a URL as they are written: parsing it would decode the path.
func splitURL(text string) (host, path string, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return "", "", errors.New("the URL begins with https:// or http://")
	}
	host, path = rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	if _, err := url.Parse(scheme + "://" + host); err != nil || host == "" || strings.Contains(host, "@") {
		return "", "", errors.New("the URL has no host")
	}
	return host, path, nil
}
