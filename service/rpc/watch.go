package rpc

import (
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/broadcast"
)

// RevocationServer implements grantor.v1.RevocationService.
type RevocationServer struct {
	grantorv1.UnimplementedRevocationServiceServer

	Hub *broadcast.Hub
}

// WatchRevocations sends the live revocations and then each new one.
func (s *RevocationServer) WatchRevocations(m *grantorv1.WatchRevocationsRequest, stream grantorv1.RevocationService_WatchRevocationsServer) error {
	return s.Hub.Follow(m, stream)
}
