package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// overGRPC returns a Fetch that calls the issuer's TokenService. The issuer in its metadata is checked as over HTTP:
// otherwise a wrong name would show only when every token is refused.
func overGRPC(conn grpc.ClientConnInterface, issuer string, plaintext bool) jwks.Fetch {
	service := grantorv1.NewTokenServiceClient(conn)
	var options []grpc.CallOption
	if cc, ok := conn.(*grpc.ClientConn); ok && !plaintext && !oauth.LoopbackTarget(cc.CanonicalTarget()) {
		// gRPC itself then rejects a connection without transport security.
		options = append(options, grpc.PerRPCCredentials(secureOnly{}))
	}
	return func(ctx context.Context) (*jwks.Set, time.Duration, error) {
		description, err := service.GetServerMetadata(ctx, &grantorv1.GetServerMetadataRequest{}, options...)
		if err != nil {
			return nil, 0, err
		}
		if name := description.GetIssuer(); name != issuer {
			return nil, 0, fmt.Errorf("%w: it calls itself %.200q, not %.200q", oauth.ErrOtherIssuer,
				oauth.RedactURL(name), oauth.RedactURL(issuer))
		}
		answer, err := service.GetKeySet(ctx, &grantorv1.GetKeySetRequest{}, options...)
		if err != nil {
			return nil, 0, err
		}
		document, err := json.Marshal(map[string]any{"keys": webKeys(answer.GetKeys())})
		if err != nil {
			return nil, 0, err
		}
		set, err := jwks.Parse(document)
		return set, time.Duration(answer.GetMaxAge()) * time.Second, err
	}
}

// secureOnly is a credential without metadata that requires transport security.
type secureOnly struct{}

func (secureOnly) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, nil
}

func (secureOnly) RequireTransportSecurity() bool { return true }

// webKeys converts keys to the form of RFC 7517 §4, so that key sets have a single parser.
func webKeys(messages []*grantorv1.JsonWebKey) []jwks.JWK {
	keys := make([]jwks.JWK, len(messages))
	for i, m := range messages {
		keys[i] = jwks.JWK{
			KeyType: m.GetKty(), Use: m.GetUse(), Algorithm: m.GetAlg(), ID: m.GetKid(),
			Curve: m.GetCrv(), X: m.GetX(), Y: m.GetY(), N: m.GetN(), E: m.GetE(),
		}
	}
	return keys
}
