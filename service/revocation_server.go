package service

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/revocation"
)

const (
	// heartbeatInterval is how often an answer comes when there is nothing to tell.
	heartbeatInterval = time.Second
	// answerSize is how many revocations one answer has at the most.
	answerSize = 2000
	// slowest is how long a follower may take to accept an answer. What a slow one holds is one answer, never a queue.
	slowest = 10 * time.Second
)

// revocationServer is grantor.v1.RevocationService.
type revocationServer struct {
	grantorv1.UnimplementedRevocationServiceServer
	issuer *issuer
	// slowest is the constant; tests have less of it.
	slowest time.Duration
	*subscribers
}

// subscribers counts who follow the revocations, and who were given up.
type subscribers struct {
	following atomic.Int64
	dropped   atomic.Uint64
}

// WatchRevocations gives the live revocations and then each new one.
func (s *revocationServer) WatchRevocations(m *grantorv1.WatchRevocationsRequest, stream grantorv1.RevocationService_WatchRevocationsServer) error {
	s.following.Add(1)
	defer s.following.Add(-1)
	ctx := stream.Context()
	cursor := parseCursor(m.GetCursor())
	for {
		// The age is taken first: what is appended while the entries are gathered makes them newer, not older.
		age, complete := s.issuer.feed.Age()
		page, known := s.issuer.ledger.After(cursor, answerSize, s.issuer.now())
		if !known {
			cursor = revocation.Cursor{} // begin anew: what is told twice changes nothing
			continue
		}
		answer := watched(page.Entries)
		answer.Cursor, answer.AgeMs = cursorText(page.Next), age.Milliseconds()
		answer.Complete = complete && page.Complete
		if err := s.send(ctx, stream, answer); err != nil {
			return err
		}
		cursor = page.Next
		if err := wait(ctx, page.Changed); err != nil {
			return err
		}
	}
}

// wait returns when there is more to tell, or a heartbeat is due.
func wait(ctx context.Context, grown <-chan struct{}) error {
	timer := time.NewTimer(heartbeatInterval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-grown:
	case <-timer.C:
	}
	return nil
}

// send gives up on a follower that does not take its answer in time. The send that is left behind ends with the stream.
func (s *revocationServer) send(ctx context.Context, stream grantorv1.RevocationService_WatchRevocationsServer, answer *grantorv1.WatchRevocationsResponse) error {
	sent := make(chan error, 1)
	go func() { sent <- stream.Send(answer) }()
	timer := time.NewTimer(s.slowest)
	defer timer.Stop()
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-timer.C:
		s.dropped.Add(1)
		return status.Errorf(codes.ResourceExhausted, "an answer was not taken within %s; go on from the last cursor", s.slowest)
	}
}

func watched(entries []revocation.Entry) *grantorv1.WatchRevocationsResponse {
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

// cursorText writes a cursor for a follower; the beginning is empty.
func cursorText(c revocation.Cursor) string {
	if c == (revocation.Cursor{}) {
		return ""
	}
	return fmt.Sprintf("%d-%d", c.Time, c.Sequence)
}

// parseCursor reads what cursorText wrote. What it did not write is the beginning: nothing is lost by telling all.
func parseCursor(text string) (c revocation.Cursor) {
	if _, err := fmt.Sscanf(text, "%d-%d", &c.Time, &c.Sequence); err != nil {
		return revocation.Cursor{}
	}
	return c
}
