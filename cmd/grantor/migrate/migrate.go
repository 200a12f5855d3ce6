// Package migrate implements grantor import, which converts the export of another server to the file that grantor apply
// reads. It never guesses: what has no counterpart is reported, and no client gets more than it had.
package migrate

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/oauth"
)

// options are the arguments of the import commands. They come from the command line alone.
type options struct {
	scopesFile, output string
	names, owners      []string
	fallback           string
}

// NewCommand returns grantor import.
func NewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Convert the export of another server to a file for grantor apply",
		// By default cobra prints the help and succeeds for a misspelled subcommand.
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return errors.New("import: the servers are openiddict, hydra and keycloak")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newOpenIddictCommand(), newHydraCommand(), newKeycloakCommand())
	return cmd
}

const importHelp = `

What has no counterpart here is reported on standard error, one line each; no client gets more than it had. The hashes of
the secrets are converted, so that the clients keep their secrets. Review the file, then: grantor apply -f FILE`

func newKeycloakCommand() *cobra.Command {
	var s options
	cmd := &cobra.Command{
		Use:   "keycloak FILE",
		Short: "Convert the clients with service accounts of a realm of Keycloak",
		Long: `Read the export of a realm, as JSON: of kc.sh export --realm NAME, or a partial export of the administration console, which
masks the secrets. Write clients and resources in YAML, for grantor apply.

A client whose service account is enabled is converted with its secret, its default and optional client scopes, and its
lifetime of tokens. A client scope belongs to the audience that its audience mapper adds, or else to the one of its clients;
if there are several, --owner names one. A client that is an audience of others becomes the server of that resource.

What has no counterpart here is reported on standard error, one line each; no client gets more than it had. The file has the
secrets themselves, as the export does: keep both private. Review it, then: grantor apply -f FILE`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.run(cmd, "keycloak", func(i *importer) error { return importKeycloak(i, args[0]) })
		},
	}
	s.declare(cmd)
	return cmd
}

func newOpenIddictCommand() *cobra.Command {
	var s options
	cmd := &cobra.Command{
		Use:   "openiddict FILE",
		Short: "Convert the applications and scopes of OpenIddict",
		Long: `Read the rows of OpenIddict's tables of applications and scopes, as JSON: {"applications": [...], "scopes": [...]}, or only
the applications with the scopes in --scopes. Write clients and resources in YAML, for grantor apply.` + importHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.run(cmd, "openiddict", func(i *importer) error { return importOpenIddict(i, args[0], s.scopesFile) })
		},
	}
	s.declare(cmd)
	cmd.Flags().StringVar(&s.scopesFile, "scopes", "", "`file` with the scopes, if the other has only the applications")
	return cmd
}

func newHydraCommand() *cobra.Command {
	var s options
	cmd := &cobra.Command{
		Use:   "hydra FILE",
		Short: "Convert the OAuth 2.0 clients of Ory Hydra",
		Long: `Read Hydra's clients as JSON: rows of its table hydra_client, which have the hashes of the secrets, or the output of its API
or of hydra list oauth2-clients, which has none. Write clients and resources in YAML, for grantor apply.

A scope of Hydra has no owner; here each belongs to one resource, and so determines the audience of a token. A scope belongs
to the audience of the clients that have it. If they have none, --default-resource names the owner, and if they differ,
--owner does.` + importHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.run(cmd, "hydra", func(i *importer) error { return importHydra(i, args[0]) })
		},
	}
	s.declare(cmd)
	return cmd
}

func (s *options) declare(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.output, "output", "", "`file` to create instead of writing to standard output; it must not exist yet")
	flags.StringArrayVar(&s.names, "resource", nil, "`NAME=URI`: the identifier of the resource or audience NAME here; can be repeated")
	flags.StringArrayVar(&s.owners, "owner", nil, "`SCOPE=URI`: the resource that owns the scope here; can be repeated")
	flags.StringVar(&s.fallback, "default-resource", "", "`URI` of the resource that owns the scopes without one")
}

// run converts the export, writes the manifest and reports what the operator should know.
func (s *options) run(cmd *cobra.Command, server string, read func(*importer) error) error {
	i := newImporter(server)
	if err := s.choose(i); err != nil {
		return err
	}
	if err := read(i); err != nil {
		return cli.InputError(err)
	}
	text, err := i.manifest()
	if err = cmp.Or(err, cmd.Context().Err()); err != nil {
		return err
	}
	if err := s.write(cmd, text); err != nil {
		return err
	}
	i.report(cmd.ErrOrStderr())
	return nil
}

// choose parses the operator's choices.
func (s *options) choose(i *importer) (err error) {
	if i.names, err = pairs("resource", s.names); err != nil {
		return err
	}
	if i.owners, err = pairs("owner", s.owners); err != nil {
		return err
	}
	if s.fallback != "" {
		i.fallback, err = usableResource(s.fallback)
		if err != nil {
			return cli.SettingError("default-resource", err)
		}
	}
	return nil
}

// pairs parses NAME=URI.
func pairs(flag string, texts []string) (map[string]string, error) {
	chosen := make(map[string]string)
	for _, text := range texts {
		name, uri, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, cli.SettingError(flag, fmt.Errorf("%.100q is not NAME=URI", text))
		}
		if _, ok := chosen[name]; ok {
			return nil, cli.SettingError(flag, fmt.Errorf("duplicate %.100q", name))
		}
		uri, err := usableResource(uri)
		if err != nil {
			return nil, cli.SettingError(flag, fmt.Errorf("%.100q: %w", text, err))
		}
		chosen[name] = uri
	}
	return chosen, nil
}

// write writes the manifest. It never overwrites a file, which may be a reviewed manifest, or the export itself.
func (s *options) write(cmd *cobra.Command, text []byte) error {
	if s.output == "" {
		_, err := cmd.OutOrStdout().Write(text)
		return err
	}
	defer cli.Uninterrupted(cmd.Context())()
	// Other users must not read the hashes.
	f, err := os.OpenFile(s.output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%s already exists; name another file, or remove it", s.output)
		}
		return cli.SettingError("output", err)
	}
	_, err = f.Write(text)
	if err = cmp.Or(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(s.output)) // half a manifest is worse than none
	}
	return nil
}

// note is a line of the report.
type note struct {
	rank  int // the order of the subjects
	about string
	text  string
}

// The subjects of the lines, in the order of the report.
const (
	rankFile = iota
	rankResource
	rankScope
	rankClient
)

func (i *importer) notef(rank int, id, format string, args ...any) {
	about := [...]string{"", "resource ", "scope ", "client "}[rank] + shown(id)
	i.notes = append(i.notes, note{rank, about, fmt.Sprintf(format, args...)})
}

// report writes what the operator should review, and how much was converted.
func (i *importer) report(out io.Writer) {
	slices.SortStableFunc(i.notes, func(a, b note) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.about, b.about))
	})
	for _, n := range i.notes {
		_, _ = fmt.Fprintf(out, "%s: %s\n", n.about, n.text)
	}
	_, _ = fmt.Fprintf(out, "clients in the file: %d, resources: %d, scopes: %d; clients left out: %d\n",
		len(i.clients), len(i.resources), len(i.owned), i.leftOut)
}

// usableResource returns uri, or the reason why it cannot identify a resource.
func usableResource(uri string) (string, error) {
	id, err := oauth.ParseResource(uri)
	if err != nil {
		return "", errors.New(string(oauth.From(err).Text))
	}
	return uri, checkResource(id, nil)
}
