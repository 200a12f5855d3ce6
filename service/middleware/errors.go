package middleware

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/status"
	"github.com/grantorhq/grantor/service/telemetry"
)

// mapErrors converts domain errors returned by handlers to gRPC statuses, and records those of the administrative
// services. The token service has recorded its own, with what it knows of the client.
type mapErrors struct{ events *telemetry.Recorder }

// convert returns the status for an error of a handler, which it records if the method is administrative.
func (m mapErrors) convert(ctx context.Context, fullMethod string, err error) error {
	if status.Is(err) || !administrative(fullMethod) {
		return status.From(err)
	}
	cause := err
	err = status.OrStore(ctx, err)
	answer, method := status.From(err), strings.TrimPrefix(fullMethod, "/")
	m.events.AdminRefused(ctx, method, Administrator(ctx), string(status.Refusal(err).Code), cause)
	if code := grpcstatus.Code(answer); code == codes.Unavailable || code == codes.Internal {
		m.events.Fault(ctx, "an administrative call failed", method, slog.Any("error", cause))
	}
	return answer
}

// administrative reports whether the method, "/package.Service/Method", is one of the administrative services.
func administrative(fullMethod string) bool {
	service, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	switch service {
	case grantorv1.ClientService_ServiceDesc.ServiceName, grantorv1.ResourceService_ServiceDesc.ServiceName,
		grantorv1.TrustService_ServiceDesc.ServiceName, grantorv1.KeyService_ServiceDesc.ServiceName:
		return true
	}
	return false
}

// Administrator returns the caller of an administrative call, or the zero value if ctx is not that of one.
func Administrator(ctx context.Context) telemetry.Administrator {
	caller, _ := verify.CallerFrom(ctx)
	return telemetry.Administrator{ClientID: caller.ClientID, Peer: remoteaddr.FromContext(ctx).String()}
}

// Unread records, as the audit event with the name, the refusal of a request over REST that could not be read, so that no
// call came of it.
func (c *Chain) Unread(ctx context.Context, event string, refusal *oauth.Error) {
	peer := remoteaddr.FromContext(ctx).String()
	switch event {
	case telemetry.EventAdminRefused:
		c.events.AdminRefused(ctx, "", telemetry.Administrator{Peer: peer}, string(refusal.Why()), refusal)
	case telemetry.EventTokenRefused:
		c.events.TokenRefused(ctx, telemetry.Token{Peer: peer}, refusal)
	default:
		c.events.Refused(ctx, event, telemetry.Token{Peer: peer}, refusal)
	}
}
