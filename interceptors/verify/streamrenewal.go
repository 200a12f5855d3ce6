package verify

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// RegisterStreamRenewal registers grantor.v1.StreamService, with which clients renew the tokens of their streams.
// Without it, a stream ends with its token. Clients that use interceptors/attach renew their streams automatically. The
// handler goes on to see the caller with which the stream began.
//
// The new token must be of the same issuer, client and subject, have at least the scopes of the first one and each
// resource of this server in its audience, and be bound to a key of the same kind, which the call proves; otherwise the
// stream ends. Other claims are not compared: a service that decides by a claim of another issuer, such as a role, must
// not register stream renewal.
//
// The server must be guarded by verifier.
func RegisterStreamRenewal(server grpc.ServiceRegistrar, verifier *Verifier) {
	grantorv1.RegisterStreamServiceServer(server, &renewal{verifier: orZero(verifier)})
}

// renewal implements grantor.v1.StreamService.
type renewal struct {
	grantorv1.UnimplementedStreamServiceServer

	verifier *Verifier
}

// RenewStream replaces the token of a stream by the token of this call.
func (r *renewal) RenewStream(ctx context.Context, m *grantorv1.RenewStreamRequest) (*grantorv1.RenewStreamResponse, error) {
	caller, ok := CallerFrom(ctx)
	if !ok {
		return nil, status.Error(codes.PermissionDenied, "The server does not guard this method.")
	}
	if !streamID.MatchString(m.GetStream()) {
		return nil, status.Error(codes.InvalidArgument, "stream must be 16 to 64 characters of base64url.")
	}
	member := r.verifier.member(caller.Claims)
	if member == nil || member.streams == nil {
		return nil, errNoStream // the server is guarded by another verifier
	}
	return &grantorv1.RenewStreamResponse{}, member.streams.renew(m.GetStream(), caller.Claims)
}
