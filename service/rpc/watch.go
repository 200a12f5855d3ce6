package rpc

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/revocation"
)

const (
	// HeartbeatInterval is the time between two answers of a stream that has nothing new to report.
	HeartbeatInterval = time.Second
	// DefaultSendTimeout is how long a follower of the revocations may take to accept an answer. A slow one thus holds one
	// answer in memory, never a queue.
	DefaultSendTimeout = 10 * time.Second
	// maxEntries is the maximum number of revocations in one answer.
	maxEntries = 2000
)

// RevocationServer implements grantor.v1.RevocationService.
type RevocationServer struct {
	grantorv1.UnimplementedRevocationServiceServer

	// Feed is followed into Ledger.
	Feed   *revocation.Tail
	Ledger *revocation.Ledger
	Now    func() time.Time
	// SendTimeout is how long a follower may take to accept an answer.
	SendTimeout time.Duration

	following atomic.Int64
	dropped   atomic.Uint64
}

// Subscribers returns how many streams follow the revocations now, and how many were dropped because they were too slow.
func (s *RevocationServer) Subscribers() (following int64, dropped uint64) {
	return s.following.Load(), s.dropped.Load()
}

// WatchRevocations sends the live revocations and then each new one.
func (s *RevocationServer) WatchRevocations(m *grantorv1.WatchRevocationsRequest, stream grantorv1.RevocationService_WatchRevocationsServer) error {
	s.following.Add(1)
	defer s.following.Add(-1)
	ctx := stream.Context()
	// A cursor that cannot be parsed stands for the beginning: sending everything loses nothing.
	cursor, _ := revocation.ParseCursor(m.GetCursor())
	for {
		// The age is taken first: what is appended while the entries are gathered makes them newer, not older.
		age, complete := s.Feed.Age()
		page, known := s.Ledger.After(cursor, maxEntries, s.Now())
		if !known {
			cursor = revocation.Cursor{} // start over: a revocation that is sent twice changes nothing
			continue
		}
		answer := revocations(page.Entries)
		answer.Cursor, answer.AgeMs = cursorText(page.Next), age.Milliseconds()
		answer.Complete = complete && page.Complete
		if err := s.send(ctx, stream, answer); err != nil {
			return err
		}
		cursor = page.Next
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-page.Changed:
		case <-time.After(HeartbeatInterval):
		}
	}
}

// send gives up on a follower that does not accept its answer in time. The pending Send ends with the stream.
func (s *RevocationServer) send(ctx context.Context, stream grantorv1.RevocationService_WatchRevocationsServer, answer *grantorv1.WatchRevocationsResponse) error {
	sent := make(chan error, 1)
	go func() { sent <- stream.Send(answer) }()
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-time.After(s.SendTimeout):
		s.dropped.Add(1)
		return status.Errorf(codes.ResourceExhausted, "an answer was not taken within %s; go on from the last cursor", s.SendTimeout)
	}
}

func revocations(entries []revocation.Entry) *grantorv1.WatchRevocationsResponse {
	answer := &grantorv1.WatchRevocationsResponse{}
	for _, e := range entries {
		switch e.Kind {
		case revocation.TokenRevoked:
			answer.Tokens = append(answer.Tokens, &grantorv1.RevokedToken{Jti: e.ID, Exp: e.At.Unix()})
		case revocation.ClientRevoked:
			answer.Clients = append(answer.Clients, &grantorv1.RevokedClient{ClientId: e.ID, Until: e.At.Unix()})
		case revocation.KeyRevoked:
			answer.Keys = append(answer.Keys, &grantorv1.RevokedKey{Kid: e.ID, At: e.At.Unix()})
		}
	}
	return answer
}

// cursorText returns the text of a cursor on the wire, where the beginning is empty.
func cursorText(c revocation.Cursor) string {
	if c == (revocation.Cursor{}) {
		return ""
	}
	return c.String()
}
