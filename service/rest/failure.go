package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/status"
)

// failure is a refusal and the HTTP status that it is sent with.
type failure struct {
	status  int
	refusal *oauth.Error
	// bearer selects a challenge for a token (RFC 6750 §3) instead of one for the credentials of a client. parameters
	// follow the realm in that challenge.
	bearer     bool
	parameters string
	// nonce is the nonce for the next DPoP proof; empty if none is demanded.
	nonce string
	// coding reports whether the refusal is about the content coding of the body.
	coding bool
}

// newFailure returns the failure for the gRPC status of a call. A status without one of our reasons was not made by a
// handler, and its message is not sent.
func newFailure(err error) *failure {
	s := grpcstatus.Convert(err)
	refusal := &oauth.Error{Code: oauth.ServerError, Text: "The server failed to answer; its log says why."}
	if s.Code() == codes.InvalidArgument {
		refusal = oauth.Refuse(oauth.InvalidRequest, describeDecodeError(s.Message()))
	}
	scope, nonce := "", ""
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			refusal.Code, refusal.Text = oauth.Code(d.GetReason()), oauth.Text(s.Message())
			scope, nonce = d.GetMetadata()["scope"], d.GetMetadata()[status.NonceKey]
		case *errdetails.RetryInfo:
			refusal.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	f := &failure{status: status.HTTP(refusal.Code), refusal: refusal, nonce: nonce}
	switch {
	case s.Code() == codes.ResourceExhausted:
		f.status = http.StatusTooManyRequests
	case refusal.Code == oauth.InvalidDPoPProof && s.Code() == codes.Unauthenticated:
		f.status = http.StatusUnauthorized
		f.bearer, f.parameters = true, `, error="invalid_dpop_proof"`
	case refusal.Code == oauth.InvalidToken:
		f.bearer, f.parameters = true, `, error="invalid_token"`
	case refusal.Code == oauth.InsufficientScope:
		// A scope contains no character that needs an escape within quotes (RFC 6749 §3.3).
		f.bearer, f.parameters = true, `, error="insufficient_scope", scope="`+scope+`"`
	}
	return f
}

// unknownField and malformedField match the name of a field in an error of the JSON decoder, malformedTime in one of
// [normalize]. The rest of such an error can quote a secret.
var (
	unknownField   = regexp.MustCompile(`unknown field "([A-Za-z_]{1,64})"`)
	malformedField = regexp.MustCompile(`field ([A-Za-z]{1,64}):`)
	malformedTime  = regexp.MustCompile(`^google\.protobuf\.(Duration|Timestamp) in ([a-z_]{1,64})$`)
)

// timeForms maps the name of a type to what is wrong with a value that is not one.
var timeForms = map[string]oauth.Text{
	"Duration": " is not a duration such as 600s or 10m.", "Timestamp": " is not a time such as 2030-01-31T12:00:00Z.",
}

// describeDecodeError returns the text for a request that could not be decoded. It takes nothing from message except
// the name of a field or of a type.
func describeDecodeError(message string) oauth.Text {
	if found := unknownField.FindStringSubmatch(message); found != nil {
		return oauth.Text("The request could not be read: there is no field " + found[1] + " here.")
	}
	if found := malformedField.FindStringSubmatch(message); found != nil {
		return oauth.Text("The request could not be read: the field " + found[1] + " is not of its type.")
	}
	if found := malformedTime.FindStringSubmatch(message); found != nil {
		return oauth.Text("The request could not be read: "+found[2]) + timeForms[found[1]]
	}
	return "The request could not be read."
}

// write writes the failure as an error response (RFC 6749 §5.2). realm is the issuer.
func (f *failure) write(w http.ResponseWriter, realm string) {
	h := w.Header()
	h.Set("Content-Type", "application/json;charset=UTF-8")
	noStore(h)
	switch {
	case f.bearer:
		if f.refusal.Code != oauth.InvalidDPoPProof {
			h.Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q%s", realm, f.parameters))
		}
		if f.status == http.StatusUnauthorized {
			// RFC 9449 §7.1: a token that is bound to a key is sent with the scheme DPoP.
			h.Add("WWW-Authenticate", fmt.Sprintf("DPoP realm=%q, algs=%q%s", realm, strings.Join(dpop.Algorithms(), " "), f.parameters))
		}
	case f.status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", realm))
	case f.coding:
		h.Set("Accept-Encoding", "identity") // the content coding was not acceptable (RFC 9110 §15.5.16)
	}
	if f.nonce != "" {
		h.Set(dpop.NonceHeader, f.nonce)
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
	_, _ = w.Write(body) // an error means that the caller is gone
}

// noStore keeps an answer out of every cache (RFC 6749 §5.1) and prevents content sniffing.
func noStore(h http.Header) {
	h["Cache-Control"], h["Pragma"], h["X-Content-Type-Options"] = noStoreValue, noCacheValue, noSniffValue
}

// The values of these headers are shared by all answers. They have no room to append to, and none is ever changed.
var noStoreValue, noCacheValue, noSniffValue = []string{"no-store"}, []string{"no-cache"}, []string{"nosniff"}

// handleError is the [runtime.ErrorHandlerFunc] of the gateways.
func (h *handler) handleError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	refused := newFailure(err)
	if sent := metadata.ValueFromIncomingContext(ctx, "authorization"); len(sent) == 0 || sent[0] == "" {
		refused.parameters = "" // RFC 6750 §3.1: no error code if the request has no token
	}
	refused.write(w, h.realm)
}
