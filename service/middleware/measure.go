package middleware

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/grantorhq/grantor/service/instrument"
	"github.com/grantorhq/grantor/service/status"
	"github.com/grantorhq/grantor/service/telemetry"
)

// measure records the duration of each call and a span for it.
type measure struct {
	rpc     *instrument.RPC
	methods Methods
}

// start begins to measure a call. The context that it returns has the span.
func (m measure) start(ctx context.Context, method string) (context.Context, instrument.Call) {
	return m.rpc.Start(ctx, method, m.methods.has(method))
}

// MeasureHTTP returns a handler that measures what next answers. route returns the route of a request: one of a fixed
// set, or "".
func (c *Chain) MeasureHTTP(next http.Handler, route func(*http.Request) string) http.Handler {
	return c.events.HTTP.Handler(next, route)
}

// recovery turns a panic into a server_error, of which the caller learns nothing and the log everything.
type recovery struct{ events *telemetry.Recorder }

// recover replaces *err after a panic. It is deferred. The value of a panic could quote a secret, and is not logged; its
// type and the stack cannot.
func (r recovery) recover(ctx context.Context, method string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	r.events.Fault(ctx, "panic in a call", strings.TrimPrefix(method, "/"), slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
	*err = status.From(fmt.Errorf("panic of type %T", p))
}
