package verify

import (
	"context"
	"fmt"
	"regexp"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/token"
)

// look is how often the tokens of running streams are looked at. A stream thus ends within it after its token does.
const look = 500 * time.Millisecond

// streamHeader is the metadata in which a client names a stream, so that it can renew it.
const streamHeader = "grantor-stream"

// streamID is what such a name must be.
var streamID = regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`)

// guardedStream is a running stream and the token that it runs by.
type guardedStream struct {
	// claims changes under the mu of its sessions.
	claims *token.Claims
	// name is client and stream id; empty for a stream that its client did not name.
	name string
	// ended is closed, after cause was set, when the token holds no longer.
	ended chan struct{}
	cause error
}

// over reports whether the token holds no longer.
func (s *guardedStream) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// end says that the token holds no longer. It is called once, under the mu of the sessions.
func (s *guardedStream) end(cause error) {
	s.cause = cause
	close(s.ended)
}

// sessions are the running streams of a verifier. It may be used by several goroutines. One goroutine looks after them
// while there are any.
type sessions struct {
	holds func(*token.Claims) error

	mu   sync.Mutex
	open map[*guardedStream]struct{}
	// named has session.name → the session.
	named map[string]*guardedStream
	// watching is whether the goroutine runs; wake makes it look.
	watching bool
	wake     chan struct{}
}

func newSessions(holds func(*token.Claims) error) *sessions {
	return &sessions{holds: holds, open: make(map[*guardedStream]struct{}), named: make(map[string]*guardedStream), wake: make(chan struct{}, 1)}
}

// begin adds a stream.
func (s *sessions) begin(ctx context.Context, claims *token.Claims) *guardedStream {
	running := &guardedStream{claims: claims, ended: make(chan struct{})}
	if ids := metadata.ValueFromIncomingContext(ctx, streamHeader); len(ids) == 1 && streamID.MatchString(ids[0]) {
		running.name = sessionName(claims.ClientID, ids[0])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if running.name != "" {
		if _, taken := s.named[running.name]; taken {
			running.name = "" // the first one keeps it
		} else {
			s.named[running.name] = running
		}
	}
	s.open[running] = struct{}{}
	if !s.watching {
		s.watching = true
		go s.watch()
	}
	return running
}

// sessionName keeps the streams of clients apart: a client can only name its own. An id has no blank.
func sessionName(clientID, id string) string { return id + " " + clientID }

// finish takes a stream away that has ended.
func (s *sessions) finish(running *guardedStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, running)
	if running.name != "" {
		delete(s.named, running.name)
	}
	if len(s.open) == 0 {
		s.tell()
	}
}

// tell makes watch look now.
func (s *sessions) tell() {
	select {
	case s.wake <- struct{}{}:
	default: // it is told already
	}
}

// watch ends streams whose tokens hold no longer, until there are no streams.
func (s *sessions) watch() {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for s.check() {
		select {
		case <-ticker.C:
		case <-s.wake:
		}
	}
}

// check looks at each stream's token once, and reports whether there are streams.
func (s *sessions) check() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for running := range s.open {
		if running.over() {
			continue
		}
		if err := s.holds(running.claims); err != nil {
			running.end(err)
		}
	}
	s.watching = len(s.open) > 0
	return s.watching
}

// renew puts a new token in the place of a stream's.
func (s *sessions) renew(id string, claims *token.Claims) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	running, ok := s.named[sessionName(claims.ClientID, id)]
	if !ok || running.over() {
		return status.Error(codes.NotFound, "The client has no such stream here.")
	}
	if claims.Subject != running.claims.Subject || !claims.Scope.HasAll(running.claims.Scope) {
		running.end(fmt.Errorf("%w: the stream was renewed by a token with fewer rights", ErrScope))
		return status.Error(codes.PermissionDenied, "The token has fewer rights than the stream's.")
	}
	running.claims = claims
	return nil
}

// RegisterStreamRenewal lets the clients of a server that verifier guards renew their streams, which otherwise end with
// their token: interceptors/attach does so by itself where it is offered. The handler goes on to see the caller that the
// stream began with.
func RegisterStreamRenewal(server grpc.ServiceRegistrar, verifier *Verifier) {
	grantorv1.RegisterStreamServiceServer(server, &renewal{verifier: verifier})
}

// renewal is grantor.v1.StreamService.
type renewal struct {
	grantorv1.UnimplementedStreamServiceServer

	verifier *Verifier
}

// RenewStream puts the token of this call in the place of a stream's.
func (r *renewal) RenewStream(ctx context.Context, m *grantorv1.RenewStreamRequest) (*grantorv1.RenewStreamResponse, error) {
	caller, ok := CallerFrom(ctx)
	if !ok {
		return nil, status.Error(codes.PermissionDenied, "The server does not guard this method.")
	}
	if !streamID.MatchString(m.GetStream()) {
		return nil, status.Error(codes.InvalidArgument, "stream must be 16 to 64 characters of base64url.")
	}
	return &grantorv1.RenewStreamResponse{}, r.verifier.streams.renew(m.GetStream(), caller.Claims)
}
