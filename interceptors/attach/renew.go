package attach

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

const (
	// streamHeader is the metadata that names a stream, so that its token can be renewed.
	streamHeader = "grantor-stream"
	// renewPause is the least time between two attempts to renew a stream; renewTimeout ends one.
	renewPause   = 250 * time.Millisecond
	renewTimeout = 10 * time.Second
)

// renewal keeps one stream going beyond its first token, by the grantor.v1.StreamService of the server that it runs on.
// A server that does not offer it ends the stream with its token, or does not mind.
type renewal struct {
	source *Source
	cc     *grpc.ClientConn
	id     string
	// ctx ends with the stream. It is not of the caller's context, whose metadata is for the stream alone.
	ctx    context.Context
	cancel context.CancelFunc
	// renewed is told which token the stream runs by now.
	renewed func(e *entry)

	mu    sync.Mutex
	timer *time.Timer
}

func newRenewal(source *Source, cc *grpc.ClientConn, renewed func(e *entry)) *renewal {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it never fails (crypto/rand)
	r := &renewal{source: source, cc: cc, id: base64.RawURLEncoding.EncodeToString(id), renewed: renewed}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// name gives the context of the stream to renew.
func (r *renewal) name(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, streamHeader, r.id)
}

// await renews the stream when a new token is due. Until then it costs a timer.
func (r *renewal) await(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() == nil {
		r.timer = time.AfterFunc(time.Until(e.renewAt), func() { r.run(e) })
	}
}

// finish ends the renewing with the stream.
func (r *renewal) finish(error) {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}

// run gets a token other than that of e and presents it, until that is done, is hopeless, or comes too late.
func (r *renewal) run(e *entry) {
	for pause := renewPause; r.ctx.Err() == nil && time.Now().Before(e.end); pause = min(2*pause, mostColdPause) {
		next, err := r.source.get(r.ctx)
		if err == nil && next.token != e.token {
			switch err := r.present(); status.Code(err) {
			case codes.OK:
				r.renewed(next)
				r.await(next)
				return
			case codes.Unimplemented, codes.PermissionDenied, codes.InvalidArgument:
				return
			}
			// NOT_FOUND too: another call on a connection to several servers may reach the one that has the stream.
		}
		timer := time.NewTimer(pause)
		select {
		case <-r.ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

// present makes the call that renews; the interceptor of the connection sends the source's new token with it.
func (r *renewal) present() error {
	ctx, cancel := context.WithTimeout(r.ctx, renewTimeout)
	defer cancel()
	_, err := grantorv1.NewStreamServiceClient(r.cc).RenewStream(ctx, &grantorv1.RenewStreamRequest{Stream: r.id})
	return err
}
