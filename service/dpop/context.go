package dpop

import "context"

type requestKey struct{}

// NewContext returns the context of a call that a server makes for a request in the same process. A proof in the metadata of the
// call is then one for the request. The server that checks the proof sets Request.NextNonce.
func NewContext(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// FromContext returns the request of [NewContext]; nil if there is none.
func FromContext(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey{}).(*Request)
	return r
}
