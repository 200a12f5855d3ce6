package rest

import (
	"context"
	"net/http"

	"github.com/grantorhq/grantor/service/connectrpc"
	"github.com/grantorhq/grantor/service/oauth"
)

// serveCall answers a request at the path of a method, by the protocol of its media type. fromPage reports whether it
// is one of a page of a configured origin.
func (h *handler) serveCall(w http.ResponseWriter, r *http.Request, fromPage bool) {
	switch {
	case fromPage && isPreflight(r):
		answerPreflight(w, "POST", callHeaders)
	case r.Method != http.MethodPost:
		h.refuseMethod(w, r)
	case !connectrpc.Speaks(r):
		h.unreadCall(r.Context(), r.URL.EscapedPath(), connectrpc.ErrNotSpoken)
		w.Header().Set("Accept-Post", connectrpc.MediaTypes)
		(&failure{status: http.StatusUnsupportedMediaType, refusal: connectrpc.ErrNotSpoken}).write(w, h.realm)
	default:
		h.calls.ServeHTTP(w, r)
	}
}

// refuse answers a request that is not admitted, in the form of its protocol.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if h.calls.Has(r.URL.EscapedPath()) && connectrpc.Speaks(r) {
		h.calls.Refuse(w, r, err)
		return
	}
	newFailure(err).write(w, h.realm)
}

// unreadCall records the refusal of a call of a method that could not be read. The methods without an event
// authenticate no client.
func (h *handler) unreadCall(ctx context.Context, method string, refusal *oauth.Error) {
	if event := refusedEvents[method]; event != "" {
		h.unread(ctx, event, refusal)
	}
}
