package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// challengeHeader is the trailer key of the challenge of RFC 6750 §3.
const challengeHeader = "www-authenticate"

// retryAfter is the Retry-After header of an HTTP response while the issuer cannot be reached, in seconds: the interval
// between two attempts to reach it.
const retryAfter = "5"

// Reasons of refusals that are not errors of a token. [OnRefusal] gets them besides the errors of package token.
var (
	ErrNoToken = errors.New("no bearer token was sent")
	ErrScope   = errors.New("the token lacks a scope")
	ErrNoRule  = errors.New("the method has no rule")
	// ErrStale occurs only with [RefuseWhenStale], and at a guard of package guard that has not read the feed yet.
	ErrStale = errors.New("the knowledge of revocations is too old")
	// ErrFault reports that the token could not be checked because of the program: its clock or its source of keys
	// panicked, or the verifier is not one that [New] or [Issuers] returned.
	ErrFault = errors.New("the token could not be checked")

	// ErrNonce occurs only with [RequireDPoPNonce]: the caller is to make its proof again, with the nonce that it is given.
	ErrNonce = dpop.ErrNonce

	errNotMade = fmt.Errorf("%w: the verifier was not made by New", ErrFault)
)

// Refusal is the response to a call that is not admitted. All fields but Cause are for the caller and come from a short
// fixed list; only the scope varies, and it comes from the rule.
type Refusal struct {
	// Code is the status code over gRPC, and Status is that over HTTP.
	Code   codes.Code
	Status int
	// Reason classifies the refusal for a program, and Message for its developer.
	Reason  oauth.Code
	Message string
	// Scope lists the scopes that the rule requires, if the token lacks one.
	Scope string
	// Challenges are the WWW-Authenticate values: none if another token would not help, and one for each scheme that the
	// caller may use (RFC 6750 §3, RFC 9449 §7.1).
	Challenges []string
	// Nonce is the nonce for the caller's next DPoP proof, or empty.
	Nonce string
	// Cause is the exact reason, as [OnRefusal] gets it. It is not for the caller.
	Cause error
}

// refuseToken returns the refusal of a token. It does not say what is wrong with the token: an attacker would learn
// from it, and an honest client does the same in each case.
func refuseToken(cause error) *Refusal {
	challenge := `Bearer error="invalid_token"`
	r := &Refusal{
		Code: codes.Unauthenticated, Status: http.StatusUnauthorized, Reason: oauth.InvalidToken,
		Message: "The access token is not valid here.", Cause: cause,
	}
	switch {
	case errors.Is(cause, ErrNoToken):
		// RFC 6750 §3.1: the challenge for a request without a token has no error code.
		r.Message, challenge = "A bearer token is required.", "Bearer"
	case errors.Is(cause, ErrNonce):
		r.Reason, r.Message, challenge = oauth.UseDPoPNonce, "The DPoP proof needs the nonce that is provided.", `Bearer error="use_dpop_nonce"`
	case errors.Is(cause, dpop.ErrProof):
		r.Reason, r.Message, challenge = oauth.InvalidDPoPProof, "The DPoP proof is not valid here.", `Bearer error="invalid_dpop_proof"`
	case errors.Is(cause, token.ErrNoKeys):
		r.Code, r.Status, r.Reason = codes.Unavailable, http.StatusServiceUnavailable, oauth.TemporarilyUnavailable
		r.Message, challenge = "The issuer's keys are not available; try again later.", ""
	case errors.Is(cause, ErrStale):
		r.Code, r.Status, r.Reason = codes.Unavailable, http.StatusServiceUnavailable, oauth.TemporarilyUnavailable
		r.Message, challenge = "What the issuer has revoked is not known; try again later.", ""
	case errors.Is(cause, ErrFault):
		r.Code, r.Status, r.Reason = codes.Internal, http.StatusInternalServerError, oauth.ServerError
		r.Message, challenge = "The access token could not be checked.", ""
	}
	if challenge != "" {
		r.Challenges = []string{challenge}
	}
	return r
}

// refuseScope returns the refusal of a token that lacks a scope (RFC 6750 §3.1).
func refuseScope(needed oauth.Scopes, claims *token.Claims) *Refusal {
	scope := needed.String()
	return &Refusal{
		Code: codes.PermissionDenied, Status: http.StatusForbidden, Reason: oauth.InsufficientScope,
		Message: "The access token lacks the scope: " + scope,
		Scope:   scope,
		// A scope has no character that needs an escape inside quotes (RFC 6749 §3.3).
		Challenges: []string{`Bearer error="insufficient_scope", scope="` + scope + `"`},
		Cause:      fmt.Errorf("%w: client %q needs %q, has %q", ErrScope, claims.ClientID, scope, claims.Scope),
	}
}

// refuseRule returns the refusal of a method without a valid rule.
func refuseRule(rule Rule) *Refusal {
	return &Refusal{
		Code: codes.PermissionDenied, Status: http.StatusForbidden, Reason: oauth.NoRule,
		Message: "No rule allows this method.", Cause: errors.Join(ErrNoRule, rule.Err()),
	}
}

// GRPCStatus returns the gRPC status of the refusal, with a google.rpc.ErrorInfo.
func (r *Refusal) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{Reason: string(r.Reason), Domain: oauth.ErrorDomain}
	if r.Scope != "" {
		info.Metadata = map[string]string{"scope": r.Scope}
	}
	s := status.New(r.Code, r.Message)
	if detailed, err := s.WithDetails(info); err == nil {
		return detailed
	}
	return s
}

// trailer returns the gRPC trailer with the challenges and the nonce, or nil.
func (r *Refusal) trailer() metadata.MD {
	if len(r.Challenges) == 0 && r.Nonce == "" {
		return nil
	}
	md := metadata.MD{}
	md.Append(challengeHeader, r.Challenges...)
	if r.Nonce != "" {
		md.Set(dpopNonceHeader, r.Nonce)
	}
	return md
}

// Header returns the header of the HTTP response (RFC 6750 §3, RFC 9449 §8.2), which the caller may change.
func (r *Refusal) Header() http.Header {
	header := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}
	if len(r.Challenges) > 0 {
		header["Www-Authenticate"] = slices.Clone(r.Challenges)
	}
	if r.Nonce != "" {
		header.Set(dpop.NonceHeader, r.Nonce)
	}
	if r.Status == http.StatusServiceUnavailable {
		header.Set("Retry-After", retryAfter)
	}
	return header
}

// Body returns the body of the HTTP response, which has the form of RFC 6749 §5.2.
func (r *Refusal) Body() []byte {
	body, err := json.Marshal(struct {
		Error       oauth.Code `json:"error"`
		Description string     `json:"error_description"`
	}{r.Reason, r.Message})
	if err != nil { // marshaling two strings cannot fail
		return nil
	}
	return body
}

// WriteHTTP writes the HTTP response.
func (r *Refusal) WriteHTTP(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.Header())
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body()) // fails only if the client has disconnected
}
