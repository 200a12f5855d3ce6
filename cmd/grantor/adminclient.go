package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// allScopes stands for every scope of the administration that the client gets when it names none. A change of a client
// takes a token with each such scope that the client has or gets, and those are not known beforehand.
const allScopes = ""

// maxPage bounds an answer, in bytes: a thousand clients with all that they may have.
const maxPage = 256 << 20

// adminSettings are what the commands that administer an issuer have in common. They come from flags and environment, and
// from a profile; what one call is about comes from its arguments alone.
type adminSettings struct {
	connection

	flags  *pflag.FlagSet
	output string
}

// newAdminCommand makes a command with these settings. do is called with what it takes to carry it out.
func newAdminCommand(cmd *cobra.Command, scopes string, do func(context.Context, *administrator, []string) error) *cobra.Command {
	s := &adminSettings{flags: pflag.NewFlagSet("admin", pflag.ContinueOnError)}
	s.declare(s.flags, localIssuer)
	s.flags.StringVarP(&s.output, "output", "o", "text", "`form` of the output: text for people, json or yaml for scripts")
	cmd.PreRunE = s.prepare
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.talk(cmd, scopes, func(ctx context.Context, a *administrator) error { return do(ctx, a, args) })
	}
	cmd.Flags().AddFlagSet(s.flags)
	complete(cmd, "output", "text", "json", "yaml")
	return cmd
}

// complete gives the shell the values of a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	// It fails only for a flag that there is not, or that has them already.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// prepare reads the settings from where they are.
func (s *adminSettings) prepare(*cobra.Command, []string) error {
	if err := resolve(s.flags); err != nil {
		return err
	}
	if s.output != "text" && s.output != "json" && s.output != "yaml" {
		return settingError("output", fmt.Errorf("%.20q is none of text, json and yaml", s.output))
	}
	return s.fill(s.flags)
}

// administrator reaches the administrative services of an issuer. Errors of its calls are [*callError].
type administrator struct {
	*tokenClient
	printer

	cmd       *cobra.Command
	clients   grantorv1.ClientServiceClient
	resources grantorv1.ResourceServiceClient
	keys      grantorv1.KeyServiceClient
}

// talk reaches the issuer's administration and hands it on.
func (s *adminSettings) talk(cmd *cobra.Command, scopes string, do func(context.Context, *administrator) error) error {
	return s.administer(cmd, tokenTimeout, scopes, func(ctx context.Context, a *administrator) error {
		a.printer = printer{cmd.OutOrStdout(), s.output}
		return do(ctx, a)
	})
}

// administer opens a connection whose calls carry a token with the scopes, and end after a time.
func (c *connection) administer(cmd *cobra.Command, timeout time.Duration, scopes string, do func(context.Context, *administrator) error) error {
	secret, err := c.credentials(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), tokenTimeout)
	defer cancel()
	client, err := newTokenClient(ctx, c.issuer, c.clientID, secret)
	if err != nil {
		return err
	}
	defer client.close()
	source := attach.ClientCredentials(c.issuer, c.clientID, secret, attach.HTTPClient(client.http),
		attach.TokenURL(client.found.TokenEndpoint), attach.Resources(registry.AdminResource), attach.Scopes(strings.Fields(scopes)...))
	conn, err := client.dial(
		grpc.WithChainUnaryInterceptor(client.explained(timeout, scopes), attach.UnaryInterceptor(source)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxPage)),
	)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return do(cmd.Context(), &administrator{
		tokenClient: client, cmd: cmd, clients: grantorv1.NewClientServiceClient(conn),
		resources: grantorv1.NewResourceServiceClient(conn), keys: grantorv1.NewKeyServiceClient(conn),
	})
}

// explained bounds each call in time and words what went wrong with it.
func (c *tokenClient) explained(timeout time.Duration, scopes string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		err := invoke(ctx, method, request, reply, cc, opts...)
		if refused, ok := errors.AsType[*attach.Error](err); ok {
			return c.noToken(refused, scopes)
		}
		return c.explain(err)
	}
}

// noToken words why there is no token to make a call with.
func (c *tokenClient) noToken(e *attach.Error, scopes string) error {
	refused := &callError{code: e.GRPCStatus().Code(), text: c.clean(e.Error())}
	if e.Code == "" {
		return refused
	}
	refused.code, refused.text = codeOfOAuth[e.Code], c.refusal(string(e.Code), e.Description)
	if e.Code == oauth.InvalidScope || e.Code == oauth.InvalidTarget {
		needed := "a scope of " + registry.AdminResource
		if scopes != allScopes {
			needed = "the scope " + scopes
		}
		refused.code = codes.PermissionDenied
		refused.text = visible(c.id) + " may not do this, which takes " + needed + "; " + refused.text
	}
	return refused
}

// before has something looked at before the command talks to anybody.
func before(cmd *cobra.Command, look func(cmd *cobra.Command, args []string) error) *cobra.Command {
	prepare := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := prepare(cmd, args); err != nil {
			return err
		}
		return look(cmd, args)
	}
	return cmd
}

// about names what a call that failed was about.
func about(kind, id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", kind, visible(id), err)
}
