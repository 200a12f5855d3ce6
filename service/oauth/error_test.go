package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/grantorhq/grantor/service/oauth"
)

func TestStoreUnavailable(t *testing.T) {
	for name, test := range map[string]struct {
		cause error
		want  oauth.Reason
	}{
		"no answer":             {errors.New("connection refused"), oauth.StoreUnreachable},
		"caller went away":      {fmt.Errorf("reading: %w", context.Canceled), oauth.CallEnded},
		"caller's deadline":     {fmt.Errorf("reading: %w", context.DeadlineExceeded), oauth.CallEnded},
		"without further cause": {nil, oauth.StoreUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			got := oauth.StoreUnavailable(oauth.StoreUnreachable, test.cause)
			if got.Code != oauth.TemporarilyUnavailable || got.Why() != test.want || !errors.Is(got, test.cause) && test.cause != nil {
				t.Errorf("got %v, reason %q, want %q", got, got.Why(), test.want)
			}
		})
	}
}
