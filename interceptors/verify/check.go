package verify

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/service/token"
)

// Request is a request that another server received, such as a proxy, and that [Verifier.Check] decides about.
type Request struct {
	// Authorization and DPoP are all values of these headers.
	Authorization, DPoP []string
	// Method, Host and Path are those of the request, as the client sent them: GET, orders.example.com:8443, /orders?id=1.
	// The path of a gRPC call is the full name of its method, and the method is POST.
	//
	// A DPoP proof must be for them (RFC 9449 §4.3), unless [DPoPOrigin] replaces the host.
	Method, Host, Path string
	// Secure reports whether the client's connection has TLS. A DPoP proof can otherwise also be for an http URL.
	Secure bool
	// Certificate is the client certificate of the client's connection, for which the server vouches, or nil. Pass the same
	// pointer for the same certificate where that is possible: its thumbprint is remembered.
	Certificate *x509.Certificate
	// Resource is the one of the resources of [Audience] that the request is for: the token must have it in its "aud". If it
	// is empty, any of them suffices.
	Resource string

	// NextNonce is set by Check: the nonce that the caller should use in its next DPoP proof, if it is another than the one
	// that it used. Send it as the header DPoP-Nonce of the response, whatever the decision was.
	NextNonce string
}

// name returns what [OnRefusal] gets: "GET /path", without the query, which could contain a token.
func (r *Request) name() string {
	path, _, _ := strings.Cut(r.Path, "?")
	return r.Method + " " + path
}

// Check decides about a request that another server received, such as a proxy which asks before it passes the request
// on. It applies the rule exactly as [HTTP] does, and observes a refusal as [OnRefusal] and [Telemetry] say. Check
// reads nothing but r, and trusts it: its caller must know that it comes from that server.
//
// If the rule is [Public], the Caller is the zero Caller. If the refusal is not nil, the request must not be passed on.
func (v *Verifier) Check(ctx context.Context, rule Rule, r *Request) (Caller, *Refusal) {
	v = orZero(v)
	if ctx == nil {
		ctx = context.Background()
	}
	if r == nil {
		r = new(Request)
	}
	call := request{authorization: r.Authorization, outside: r}
	claims, proven, refused := v.decide(ctx, rule, &call)
	r.NextNonce = call.nonce
	switch {
	case refused != nil:
		v.report(ctx, r.name(), refused)
		v.describe(refused, rule)
		return Caller{}, refused
	case claims == nil:
		return Caller{}, nil
	}
	return newCaller(claims, proven), nil
}

// checkResource checks that the token is for the resource that the request is for.
func (r *request) checkResource(claims *token.Claims) error {
	if r.outside == nil || r.outside.Resource == "" || slices.Contains(claims.Audience, r.outside.Resource) {
		return nil
	}
	return fmt.Errorf("%w: the request is for %q, the token for %q", token.ErrAudience, r.outside.Resource, claims.Audience)
}
