package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

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
	// ErrStale occurs only with [RefuseWhenStale].
	ErrStale = errors.New("the knowledge of revocations is too old")
	// ErrFault reports that the token could not be checked because of the program: its clock or its source of keys
	// panicked, or the verifier is not one that [New] or [Issuers] returned.
	ErrFault = errors.New("the token could not be checked")

	// ErrNonce occurs only with [RequireDPoPNonce]: the caller is to make its proof again, with the nonce that it is given.
	ErrNonce = dpop.ErrNonce

	errNotMade = fmt.Errorf("%w: the verifier was not made by New", ErrFault)
)

// refusal is the response to a call that is not admitted. All fields but cause are for the caller and come from a short
// fixed list; only the scope varies, and it comes from the policy.
type refusal struct {
	code    codes.Code
	http    int
	reason  oauth.Code
	message string
	// scope lists the scopes that the method requires, if the token lacks one.
	scope string
	// challenge is the WWW-Authenticate value. It is empty if another token would not help. further is that of another scheme
	// which the caller may use as well, or empty.
	challenge, further string
	cause              error
}

// refuseToken returns the refusal of a token. It does not say what is wrong with the token: an attacker would learn
// from it, and an honest client does the same in each case.
func refuseToken(cause error) *refusal {
	r := &refusal{
		code: codes.Unauthenticated, http: http.StatusUnauthorized, reason: oauth.InvalidToken,
		message: "The access token is not valid here.", challenge: `Bearer error="invalid_token"`, cause: cause,
	}
	switch {
	case errors.Is(cause, ErrNoToken):
		// RFC 6750 §3.1: the challenge for a request without a token has no error code.
		r.message, r.challenge = "A bearer token is required.", "Bearer"
	case errors.Is(cause, ErrNonce):
		r.reason, r.message, r.challenge = oauth.UseDPoPNonce, "The DPoP proof needs the nonce that is provided.", `Bearer error="use_dpop_nonce"`
	case errors.Is(cause, dpop.ErrProof):
		r.reason, r.message, r.challenge = oauth.InvalidDPoPProof, "The DPoP proof is not valid here.", `Bearer error="invalid_dpop_proof"`
	case errors.Is(cause, token.ErrNoKeys):
		r.code, r.http, r.reason = codes.Unavailable, http.StatusServiceUnavailable, oauth.TemporarilyUnavailable
		r.message, r.challenge = "The issuer's keys are not available; try again later.", ""
	case errors.Is(cause, ErrStale):
		r.code, r.http, r.reason = codes.Unavailable, http.StatusServiceUnavailable, oauth.TemporarilyUnavailable
		r.message, r.challenge = "What the issuer has revoked is not known; try again later.", ""
	case errors.Is(cause, ErrFault):
		r.code, r.http, r.reason = codes.Internal, http.StatusInternalServerError, oauth.ServerError
		r.message, r.challenge = "The access token could not be checked.", ""
	}
	return r
}

// refuseScope returns the refusal of a token that lacks a scope (RFC 6750 §3.1).
func refuseScope(needed oauth.Scopes, claims *token.Claims) *refusal {
	scope := needed.String()
	return &refusal{
		code: codes.PermissionDenied, http: http.StatusForbidden, reason: oauth.InsufficientScope,
		message: "The access token lacks the scope: " + scope,
		scope:   scope,
		// A scope has no character that needs an escape inside quotes (RFC 6749 §3.3).
		challenge: `Bearer error="insufficient_scope", scope="` + scope + `"`,
		cause:     fmt.Errorf("%w: client %q needs %q, has %q", ErrScope, claims.ClientID, scope, claims.Scope),
	}
}

// refuseRule returns the refusal of a method without a valid rule.
func refuseRule(rule Rule) *refusal {
	return &refusal{
		code: codes.PermissionDenied, http: http.StatusForbidden, reason: oauth.NoRule,
		message: "No rule allows this method.", cause: errors.Join(ErrNoRule, rule.check()),
	}
}

// status returns the gRPC status of the refusal.
func (r *refusal) status() error {
	info := &errdetails.ErrorInfo{Reason: string(r.reason), Domain: oauth.ErrorDomain}
	if r.scope != "" {
		info.Metadata = map[string]string{"scope": r.scope}
	}
	s, err := status.New(r.code, r.message).WithDetails(info)
	if err != nil {
		return status.Error(r.code, r.message)
	}
	return s.Err()
}

// trailer returns the gRPC trailer with the challenge, or nil.
func (r *refusal) trailer() metadata.MD {
	if r.challenge == "" {
		return nil
	}
	if r.further != "" {
		return metadata.Pairs(challengeHeader, r.challenge, challengeHeader, r.further)
	}
	return metadata.Pairs(challengeHeader, r.challenge)
}

// write writes the HTTP response (RFC 6750 §3, with the body of RFC 6749 §5.2).
func (r *refusal) write(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	if r.challenge != "" {
		header.Set("WWW-Authenticate", r.challenge)
	}
	if r.further != "" {
		header.Add("WWW-Authenticate", r.further)
	}
	if r.http == http.StatusServiceUnavailable {
		header.Set("Retry-After", retryAfter)
	}
	body, err := json.Marshal(struct {
		Error       oauth.Code `json:"error"`
		Description string     `json:"error_description"`
	}{r.reason, r.message})
	w.WriteHeader(r.http)
	if err == nil { // marshaling two strings cannot fail
		_, _ = w.Write(body) // fails only if the client has disconnected
	}
}
