package attach

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/recovery"
)

const (
	// streamHeader is the metadata key of the stream's id, by which its token is renewed.
	streamHeader = "grantor-stream"
	// streamBackoff is the wait after the first failed renewal of a stream, doubled with each further one up to
	// maxColdBackoff; streamTimeout bounds one renewal.
	streamBackoff = 250 * time.Millisecond
	streamTimeout = 10 * time.Second
)

// renewal keeps one stream running beyond its first token, by calling grantor.v1.StreamService on the server of the
// stream. A server without that service ends the stream with its token, or never does.
type renewal struct {
	cc *grpc.ClientConn
	id string
	// ctx ends with the stream. It is not derived from the caller's context, whose metadata is for the stream alone.
	ctx    context.Context
	cancel context.CancelFunc
	// onRenewed is called with the token under which the stream continues.
	onRenewed func(e *entry)

	mu    sync.Mutex
	timer *time.Timer
}

func newRenewal(cc *grpc.ClientConn, onRenewed func(e *entry)) *renewal {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	r := &renewal{cc: cc, id: base64.RawURLEncoding.EncodeToString(id), onRenewed: onRenewed}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// withStreamID adds the stream's id to the outgoing metadata.
func (r *renewal) withStreamID(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, streamHeader, r.id)
}

// schedule renews the stream once a token newer than that of e is due. Until then the renewal costs one timer. Without
// a connection, as when a program calls the interceptor itself, there is no server to call.
func (r *renewal) schedule(e *entry) {
	if r.cc == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() == nil {
		r.timer = time.AfterFunc(time.Until(e.renewAt), func() {
			// The program's interceptors, and methods of their errors, may panic: the stream then ends with its token.
			_ = recovery.Do("the renewal of a stream", func() { r.run(e) })
		})
	}
}

// stop ends the renewal. It is called when the stream has ended.
func (r *renewal) stop(error) {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}

// run gets a token other than that of e and presents it to the server, with retries until that succeeds, is rejected
// for good, or the token of e has expired. The token is one of the source that requested that of e: a source for another
// certificate has a token that the connection of the stream does not carry.
func (r *renewal) run(e *entry) {
	for wait := streamBackoff; r.ctx.Err() == nil && time.Now().Before(e.expiresAt); wait = min(2*wait, maxColdBackoff) {
		next, err := e.source.successor(r.ctx, e)
		if err == nil && next.token != e.token {
			used, err := r.present(next)
			noToken := (*Error)(nil)
			switch status.Code(err) {
			case codes.OK:
				if used.token == e.token {
					break
				}
				r.onRenewed(used)
				r.schedule(used)
				return
			case codes.Unimplemented, codes.PermissionDenied, codes.InvalidArgument:
				if !errors.As(err, &noToken) { // otherwise it is the issuer that refuses, which may pass
					return
				}
			}
			// NOT_FOUND is retried too: on a connection to several servers, another call may reach the one that runs
			// the stream.
		}
		select {
		case <-r.ctx.Done():
		case <-time.After(wait):
		}
	}
}

// present calls RenewStream. The connection's interceptor sends the source's new token with the call, which is that of next, or
// a still newer one, or that of the connection which the call is sent on. present returns its entry. The call runs the program's
// own interceptors too.
func (r *renewal) present(next *entry) (used *entry, _ error) {
	ctx, cancel := context.WithTimeout(r.ctx, streamTimeout)
	defer cancel()
	record := &sentRecord{}
	record.entry.Store(next)
	_, err := guard("an interceptor", func() (*grantorv1.RenewStreamResponse, error) {
		return grantorv1.NewStreamServiceClient(r.cc).RenewStream(ctx, &grantorv1.RenewStreamRequest{Stream: r.id}, record)
	})
	return record.entry.Load(), err
}

// sentRecord is an option of a call in which [UnaryInterceptor] records the entry whose token was sent.
type sentRecord struct {
	grpc.EmptyCallOption

	entry atomic.Pointer[entry]
}

// recordSent records e in the sentRecord among the options, if there is one.
func recordSent(opts []grpc.CallOption, e *entry) {
	for _, opt := range opts {
		if record, ok := opt.(*sentRecord); ok {
			record.entry.Store(e)
		}
	}
}
