package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

func TestStoreUnavailable(t *testing.T) {
	dialer := net.Dialer{Timeout: time.Nanosecond}
	_, unreachable := dialer.DialContext(t.Context(), "tcp", "127.0.0.1:1")
	if !errors.Is(unreachable, context.DeadlineExceeded) {
		t.Fatalf("got %v, want a timeout", unreachable)
	}
	for name, test := range map[string]struct {
		cause error
		want  oauth.Reason
	}{
		"no answer":             {errors.New("connection refused"), oauth.StoreUnreachable},
		"connecting timed out":  {fmt.Errorf("reading: %w", unreachable), oauth.StoreUnreachable},
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
