package status_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/status"
)

// details are what a status carries beside its code and its text.
type details struct {
	domain, reason, scope, field, problem string
	retry                                 time.Duration
}

func read(err error) (codes.Code, string, details) {
	s := grpcstatus.Convert(err)
	var d details
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			d.domain, d.reason, d.scope = detail.GetDomain(), detail.GetReason(), detail.GetMetadata()["scope"]
		case *errdetails.RetryInfo:
			d.retry = detail.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			d.field, d.problem = detail.GetFieldViolations()[0].GetField(), detail.GetFieldViolations()[0].GetDescription()
		}
	}
	return s.Code(), s.Message(), d
}

func TestFrom(t *testing.T) {
	hidden := errors.New("hidden")
	forbidden := &registry.ForbiddenError{Kind: "client", ID: "svc", Scope: must.Get(oauth.ParseScope("a"))}
	for name, test := range map[string]struct {
		err  error
		code codes.Code
		text string
		want details
		http int
	}{
		"OAuth": {
			&oauth.Error{Code: oauth.InvalidClient, Text: "No.", Cause: hidden}, codes.Unauthenticated, "No.", details{reason: "invalid_client"}, 401,
		},
		"to be repeated": {
			&oauth.Error{Code: oauth.TemporarilyUnavailable, Text: "Later.", RetryAfter: 3 * time.Second, Cause: hidden},
			codes.Unavailable, "Later.", details{reason: "temporarily_unavailable", retry: 3 * time.Second}, 503,
		},
		"a limit": {
			&oauth.Error{Code: oauth.TemporarilyUnavailable, Text: "Later.", RetryAfter: time.Minute, Limited: true},
			codes.ResourceExhausted, "Later.", details{reason: "temporarily_unavailable", retry: time.Minute}, 503, // REST has 429 for the gRPC code
		},
		"not found":       {registry.ErrNotFound, codes.NotFound, "Not found.", details{reason: "not_found"}, 404},
		"no such key":     {keys.ErrNotFound, codes.NotFound, "Not found.", details{reason: "not_found"}, 404},
		"exists":          {registry.ErrExists, codes.AlreadyExists, "Already exists.", details{reason: "already_exists"}, 409},
		"conflict":        {registry.ErrConflict, codes.Aborted, "It was changed by somebody else meanwhile; read it again.", details{reason: "conflict"}, 409},
		"ring conflict":   {keys.ErrConflict, codes.Aborted, "It was changed by somebody else meanwhile; read it again.", details{reason: "conflict"}, 409},
		"retiring":        {keys.ErrRetiring, codes.FailedPrecondition, "The key is retiring already.", details{reason: "failed_precondition"}, 400},
		"malformed kid":   {keys.ErrID, codes.InvalidArgument, keys.ErrID.Error(), details{reason: "invalid_request"}, 400},
		"other algorithm": {keys.ErrAlgorithm, codes.InvalidArgument, keys.ErrAlgorithm.Error(), details{reason: "invalid_request"}, 400},
		"field": {
			&registry.FieldError{Field: "scopes", Problem: "is wrong"}, codes.InvalidArgument, "scopes: is wrong",
			details{reason: "invalid_request", field: "scopes", problem: "is wrong"}, 400,
		},
		"forbidden": {
			forbidden, codes.PermissionDenied, "client svc: the scope a is beyond the caller's own", details{reason: "insufficient_scope", scope: "a"}, 403,
		},
		"not replicated": {
			revocation.ErrNotReplicated, codes.Unavailable, "It is done, but too few replicas of the store have it; ask again.",
			details{reason: "temporarily_unavailable", retry: time.Second}, 503,
		},
		"newer client": {
			registry.ErrNewer, codes.Unavailable, "A newer release of Grantor wrote this; a replica of that release can answer.",
			details{reason: "temporarily_unavailable", retry: time.Second}, 503,
		},
		"newer ring": {
			keys.ErrNewer, codes.Unavailable, "A newer release of Grantor wrote this; a replica of that release can answer.",
			details{reason: "temporarily_unavailable", retry: time.Second}, 503,
		},
		"canceled": {context.Canceled, codes.Unavailable, "The call ended before its answer.", details{reason: "temporarily_unavailable"}, 503},
		"too late": {context.DeadlineExceeded, codes.Unavailable, "The call ended before its answer.", details{reason: "temporarily_unavailable"}, 503},
		"unknown":  {hidden, codes.Internal, "The server failed to answer; its log says why.", details{reason: "server_error"}, 500},
		"a wrapped status": {
			fmt.Errorf("sealing: %w", grpcstatus.Error(codes.NotFound, "hidden")), codes.Internal, "The server failed to answer; its log says why.",
			details{reason: "server_error"}, 500,
		},
		"the store": {
			status.OrStore(t.Context(), hidden), codes.Unavailable, "The server cannot reach its store.",
			details{reason: "temporarily_unavailable", retry: time.Second}, 503,
		},
		"known, not the store": {status.OrStore(t.Context(), registry.ErrNotFound), codes.NotFound, "Not found.", details{reason: "not_found"}, 404},
	} {
		t.Run(name, func(t *testing.T) {
			test.want.domain = oauth.ErrorDomain
			for _, err := range []error{test.err, fmt.Errorf("wrapped: %w", test.err)} {
				if test.code == codes.InvalidArgument || test.code == codes.PermissionDenied {
					err = test.err // whose own text goes out
				}
				code, text, got := read(status.From(err))
				if code != test.code || text != test.text || got != test.want {
					t.Errorf("got %s %q %+v, want %s %q %+v", code, text, got, test.code, test.text, test.want)
				}
				refusal := status.Refusal(err)
				if string(refusal.Code) != got.reason || string(refusal.Text) != text {
					t.Errorf("the refusal is %s %q, the status %s %q", refusal.Code, refusal.Text, got.reason, text)
				}
				if got := status.HTTP(refusal.Code); got != test.http {
					t.Errorf("got HTTP %d, want %d", got, test.http)
				}
			}
		})
	}
	if err := grpcstatus.Error(codes.Canceled, "as it is"); !errors.Is(status.From(err), err) {
		t.Errorf("a status became %v", status.From(err))
	}
	if got := status.HTTP("no_such_code"); got != http.StatusInternalServerError {
		t.Errorf("an unknown code: got HTTP %d", got)
	}
}
