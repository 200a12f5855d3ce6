package middleware_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/middleware"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/telemetry"
)

// TestMapErrors has handlers of administrative methods, and one of another, fail. What is not known of an administrative
// method came from the store.
func TestMapErrors(t *testing.T) {
	for name, test := range map[string]struct {
		method string
		err    error
		code   codes.Code
		logged string // "" where the error is not audited
		fault  bool
	}{
		"known":           {grantorv1.ClientService_GetClient_FullMethodName, registry.ErrNotFound, codes.NotFound, "reason=not_found ", false},
		"the store":       {grantorv1.KeyService_ListKeys_FullMethodName, errors.New("down"), codes.Unavailable, "reason=temporarily_unavailable cause=down", true},
		"too new":         {grantorv1.ResourceService_GetResource_FullMethodName, registry.ErrNewer, codes.Unavailable, "reason=temporarily_unavailable ", true},
		"a status":        {grantorv1.ClientService_GetClient_FullMethodName, status.Error(codes.Canceled, "gone"), codes.Canceled, "", false},
		"another service": {grantorv1.TokenService_GetKeySet_FullMethodName, errors.New("down"), codes.Internal, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			log := &must.Buffer{}
			events := must.Get(telemetry.New(slog.New(slog.NewTextHandler(log, nil)), noop.NewMeterProvider().Meter(""), nil, nil))
			expectCode(t, middleware.MapErrors(events)(t.Context(), test.method, test.err), test.code)
			audited := strings.Contains(log.String(), "event=admin.refused")
			if audited != (test.logged != "") || !strings.Contains(log.String(), test.logged) {
				t.Errorf("got %q, want it to have %q", log, test.logged)
			}
			if got := strings.Contains(log.String(), "level=ERROR"); got != test.fault {
				t.Errorf("logged as a fault: got %t, want %t", got, test.fault)
			}
		})
	}
}
