package attach

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/instrument"
	"github.com/grantorhq/grantor/service/oauth"
)

// grpcEndpoint is the grantor.v1.TokenService of an issuer.
type grpcEndpoint struct {
	account
	conn        grpc.ClientConnInterface
	plaintext   bool
	instruments *instruments
}

func (g *grpcEndpoint) requestToken(ctx context.Context, secret string) (issuedToken, error) {
	// A credential without metadata that requires transport security makes gRPC itself keep the secret off a plaintext
	// connection.
	cc, _ := g.conn.(*grpc.ClientConn)
	guard := grpc.PerRPCCredentials(credential{secure: !g.plaintext && !loopback(cc)})
	var call instrument.Call
	if g.instruments != nil {
		ctx, call = g.instruments.rpc.Start(ctx, grantorv1.TokenService_IssueToken_FullMethodName, true)
	}
	got, err := grantorv1.NewTokenServiceClient(g.conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: g.id, ClientSecret: secret,
		Scope: g.scope(), Resource: g.resources,
	}, guard)
	call.End(err)
	if err != nil {
		return issuedToken{}, fromStatus(cc, err, secret)
	}
	if got.GetExpiresIn() <= 0 {
		return issuedToken{}, misuse("the issuer answered with expires_in %d", got.GetExpiresIn())
	}
	return newIssuedToken(got.GetAccessToken(), got.GetTokenType(), time.Duration(got.GetExpiresIn())*time.Second, secret)
}

// fromStatus converts the error of an IssueToken call, reading the OAuth error code from its google.rpc.ErrorInfo.
func fromStatus(cc *grpc.ClientConn, err error, secret string) error {
	if plain := plaintextError(cc, err); plain != nil {
		return misuse("the connection to the issuer: %w", plain)
	}
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == oauth.ErrorDomain {
			return refusal(info.GetReason(), s.Message(), secret)
		}
	}
	return unavailable(fmt.Errorf("rpc error: code = %v desc = %s", s.Code(), sanitize(s.Message(), secret)))
}
