package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/oauth"
)

// failure is a refusal and the HTTP status that it goes out with.
type failure struct {
	status  int
	refusal *oauth.Error
}

// failureOf reads the status that the gRPC face answered. One without a reason of ours never reached a handler; what it
// says stays inside.
func failureOf(err error) *failure {
	s := status.Convert(err)
	refusal := &oauth.Error{Code: oauth.ServerError, Text: "The server failed to answer; its log says why."}
	if s.Code() == codes.InvalidArgument {
		refusal = oauth.Refuse(oauth.InvalidRequest, "The request could not be read.")
	}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			refusal.Code, refusal.Text = oauth.Code(d.GetReason()), oauth.Text(s.Message())
		case *errdetails.RetryInfo:
			refusal.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	f := &failure{http.StatusBadRequest, refusal}
	switch refusal.Code {
	case oauth.InvalidClient:
		f.status = http.StatusUnauthorized
	case oauth.TemporarilyUnavailable:
		f.status = http.StatusServiceUnavailable
		if s.Code() == codes.ResourceExhausted {
			f.status = http.StatusTooManyRequests
		}
	case oauth.ServerError:
		f.status = http.StatusInternalServerError
	}
	return f
}

// write answers with the failure as RFC 6749 §5.2 has it. realm is the issuer.
func (f *failure) write(w http.ResponseWriter, realm string) {
	h := w.Header()
	h.Set("Content-Type", "application/json;charset=UTF-8")
	noStore(h)
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", realm))
	}
	if f.refusal.RetryAfter > 0 {
		seconds := (f.refusal.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	body, err := json.Marshal(struct {
		Error       oauth.Code `json:"error"`
		Description oauth.Text `json:"error_description"`
	}{f.refusal.Code, f.refusal.Text})
	if err != nil {
		panic(err) // two strings always marshal
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	_, _ = w.Write(body) // a caller that has gone away is told nothing
}

// noStore keeps an answer out of every cache (RFC 6749 §5.1) and from being taken for another type.
func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
}

// handleError is the gateway's error handler.
func (f *face) handleError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	failureOf(err).write(w, f.realm)
}
