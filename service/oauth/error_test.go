package oauth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

func TestStoreUnavailable(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx   context.Context //nolint:containedctx // of a call
		cause error
		want  oauth.Reason
	}{
		"no answer":                 {t.Context(), errors.New("connection refused"), oauth.StoreUnreachable},
		"store's own timeout":       {t.Context(), context.DeadlineExceeded, oauth.StoreUnreachable},
		"caller went away":          {canceled, context.Canceled, oauth.CallEnded},
		"connection noticed first":  {lateContext{t.Context()}, errors.New("i/o timeout"), oauth.CallEnded},
		"refused while caller left": {canceled, errors.New("connection refused"), oauth.CallEnded},
	} {
		t.Run(name, func(t *testing.T) {
			got := oauth.StoreUnavailable(test.ctx, oauth.StoreUnreachable, test.cause)
			if got.Code != oauth.TemporarilyUnavailable || got.Why() != test.want || !errors.Is(got, test.cause) {
				t.Errorf("got %v, reason %q, want %q", got, got.Why(), test.want)
			}
			if retry := got.RetryAfter > 0; retry != (test.want == oauth.StoreUnreachable) {
				t.Errorf("got RetryAfter %s", got.RetryAfter)
			}
		})
	}
}

// lateContext is a context whose deadline has passed and that has not ended.
type lateContext struct{ context.Context } //nolint:containedctx // it is one

func (lateContext) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }
