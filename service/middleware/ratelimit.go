package middleware

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/status"
)

// clientAddr puts the address that a call originates from into its context, for [remoteaddr.FromContext].
type clientAddr struct{ proxies remoteaddr.Networks }

// resolve returns a context that has the address; call is that of ctx, if there is one. The address of a call over REST is
// there already: the REST handler has resolved it, and passes no header on.
func (a clientAddr) resolve(ctx context.Context, call *pendingCall) context.Context {
	if remoteaddr.FromContext(ctx) != (remoteaddr.Client{}) {
		return ctx
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx
	}
	addr := p.Addr
	if len(a.proxies) > 0 {
		addr = a.proxies.Resolve(p.Addr, metadata.ValueFromIncomingContext(ctx, "x-forwarded-for"))
	}
	if call != nil {
		call.addr = addr
		return ctx
	}
	return remoteaddr.NewContext(ctx, addr)
}

// rateLimit bounds the calls that a source makes, and the streams that it has open.
type rateLimit struct{ limiter *limit.Limiter }

// allow refuses a call of a source that makes too many, except one to the health service: refused, a load balancer or
// orchestrator would take a healthy replica for a broken one.
func (l rateLimit) allow(ctx context.Context, method string) error {
	if ctx.Value(admittedKey{}) != nil {
		return nil
	}
	wait := l.limiter.AllowRequest(remoteaddr.FromContext(ctx).IP())
	if wait == 0 || strings.HasPrefix(method, "/grpc.health.v1.Health/") {
		return nil
	}
	return tooMany("Too many requests; try again later.", wait)
}

func tooMany(text oauth.Text, wait time.Duration) error {
	return status.From(&oauth.Error{
		Code: oauth.TemporarilyUnavailable, Reason: oauth.TooManyRequests, Limited: true, RetryAfter: wait, Text: text,
	})
}

// enter refuses a stream of a source that has too many open. After success the caller calls leave when the stream ends.
func (l rateLimit) enter(ctx context.Context) (leave func(), err error) {
	source := remoteaddr.FromContext(ctx).IP()
	if !l.limiter.EnterStream(source) {
		const retryAfter = 5 * time.Second
		return nil, tooMany("Too many streams are open; close one first.", retryAfter)
	}
	return func() { l.limiter.LeaveStream(source) }, nil
}

// admittedKey is the key of a context whose request was counted by [Chain.Admit].
type admittedKey struct{}

// Admit refuses a request over REST of a source that makes too many, before its body is read. ctx has the peer. The calls
// that serve the request get the context that is returned, and are not counted again.
func (c *Chain) Admit(ctx context.Context) (context.Context, error) {
	ctx = c.address.resolve(ctx, nil)
	if err := c.limits.allow(ctx, ""); err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, admittedKey{}, true), nil
}
