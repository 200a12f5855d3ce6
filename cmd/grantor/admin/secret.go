package admin

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
)

func newClientSecretCommand() *cobra.Command {
	return cli.NewGroup("secret", "Administer the secrets of a client",
		`Administer the secrets of a client. Any secret that has not expired authenticates the client, so that a new one can be
deployed before the old one expires:

  grantor client secret rotate background-service > new-secret
  grantor client secret list background-service      # the old one's last use stops when every instance has the new one`,
		newSecretListCommand(), newSecretCreateCommand(), newSecretRotateCommand(), newSecretExpireCommand(), newSecretDeleteCommand())
}

func newSecretListCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "list CLIENT",
		Short:   "List the secrets of a client, without their values",
		Example: `  grantor client secret list background-service`,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeClientsRead, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Clients.GetClient(ctx, &grantorv1.GetClientRequest{ClientId: args[0]})
		if err != nil {
			return cli.About("client", args[0], err)
		}
		list := secretList(a.Printer)
		return list.Page(answer.GetClient().GetSecrets(), true)
	})
}

// secretList returns the list of secrets.
func secretList(p cli.Printer) *cli.List[*grantorv1.ClientSecret] {
	return &cli.List[*grantorv1.ClientSecret]{
		Printer: p, Name: "secrets",
		Header: []string{"SECRET", "KIND", "CREATED", "ENDS", "LAST USED"},
		Row: func(s *grantorv1.ClientSecret) []string {
			return []string{
				s.GetSecretId(), strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "KIND_")),
				cli.FormatTime(s.GetCreateTime(), ""), cli.FormatTime(s.GetExpireTime(), "never"), cli.FormatTime(s.GetLastUseTime(), "never"),
			}
		},
	}
}

func newSecretCreateCommand() *cobra.Command {
	var own ownSecret
	var life secretLifetime
	cmd := newCommand(&cobra.Command{
		Use:   "create CLIENT",
		Short: "Give a client another secret",
		Long: `Give a client another secret; its existing ones stay as they are. Standard output has only the new secret, which is never
shown again; messages go to standard error.`,
		Example: `  grantor client secret create background-service > secret
  grantor client secret create background-service --expires-in 2160h --secret-file chosen`,
		Args: cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		a.Hide(own.value)
		answer, err := a.Clients.CreateClientSecret(ctx, &grantorv1.CreateClientSecretRequest{
			ClientId: args[0], ClientSecret: own.value, ExpireTime: life.end(),
		})
		if err != nil {
			return cli.About("client", args[0], err)
		}
		return a.printSecret(answer, answer.GetClientSecret(), "Client %s has the secret %s.", cli.Printable(args[0]), cli.Printable(answer.GetSecretId()))
	})
	own.declare(cmd)
	life.declare(cmd)
	return cli.WithPreRun(cmd, func(cmd *cobra.Command, _ []string) error { return cmp.Or(life.check(), own.read(cmd)) })
}

func newSecretRotateCommand() *cobra.Command {
	var grace time.Duration
	var life secretLifetime
	cmd := newCommand(&cobra.Command{
		Use:   "rotate CLIENT",
		Short: "Give a client a new secret, and let the others expire",
		Long: `Give a client a new secret, and let every other expire after --grace; one that expires earlier keeps its time. Standard
output has only the new secret, which is never shown again; messages go to standard error.`,
		Example: `  grantor client secret rotate background-service > secret
  grantor client secret rotate background-service --grace 0s       # the old one is known to others`,
		Args: cobra.ExactArgs(1),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Clients.RotateClientSecret(ctx, &grantorv1.RotateClientSecretRequest{
			ClientId: args[0], GracePeriod: durationpb.New(grace), ExpireTime: life.end(),
		})
		if err != nil {
			return cli.About("client", args[0], err)
		}
		return a.printSecret(answer, answer.GetClientSecret(), "Client %s has the new secret %s; any other expires within %s.",
			cli.Printable(args[0]), cli.Printable(answer.GetSecretId()), grace)
	})
	cmd.Flags().DurationVar(&grace, "grace", 24*time.Hour, "`time` for which the other secrets stay valid")
	life.declare(cmd)
	return cli.WithPreRun(cmd, func(*cobra.Command, []string) error { return life.check() })
}

// secretLifetime is how long a new secret is valid.
type secretLifetime struct{ life time.Duration }

func (l *secretLifetime) declare(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&l.life, "expires-in", 0, "`time` after which the new secret expires; default: never")
}

func (l *secretLifetime) check() error {
	if l.life < 0 {
		return cli.SettingError("expires-in", errors.New("is in the past"))
	}
	return nil
}

func (l *secretLifetime) end() *timestamppb.Timestamp {
	if l.life == 0 {
		return nil
	}
	return timestamppb.New(time.Now().Add(l.life))
}

func newSecretExpireCommand() *cobra.Command {
	var in time.Duration
	var never bool
	cmd := newCommand(&cobra.Command{
		Use:   "expire CLIENT SECRET",
		Short: "Change when a secret expires",
		Long: `Let a secret expire now, or after --in; with --never it does not expire. Tokens that were issued for it stay valid until they
expire; grantor client revoke revokes them.`,
		Example: `  grantor client secret expire background-service k3v9q2xa
  grantor client secret expire background-service k3v9q2xa --in 48h`,
		Args: cobra.ExactArgs(2),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		secret := &grantorv1.ClientSecret{SecretId: args[1]}
		if !never {
			secret.ExpireTime = timestamppb.New(time.Now().Add(in))
		}
		answer, err := a.Clients.UpdateClientSecret(ctx, &grantorv1.UpdateClientSecretRequest{
			ClientId: args[0], Secret: secret, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"expire_time"}},
		})
		if err != nil {
			return cli.About("client", args[0], cli.About("secret", args[1], err))
		}
		return a.Printf(answer.GetClient(), "Secret %s of %s %s.", cli.Printable(args[1]), cli.Printable(args[0]), expiry(answer.GetClient(), args[1]))
	})
	cmd.Flags().DurationVar(&in, "in", 0, "`time` until it expires; default: it expires now")
	cmd.Flags().BoolVar(&never, "never", false, "let it never expire")
	return cli.WithPreRun(cmd, func(cmd *cobra.Command, _ []string) error {
		if in < 0 {
			return cli.SettingError("in", errors.New("is in the past"))
		}
		return exclusive(cmd.Flags(), "in", "never")
	})
}

// expiry says when a secret of a client expires.
func expiry(c *grantorv1.Client, secretID string) string {
	for _, secret := range c.GetSecrets() {
		if secret.GetSecretId() == secretID && secret.GetExpireTime() != nil {
			return "expires at " + cli.FormatTime(secret.GetExpireTime(), "")
		}
	}
	return "never expires"
}

func newSecretDeleteCommand() *cobra.Command {
	return cli.WithConfirmation(newCommand(&cobra.Command{
		Use:   "delete CLIENT SECRET",
		Short: "Delete a secret at once",
		Long: `Delete a secret at once. Tokens that were issued for it stay valid until they expire; grantor client revoke revokes them. A
file that still has the secret adds it again when it is applied.`,
		Example: `  grantor client secret delete background-service k3v9q2xa --yes`,
		Args:    cobra.ExactArgs(2),
	}, remote.AllScopes, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := a.Clients.DeleteClientSecret(ctx, &grantorv1.DeleteClientSecretRequest{ClientId: args[0], SecretId: args[1]})
		if err != nil {
			return cli.About("client", args[0], cli.About("secret", args[1], err))
		}
		return a.Printf(answer.GetClient(), "Secret %s of %s is deleted.", cli.Printable(args[1]), cli.Printable(args[0]))
	}), "This deletes the secret.")
}
