package remote

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// AllScopes requests every administrative scope of the client, as a token request without a scope does. Changing a
// client needs each such scope that the client has or gets, which is unknown before the call.
const AllScopes = ""

// maxPage bounds a response, in bytes: a thousand clients of the maximum size.
const maxPage = 256 << 20

// Admin calls the administrative services of an issuer. The errors of its calls are [*CallError].
type Admin struct {
	*Client

	Clients   grantorv1.ClientServiceClient
	Resources grantorv1.ResourceServiceClient
	Trust     grantorv1.TrustServiceClient
	Keys      grantorv1.KeyServiceClient
}

// Administer calls do with a connection whose calls carry a token with the scopes and end after timeout.
func (c *Connection) Administer(cmd *cobra.Command, timeout time.Duration, scopes string, do func(context.Context, *Admin) error) error {
	credentials, err := c.Credentials(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), Timeout)
	defer cancel()
	client, err := Dial(ctx, c.Issuer, credentials)
	if err != nil {
		return err
	}
	defer client.Close()
	conn, err := client.DialGRPC(
		grpc.WithChainUnaryInterceptor(client.explainCalls(timeout, scopes), client.attachToken(scopes)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxPage)),
	)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return do(cmd.Context(), &Admin{
		Client: client, Clients: grantorv1.NewClientServiceClient(conn),
		Resources: grantorv1.NewResourceServiceClient(conn), Trust: grantorv1.NewTrustServiceClient(conn),
		Keys: grantorv1.NewKeyServiceClient(conn),
	})
}

// attachToken sends each call with a token for the administration. A source finds the client's method itself, except at
// the limit of failed authentications, where a wrong one is refused with temporarily_unavailable; the call, which was
// not sent, is then made with the other method.
func (c *Client) attachToken(scopes string) grpc.UnaryClientInterceptor {
	with := func(options ...attach.Option) grpc.UnaryClientInterceptor {
		if c.DPoP != nil {
			options = append(options, attach.DPoPKey(c.DPoP.key))
		}
		return attach.UnaryInterceptor(attach.ClientCredentials(c.Metadata.Issuer, c.ID, c.Secret, append(options,
			attach.HTTPClient(c.HTTP), attach.TokenURL(c.Metadata.TokenEndpoint), attach.Resources(registry.AdminResource),
			attach.Scopes(strings.Fields(scopes)...))...))
	}
	switch {
	case len(c.Options) > 0:
		return with(slices.Clone(c.Options)...)
	case len(c.methods) == 1:
		return with(attach.AuthMethod(c.methods[0]))
	}
	preferred, other := with(), with(attach.AuthMethod(c.methods[1]))
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := preferred(ctx, method, request, reply, cc, invoke, opts...)
		if refused, ok := errors.AsType[*attach.Error](err); ok && refused.Code == oauth.TemporarilyUnavailable {
			if again := other(ctx, method, request, reply, cc, invoke, opts...); again == nil {
				return nil
			}
		}
		return err
	}
}

// explainCalls bounds the duration of each call and returns its error as a [CallError].
func (c *Client) explainCalls(timeout time.Duration, scopes string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		err := invoke(ctx, method, request, reply, cc, opts...)
		if refused, ok := errors.AsType[*attach.Error](err); ok {
			return c.noToken(refused, scopes)
		}
		if err != nil {
			return c.explain(err)
		}
		return nil
	}
}

// namedScopes returns a phrase for scopes that spaces separate.
func namedScopes(scopes string) string {
	if all := strings.Fields(scopes); len(all) > 1 {
		return "the scopes " + strings.Join(all, " and ")
	}
	return "the scope " + scopes
}

// noToken returns the error of a call for which the client got no token.
func (c *Client) noToken(e *attach.Error, scopes string) error {
	refused := &CallError{Code: e.GRPCStatus().Code(), Text: c.Clean(e.Error())}
	if e.Code == "" {
		return refused
	}
	refused.Code, refused.Text = codeOfOAuth[e.Code], c.refusal(string(e.Code), e.Description)
	if e.Code == oauth.InvalidScope || e.Code == oauth.InvalidTarget {
		needed := "a scope of " + registry.AdminResource
		if scopes != AllScopes {
			needed = namedScopes(scopes)
		}
		refused.Code = codes.PermissionDenied
		refused.Text = cli.Printable(c.ID) + " may not do this, which needs " + needed + "; " + refused.Text
	}
	return refused
}
