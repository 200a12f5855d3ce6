package attach

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
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
	// both is true once the issuer's metadata have offered both methods.
	both bool
}

func newGRPCEndpoint(c config) (*grpcEndpoint, error) {
	for _, p := range c.parameters {
		if p.name != audience {
			return nil, fmt.Errorf("Parameter: %s cannot be sent over gRPC, only %s can", p.name, audience)
		}
	}
	return &grpcEndpoint{account: c.account, conn: c.conn, plaintext: c.plaintext, instruments: c.instruments}, nil
}

// audience is the one further parameter in an IssueTokenRequest.
const audience = "audience"

// offersOther fetches the issuer's metadata, as a server that only imitates Grantor may not implement both methods.
func (g *grpcEndpoint) offersOther(ctx context.Context) bool {
	if g.method != "" || g.both {
		return g.both
	}
	got, err := guard("the connection", func() (*grantorv1.GetServerMetadataResponse, error) {
		return grantorv1.NewTokenServiceClient(g.conn).GetServerMetadata(ctx, &grantorv1.GetServerMetadataRequest{})
	})
	g.both = err == nil && len(oauth.SecretMethods(got.GetTokenEndpointAuthMethodsSupported())) > 1
	return g.both
}

func (g *grpcEndpoint) forget() { g.both = false }

// requestToken requests a token, once more if the issuer demands a DPoP proof with a nonce.
func (g *grpcEndpoint) requestToken(ctx context.Context, secret string, other bool) (issuedToken, error) {
	return withNonce(func() (issuedToken, error) { return g.requestOnce(ctx, secret, other) })
}

// requestOnce prefers client_secret_post, for which the message has fields.
func (g *grpcEndpoint) requestOnce(ctx context.Context, secret string, other bool) (issuedToken, error) {
	request := &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, Scope: g.scope(), Resource: g.resources}
	for _, p := range g.parameters {
		request.Audience = p.value
	}
	// A credential that requires transport security makes gRPC itself keep the secret off a plaintext connection, even
	// if the credential has no metadata.
	cc, _ := g.conn.(*grpc.ClientConn)
	own := credential{secure: !g.plaintext && !loopback(cc)}
	switch {
	case g.certified:
		request.ClientId = g.id
	case g.assertion != nil:
		made, failure := g.assertion(ctx)
		if failure != nil {
			return issuedToken{}, failure
		}
		secret = made
		request.ClientId, request.ClientAssertion, request.ClientAssertionType = g.id, made, g.assertionType
	case g.method == ClientSecretBasic || g.method == "" && other:
		own.metadata = map[string]string{"authorization": basic(g.id, secret)}
	default:
		request.ClientId, request.ClientSecret = g.id, secret
	}
	got, err := g.issue(ctx, request, own, secret)
	if err != nil {
		return issuedToken{}, err
	}
	if got.GetExpiresIn() <= 0 {
		return issuedToken{}, misuse("the issuer answered with expires_in %d", got.GetExpiresIn())
	}
	return g.newIssuedToken(got.GetAccessToken(), got.GetTokenType(), time.Duration(got.GetExpiresIn())*time.Second, secret)
}

// issue makes the call with the credential, and a DPoP proof if the source has them.
func (g *grpcEndpoint) issue(ctx context.Context, request *grantorv1.IssueTokenRequest, own credential, secret string) (*grantorv1.IssueTokenResponse, error) {
	var sent credentials.PerRPCCredentials = own
	var proven *provenCredential
	if g.prover != nil {
		proven = &provenCredential{prover: g.prover, metadata: own.metadata, secure: own.secure}
		sent = proven
	}
	var call instrument.Call
	if g.instruments != nil {
		ctx, call = g.instruments.rpc.Start(ctx, grantorv1.TokenService_IssueToken_FullMethodName, true)
	}
	var header, trailer metadata.MD
	got, err := grantorv1.NewTokenServiceClient(g.conn).IssueToken(ctx, request, grpc.PerRPCCredentials(sent), grpc.Header(&header), grpc.Trailer(&trailer))
	call.End(err)
	learned := proven.learn(header, trailer)
	if err == nil {
		return got, nil
	}
	cc, _ := g.conn.(*grpc.ClientConn)
	failure := fromStatus(cc, err, secret)
	failure.nonceProvided = learned && failure.Code == oauth.UseDPoPNonce
	return nil, failure
}

// fromStatus converts the error of an IssueToken call, reading the OAuth error code from its google.rpc.ErrorInfo.
func fromStatus(cc *grpc.ClientConn, err error, secret string) *Error {
	if plain := plaintextError(cc, err); plain != nil {
		return misuse("the connection to the issuer: %w", plain)
	}
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == oauth.ErrorDomain {
			refused := refusal(info.GetReason(), s.Message(), secret)
			refused.limited = refused.Code == oauth.TemporarilyUnavailable && s.Code() == codes.ResourceExhausted
			return refused
		}
	}
	return unavailable(fmt.Errorf("rpc error: code = %v desc = %s", s.Code(), sanitize(s.Message(), secret)))
}
