package service_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestSourceShare floods each method that takes a secret with wrong chosen ones from one source, fewer than fit into the
// queue for slow hashes. Some exceed the source's share of the queue, whichever method it is.
func TestSourceShare(t *testing.T) {
	const flood = 40
	const id, wrong, about = "nobody", "a wrong secret", "a.b.c"
	client := grantorv1.NewTokenServiceClient(tokentest.New(t).Conn(t))
	for name, call := range map[string]func(context.Context) error{
		"IssueToken": func(ctx context.Context) error {
			_, err := client.IssueToken(ctx, &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: id, ClientSecret: wrong})
			return err
		},
		"IntrospectToken": func(ctx context.Context) error {
			_, err := client.IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{ClientId: id, ClientSecret: wrong, Token: about})
			return err
		},
		"RevokeToken": func(ctx context.Context) error {
			_, err := client.RevokeToken(ctx, &grantorv1.RevokeTokenRequest{ClientId: id, ClientSecret: wrong, Token: about})
			return err
		},
		"RevokeClientTokens": func(ctx context.Context) error {
			_, err := client.RevokeClientTokens(ctx, &grantorv1.RevokeClientTokensRequest{ClientId: id, ClientSecret: wrong})
			return err
		},
	} {
		var limited, refused atomic.Int64
		var calls sync.WaitGroup
		for range flood {
			calls.Go(func() {
				switch err := call(t.Context()); status.Code(err) {
				case codes.ResourceExhausted:
					limited.Add(1)
				case codes.Unauthenticated:
					refused.Add(1)
				default:
					t.Errorf("%s: got %v, want a refusal", name, err)
				}
			})
		}
		calls.Wait()
		if limited.Load() == 0 || refused.Load() == 0 {
			t.Errorf("%s: %d exceeded the share and %d were refused, want some of each", name, limited.Load(), refused.Load())
		}
	}
}
