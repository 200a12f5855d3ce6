package verify

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/recovery"
	"github.com/grantorhq/grantor/service/token"
)

// recheckInterval is how often the tokens of running streams are checked. A stream ends at most that long after its
// token expires.
const recheckInterval = 500 * time.Millisecond

// streamHeader is the metadata key under which a client sends the id of a stream, in order to renew it later.
const streamHeader = "grantor-stream"

// streamID is the syntax of a stream id.
var streamID = regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`)

// guardedStream is a running stream and the token under which it runs.
type guardedStream struct {
	// claims is guarded by the mu of guardedStreams.
	claims *token.Claims
	// key is the stream's key in guardedStreams.byKey. It is empty for a stream without an id.
	key string
	// ended is closed, after cause was set, when the token is no longer valid.
	ended chan struct{}
	cause error
}

// over reports whether the token is no longer valid.
func (s *guardedStream) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// end records that the token is no longer valid. It is called once, with the mu of guardedStreams held.
func (s *guardedStream) end(cause error) {
	s.cause = cause
	close(s.ended)
}

// guardedStreams are the running streams of a verifier. It is safe for concurrent use by multiple goroutines. One
// goroutine checks the tokens while there are any streams.
type guardedStreams struct {
	checkCurrent func(*token.Claims) error
	// audience lists the resources that the server is.
	audience []string

	mu   sync.Mutex
	open map[*guardedStream]struct{}
	// byKey maps guardedStream.key to the stream.
	byKey map[string]*guardedStream
	// watching is true while the goroutine runs. A value in wake makes it check at once.
	watching bool
	wake     chan struct{}
}

func newGuardedStreams(checkCurrent func(*token.Claims) error, audience []string) *guardedStreams {
	return &guardedStreams{
		checkCurrent: checkCurrent, audience: audience, open: make(map[*guardedStream]struct{}),
		byKey: make(map[string]*guardedStream), wake: make(chan struct{}, 1),
	}
}

// add adds a stream.
func (s *guardedStreams) add(ctx context.Context, claims *token.Claims) *guardedStream {
	running := &guardedStream{claims: claims, ended: make(chan struct{})}
	if ids := metadata.ValueFromIncomingContext(ctx, streamHeader); len(ids) == 1 && streamID.MatchString(ids[0]) {
		running.key = streamKey(claims.ClientID, ids[0])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if running.key != "" {
		if _, taken := s.byKey[running.key]; taken {
			running.key = "" // the first stream keeps the id
		} else {
			s.byKey[running.key] = running
		}
	}
	s.open[running] = struct{}{}
	if !s.watching {
		s.watching = true
		go s.watch()
	}
	return running
}

// streamKey keeps the streams of clients apart: a client can only name its own. An id contains no space.
func streamKey(clientID, id string) string { return id + " " + clientID }

// remove removes a stream that has ended.
func (s *guardedStreams) remove(running *guardedStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, running)
	if running.key != "" {
		delete(s.byKey, running.key)
	}
	if len(s.open) == 0 {
		s.recheck()
	}
}

// recheck makes watch check all tokens now.
func (s *guardedStreams) recheck() {
	select {
	case s.wake <- struct{}{}:
	default: // already pending
	}
}

// watch ends streams whose tokens are no longer valid, until there are no streams. If the clock panics, it ends all.
func (s *guardedStreams) watch() {
	ticker := time.NewTicker(recheckInterval)
	defer ticker.Stop()
	for {
		more, err := recovery.Await("the clock", func() (bool, error) { return s.check(), nil })
		if err != nil {
			more = s.endAll(fmt.Errorf("%w: %w", ErrFault, err))
		}
		if !more {
			return
		}
		select {
		case <-ticker.C:
		case <-s.wake:
		}
	}
}

// check checks each stream's token once, and reports whether there are any streams.
func (s *guardedStreams) check() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for running := range s.open {
		if running.over() {
			continue
		}
		if err := s.checkCurrent(running.claims); err != nil {
			running.end(err)
		}
	}
	s.watching = len(s.open) > 0
	return s.watching
}

// endAll ends all streams with the cause, and reports whether there are any.
func (s *guardedStreams) endAll(cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for running := range s.open {
		if !running.over() {
			running.end(cause)
		}
	}
	s.watching = len(s.open) > 0
	return s.watching
}

// errNoStream is the answer to a client that names a stream that it does not have.
var errNoStream = status.Error(codes.NotFound, "The client has no such stream here.")

// renew replaces the token of a stream.
func (s *guardedStreams) renew(id string, claims *token.Claims) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	running, ok := s.byKey[streamKey(claims.ClientID, id)]
	if !ok || running.over() {
		return errNoStream
	}
	if claims.Subject != running.claims.Subject || !claims.Scope.HasAll(running.claims.Scope) || !s.servesAll(running.claims, claims) {
		running.end(fmt.Errorf("%w: the stream was renewed by a token with fewer rights", ErrScope))
		return status.Error(codes.PermissionDenied, "The token has fewer rights than the stream's.")
	}
	if first, next := running.claims.Confirmation, claims.Confirmation; first.CertificateThumbprint != "" && next.CertificateThumbprint == "" ||
		first.KeyThumbprint != "" && next.KeyThumbprint == "" {
		running.end(fmt.Errorf("%w: the stream was renewed by a token that is not bound as its first is", token.ErrProof))
		return status.Error(codes.PermissionDenied, "The token is not bound to a key as the stream's is.")
	}
	running.claims = claims
	return nil
}

// servesAll reports whether the audience of next contains each resource of this server that the audience of first does.
func (s *guardedStreams) servesAll(first, next *token.Claims) bool {
	return !slices.ContainsFunc(s.audience, func(resource string) bool {
		return slices.Contains(first.Audience, resource) && !slices.Contains(next.Audience, resource)
	})
}
