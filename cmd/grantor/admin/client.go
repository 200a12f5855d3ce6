package admin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// NewClientCommand returns grantor client.
func NewClientCommand() *cobra.Command {
	return cli.NewGroup("client", "Administer the clients of a running issuer",
		`Administer the clients of a running issuer, and their secrets.

The calling client needs the scopes grantor:clients.read and grantor:clients.write, and every scope "grantor:…" that the
client it changes has or gets. See also: grantor help profiles, grantor help exit-codes.`,
		newClientListCommand(), newClientGetCommand(), newClientCreateCommand(), newClientUpdateCommand(),
		newClientEnableCommand(true), newClientEnableCommand(false), newClientDeleteCommand(), newClientRevokeCommand(),
		newClientSecretCommand())
}

func newClientListCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:   "list",
		Short: "List the clients",
		Example: `  grantor client list
  grantor client list -o json | jq -r '.clients[] | select(.disabled) | .client_id'`,
		Args: cobra.ExactArgs(0),
	}, registry.ScopeClientsRead, func(ctx context.Context, a *administrator, _ []string) error {
		list := cli.List[*grantorv1.Client]{
			Printer: a.Printer, Name: "clients",
			Header: []string{"CLIENT", "NAME", "STATE", "SECRETS", "CHANGED", "SCOPES"},
			Row: func(c *grantorv1.Client) []string {
				return []string{
					c.GetClientId(), c.GetClientName(), state(c),
					strconv.Itoa(len(c.GetSecrets())), cli.FormatTime(c.GetUpdateTime(), ""), strings.Join(c.GetScopes(), " "),
				}
			},
		}
		return list.Pages(a.cmd, func(token string) ([]*grantorv1.Client, string, error) {
			page, err := a.Clients.ListClients(ctx, &grantorv1.ListClientsRequest{PageSize: cli.PageSize, PageToken: token})
			return page.GetClients(), page.GetNextPageToken(), err
		})
	})
}

func state(c *grantorv1.Client) string {
	if c.GetDisabled() {
		return "disabled"
	}
	return "enabled"
}

func newClientGetCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "get ID",
		Short:   "Show a client",
		Example: `  grantor client get background-service`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeClientsRead, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Clients.GetClient(ctx, &grantorv1.GetClientRequest{ClientId: args[0]})
		if err != nil {
			return cli.About("client", args[0], err)
		}
		return a.Print(answer.GetClient(), func(out io.Writer) error { return describeClient(out, answer.GetClient()) })
	})
}

// describeClient prints a client for people, with the field names of the manifest.
func describeClient(out io.Writer, c *grantorv1.Client) error {
	lines := append([][]string{{"client_id", c.GetClientId()}}, fieldLines(c, registry.ClientFields())...)
	for _, line := range lines {
		if ids := keyIDs(c); line[0] == keysField && ids != "" {
			line[1] = ids // the whole set is for scripts
		}
	}
	err := cli.WriteTable(out, append(lines,
		[]string{"create_time", cli.FormatTime(c.GetCreateTime(), "")},
		[]string{"update_time", cli.FormatTime(c.GetUpdateTime(), "")},
		[]string{"etag", c.GetEtag()},
	)...)
	if err != nil || len(c.GetSecrets()) == 0 {
		return err
	}
	_, _ = fmt.Fprintln(out)
	return secretList(cli.Printer{Out: out, Form: "text"}).Page(c.GetSecrets(), true)
}

func newClientCreateCommand() *cobra.Command {
	var change *fieldChange
	var keys keyChange
	var own ownSecret
	var without, disabled bool
	cmd := newCommand(&cobra.Command{
		Use:   "create ID",
		Short: "Register a client",
		Long: `Register a client and give it a secret, unless a flag gives it a key. Standard output has only the secret, which is never
shown again; messages go to standard error. A client with scopes gets the grant client_credentials, unless --grant-type says
otherwise.

A client with a key needs no secret: it signs an assertion for each token request (private_key_jwt). --generate-key makes
the key here, and the issuer gets its public half alone; --jwks-file registers a key that was made elsewhere.`,
		Example: `  grantor client create background-service --name "Background Service" --scope api1 > secret
  grantor client create background-service --scope api1 --generate-key background-service.pem
  grantor client create orders-api --resource https://orders.internal --without-secret`,
		Args: cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		client := &grantorv1.Client{ClientId: args[0], Disabled: new(disabled)}
		change.apply(client)
		if _, err := keys.apply(client); err != nil {
			return err
		}
		if len(client.GetScopes()) > 0 && !change.flags.Changed("grant-type") {
			client.GrantTypes = []string{oauth.GrantClientCredentials} // the only grant that uses scopes
		}
		a.Hide(own.value)
		answer, err := a.Clients.CreateClient(ctx, &grantorv1.CreateClientRequest{
			Client: client, ClientSecret: own.value, WithoutSecret: without || own.file == "" && hasKeys(client),
		})
		if err != nil {
			keys.discard(err)
			return cli.About("client", args[0], err)
		}
		if keys.generate != "" {
			return a.Print(answer, func(io.Writer) error {
				a.cmd.PrintErrf("Client %s is registered. Its private key is in %s.\n", cli.Printable(args[0]), keys.generate)
				return nil
			})
		}
		return a.printSecret(answer, answer.GetClientSecret(), "Client %s is registered.", cli.Printable(args[0]))
	})
	change = newFieldChange(cmd, registry.ClientFields(), clientFlags)
	keys.declareGenerate(cmd, "`file` to write a new private key to, in PEM; its public key is registered, and the client gets no secret")
	own.declare(cmd)
	cmd.Flags().BoolVar(&without, "without-secret", false, "give it no secret")
	cmd.Flags().BoolVar(&disabled, "disabled", false, "do not let it request tokens for now")
	return cli.WithPreRun(cmd, func(cmd *cobra.Command, _ []string) error {
		err := cmp.Or(exclusive(cmd.Flags(), "without-secret", "secret-file"), exclusive(cmd.Flags(), "generate-key", "secret-file"), keys.check())
		if err != nil {
			return err
		}
		return own.read(cmd)
	})
}

// hasKeys reports whether a client has keys, or a place of them.
func hasKeys(c *grantorv1.Client) bool { return c.GetJwks() != nil || c.GetJwksUri() != "" }

// printSecret prints a result with a new secret. For people, standard output has only the secret, and the message goes
// to standard error.
func (a *administrator) printSecret(answer proto.Message, secret, format string, args ...any) error {
	return a.Print(answer, func(out io.Writer) error {
		a.cmd.PrintErrf(format+"\n", args...)
		if secret == "" {
			return nil
		}
		a.cmd.PrintErrln("This is the secret; it is not shown again:")
		_, err := fmt.Fprintln(out, cli.Printable(secret))
		return err
	})
}

func newClientUpdateCommand() *cobra.Command {
	var change *fieldChange
	var keys keyChange
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:   "update ID",
		Short: "Change a client",
		Long: `Change the fields of a client for which a flag is given, and leave the others as they are. An empty value clears a field.
If the client is changed concurrently, the command fails with exit code 5 and changes nothing; with --etag it also does so
if the client was changed since it was read.`,
		Example: `  grantor client update background-service --add-scope orders.read
  grantor client update background-service --scope "api1 orders.read" --access-token-lifetime 10m
  grantor client update background-service --default-scope ""
  grantor client update background-service --generate-key next.pem
  grantor client update background-service --remove-key "$KID"`,
		Args: cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		read, err := a.Clients.GetClient(ctx, &grantorv1.GetClientRequest{ClientId: args[0]})
		if err != nil {
			return cli.About("client", args[0], err)
		}
		client := read.GetClient()
		fields := change.apply(client)
		keysChanged, err := keys.apply(client)
		if err != nil {
			return err
		}
		if etag != "" {
			client.Etag = etag
		}
		answer, err := a.Clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: client, UpdateMask: &fieldmaskpb.FieldMask{Paths: append(fields, keysChanged...)}})
		if err != nil {
			keys.discard(err)
			return cli.About("client", args[0], err)
		}
		return a.Printf(answer.GetClient(), "Client %s is changed.", cli.Printable(args[0]))
	})
	change = newFieldChange(cmd, registry.ClientFields(), clientFlags)
	change.declareScopeEdits()
	keys.declareGenerate(cmd, "`file` to write a new private key to, in PEM; its public key is added to the client's jwks")
	keys.declareRemove()
	change.further = []string{"generate-key", "remove-key"}
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor client get shows it")
	return cli.WithPreRun(cmd, func(cmd *cobra.Command, args []string) error {
		return cmp.Or(change.check(cmd, args), keys.check())
	})
}

// newClientEnableCommand returns the command that enables a client, or the one that disables it.
func newClientEnableCommand(enable bool) *cobra.Command {
	cmd, done := &cobra.Command{
		Use:   "disable ID",
		Short: "Stop a client from requesting tokens, and revoke its tokens",
		Long: `Stop a client from requesting tokens, and revoke its tokens. Its secrets stay, so that grantor client enable restores
everything but the tokens.`,
		Example: `  grantor client disable background-service`,
	}, "Client %s is disabled, and its tokens are revoked."
	if enable {
		cmd, done = &cobra.Command{
			Use:     "enable ID",
			Short:   "Let a disabled client request tokens again",
			Example: `  grantor client enable background-service`,
		}, "Client %s is enabled."
	}
	cmd.Args = cobra.ExactArgs(1)
	return newCommand(cmd, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{
			Client:     &grantorv1.Client{ClientId: args[0], Disabled: new(!enable)},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
		})
		if err != nil {
			return cli.About("client", args[0], err)
		}
		return a.Printf(answer.GetClient(), done, cli.Printable(args[0]))
	})
}

func newClientDeleteCommand() *cobra.Command {
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:   "delete ID",
		Short: "Delete a client, and revoke its tokens",
		Example: `  grantor client delete background-service
  grantor client delete background-service --yes`,
		Args: cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: args[0], Etag: etag})
		if err != nil {
			return cli.About("client", args[0], err)
		}
		return a.Printf(answer, "Client %s is deleted, and its tokens are revoked.", cli.Printable(args[0]))
	})
	cmd.Flags().StringVar(&etag, "etag", "", "the `state` that is meant, as grantor client get shows it")
	return cli.WithConfirmation(cmd, "This deletes the client with its secrets, and revokes its tokens.")
}

func newClientRevokeCommand() *cobra.Command {
	return cli.WithConfirmation(newCommand(&cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke all tokens of a client that were issued until now",
		Long: `Revoke all tokens of a client that were issued until now. The client itself stays as it is and can request new ones;
grantor client disable prevents that.`,
		Example: `  grantor client revoke background-service --yes`,
		Args:    cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Clients.RevokeTokens(ctx, &grantorv1.RevokeTokensRequest{ClientId: args[0]})
		if err != nil {
			return cli.About("client", args[0], err)
		}
		return a.Printf(answer, "All tokens of %s that were issued until now are revoked.", cli.Printable(args[0]))
	}), "This revokes every token of the client that was issued until now.")
}
