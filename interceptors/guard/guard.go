// Package guard decides about the requests of a proxy, by the access tokens in them: it does what interceptors/verify does,
// for services that cannot use that package because they are not written in Go.
//
// A [Table] says who may make which requests. Its routes come from a file of rules, or from the protos of the services
// ([DescriptorRoutes]). A request that no route matches is refused. A [Guard] decides about one request; the proxy asks it over
// the gRPC service of Envoy (package extauthz) or by a subrequest ([ForwardAuth]):
//
//	verifier, err := verify.New(ctx, "https://auth.example.com", verify.Audience("https://orders.internal"))
//	table, err := guard.NewTable([]guard.Route{
//		{Path: "/orders/{id}", Methods: []string{"GET"}, Rule: verify.Scopes("orders.read")},
//	})
//	g, err := guard.New(verifier, table, guard.Config{})
//	authv3.RegisterAuthorizationServer(server, extauthz.New(g))
//
// # How requests are compared
//
// A path has exactly one form in which it is compared with the routes:
//
//   - The query is cut off.
//   - Escapes of unreserved characters (letters, digits, "-", ".", "_" and "~") are decoded once; all other escapes get upper-case
//     digits (RFC 3986 §6.2.2).
//   - One trailing slash is ignored.
//
// Paths are compared with regard to letter case. An exception of a route also covers the paths that differ from its own only in
// letter case, in spaces around a segment, or in dots at the end of one. Of a host, the port and one trailing dot are cut off,
// and letters are compared in lower case.
//
// Servers differ in how they read unusual requests. Such a request is refused with the reason ambiguous_request, rather than
// rewritten: one that the guard reads as harmless could be another to the upstream. That is a request
//
//   - whose path does not begin with a slash, or is longer than 8 KiB;
//   - whose path has an empty segment, or a dot segment, escaped ones included;
//   - whose path has an escaped slash, a backslash or a semicolon (matrix parameters), raw or escaped;
//   - whose path has a fragment, a space or a control character, a raw character beyond ASCII, a malformed escape, or one that
//     is not UTF-8;
//   - whose path is escaped twice: it has "%25" followed by two hexadecimal digits;
//   - whose path has an escape of another printable ASCII character, such as %40 for "@", if other callers are admitted to the
//     path with that decoded, or cut off at %3F or %23, for "?" and "#";
//   - whose host is missing or has characters that no host has, or whose method has characters that no method has;
//   - with a header X-HTTP-Method-Override, X-HTTP-Method, X-Method-Override, X-Original-URL, X-Rewrite-URL, SCRIPT_NAME, PATH_INFO
//     or X-Script-Name;
//   - with a header Upgrade for another protocol than WebSocket: what follows an upgrade to h2c reaches the service without a check;
//   - with more than 1000 headers.
//
// What remains: an upstream that replaces the method by a field of the query or the body, such as _method, is asked for another
// one than the guard decided about. Switch that off.
//
// # Headers
//
// The upstream gets the client and the scopes of the token in x-grantor-client-id and x-grantor-scopes. Headers of the client
// that have these names are removed or overwritten. Many servers read "X_Grantor_Client_Id" as the same name, so names are
// compared without letter case and with each character other than a letter or a digit as "-".
package guard

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/recovery"
)

// Reasons of refusals, besides those of package verify. [Config.OnRefusal] gets them as the cause.
var (
	// ErrAmbiguous reports that servers differ in how they read the request.
	ErrAmbiguous = errors.New("the request is ambiguous")
	// ErrUntrustedProxy occurs only with [ForwardAuth]: the connection does not come from a trusted proxy.
	ErrUntrustedProxy = errors.New("the connection does not come from a trusted proxy")
	// ErrOverloaded occurs only with Config.MaxConcurrent.
	ErrOverloaded = errors.New("too many requests are being decided")

	errUnknown = fmt.Errorf("%w: the revocations were not read since the start", verify.ErrStale)
)

// Codes of refusals, besides those of package verify.
const (
	AmbiguousRequest oauth.Code = "ambiguous_request"
	UntrustedProxy   oauth.Code = "untrusted_proxy"
)

// Config configures a [Guard].
type Config struct {
	// ClientIDHeader and ScopesHeader name the headers in which the upstream gets the client's id, and the scopes of its token
	// separated by spaces. The defaults are "x-grantor-client-id" and "x-grantor-scopes".
	ClientIDHeader, ScopesHeader string
	// RemoveToken removes the headers Authorization and DPoP from requests that are admitted.
	RemoveToken bool
	// OnRefusal, if not nil, is called for each refused request. It must not block or change the request; a panic in it is
	// logged and changes nothing for the caller. Request and refusal.Cause may contain text chosen by an attacker, so quote them
	// in logs. The path may have a query, and a query may have a secret.
	OnRefusal func(ctx context.Context, request *Request, refusal *verify.Refusal)
	// MaxConcurrent bounds the requests that are decided at once; more are refused with 503. Those that take long wait for the
	// keys of the issuer. Zero is no bound.
	MaxConcurrent int
	// Meters provides the counter grantor.guard.checks: decisions by wire, result (allowed or refused) and, if refused, reason
	// ([Reason]). Nil disables it.
	Meters metric.MeterProvider
}

// Wire is the protocol in which a proxy asks.
type Wire string

// The wires.
const (
	// ExtAuthz is the gRPC service envoy.service.auth.v3.Authorization.
	ExtAuthz Wire = "ext_authz"
	// Forward is a subrequest over HTTP, which [ForwardAuth] answers.
	Forward Wire = "forward_auth"
)

// Guard decides about requests. It is safe for concurrent use by multiple goroutines. The zero Guard refuses all.
type Guard struct {
	verifier *verify.Verifier
	table    atomic.Pointer[Table]
	headers  *headers
	config   Config
	checks   *checks
	// running is the number of requests that are being decided.
	running atomic.Int64
	// known is true once all revocations of the issuer were known.
	known atomic.Bool
}

// New returns a guard that applies the routes of table with verifier, which the caller closes. If the issuer has a feed of
// revocations, requests that need a token are refused with 503 until the verifier has read all of them for the first time.
func New(verifier *verify.Verifier, table *Table, config Config) (*Guard, error) {
	if verifier == nil || table == nil {
		return nil, errors.New("guard: the verifier or the table is missing")
	}
	headers, err := newHeaders(config.ClientIDHeader, config.ScopesHeader)
	if err != nil {
		return nil, err
	}
	checks, err := newChecks(config.Meters)
	if err != nil {
		return nil, err
	}
	g := &Guard{verifier: verifier, headers: headers, config: config, checks: checks}
	g.table.Store(table)
	return g, nil
}

// SetTable replaces the routes, from the next decision on. A nil table refuses all requests.
func (g *Guard) SetTable(table *Table) { g.table.Store(table) }

// Request is a request that a proxy received and asks about.
type Request struct {
	// Wire is the protocol in which the proxy asks.
	Wire Wire
	// Method and Host are those of the request, as the client sent them.
	Method, Host string
	// Scheme is https or wss if the client's connection has TLS.
	Scheme string
	// Path is the path as the client sent it, with the query.
	Path string
	// Header yields each value of each header with its name, in any letter case. Only the values of Authorization and DPoP are
	// read. Nil means no header.
	Header iter.Seq2[string, string]
	// Certificate is the client certificate of the client's connection, for which the proxy vouches, or nil.
	Certificate *x509.Certificate
}

// Header is a header with its value.
type Header struct {
	Name, Value string
}

// Decision is the decision about a request.
type Decision struct {
	// Refusal is the response to the client if the request is refused; it is nil if the request is admitted. The other fields
	// matter only then.
	Refusal *verify.Refusal
	// Caller is the client of the token. It is the zero Caller if the rule is public.
	Caller verify.Caller
	// Set are the headers that the upstream must get, in the place of all that the client sent under these names.
	Set []Header
	// Remove names headers of the request that the upstream must not get. None of them is in Set.
	Remove []string
	// NextNonce, if not empty, is the value of the header DPoP-Nonce of the response to the client.
	NextNonce string
}

// Decide decides about a request, and counts and reports the decision. It does not panic: if something does that it calls, such
// as Request.Header, the request is refused with 500.
func (g *Guard) Decide(ctx context.Context, r *Request) Decision {
	if g == nil {
		g = new(Guard)
	}
	if r == nil {
		r = new(Request)
	}
	d, err := recovery.Call("deciding about a request", func() (Decision, error) { return g.decideWithin(ctx, r), nil })
	if err != nil {
		d = Decision{Refusal: refuseFault(err)}
	}
	g.report(ctx, r, d.Refusal)
	return d
}

// decideWithin decides about a request, within the bound of Config.MaxConcurrent.
func (g *Guard) decideWithin(ctx context.Context, r *Request) Decision {
	if g.config.MaxConcurrent <= 0 {
		return g.decide(ctx, r)
	}
	defer g.running.Add(-1)
	if g.running.Add(1) > int64(g.config.MaxConcurrent) {
		return Decision{Refusal: refuse(ErrOverloaded)}
	}
	return g.decide(ctx, r)
}

// decide decides about a request.
func (g *Guard) decide(ctx context.Context, r *Request) Decision {
	if g.headers == nil {
		return Decision{Refusal: refuseFault(errors.New("the guard was not made by New"))}
	}
	route, err := g.table.Load().Find(r.Method, r.Host, r.Path)
	if err != nil {
		return Decision{Refusal: refuse(err)}
	}
	var sent sentHeaders
	if err := g.headers.read(r, &sent); err != nil {
		return Decision{Refusal: refuse(err)}
	}
	if !g.knows() && route.Rule.String() != verify.Public().String() {
		return Decision{Refusal: refuse(errUnknown)}
	}
	check := verify.Request{
		Authorization: sent.authorization, DPoP: sent.dpop, Method: r.Method, Host: r.Host, Path: r.Path,
		Secure: r.Scheme == "https" || r.Scheme == "wss", Certificate: r.Certificate, Resource: route.Resource,
	}
	caller, refusal := g.verifier.Check(ctx, route.Rule, &check)
	if refusal != nil {
		return Decision{Refusal: refusal}
	}
	d := Decision{Caller: caller, NextNonce: check.NextNonce}
	d.Set, err = g.headers.set(caller)
	if err != nil {
		return Decision{Refusal: refuse(err)}
	}
	d.Remove = g.headers.remove(&sent, d.Set != nil, g.config.RemoveToken)
	return d
}

// knows reports whether all revocations of the issuer were known at any time, or the issuer has none to tell. Otherwise a restart
// while the feed cannot be reached would admit tokens again that were refused before.
func (g *Guard) knows() bool {
	if g.known.Load() {
		return true
	}
	feed := g.verifier.Feed()
	if feed.Complete {
		g.known.Store(true)
	}
	return feed.Complete || !feed.Followed
}

// report counts a decision, and passes a refusal to Config.OnRefusal.
func (g *Guard) report(ctx context.Context, r *Request, refusal *verify.Refusal) {
	err := recovery.Do("observing a decision", func() {
		g.checks.count(ctx, r.Wire, refusal)
		if refusal != nil && g.config.OnRefusal != nil {
			g.config.OnRefusal(ctx, r, refusal)
		}
	})
	if err != nil {
		_ = recovery.Do("the logger", func() { slog.ErrorContext(ctx, "guard: a decision was not observed", "error", err) })
	}
}

// refuse returns the refusal of a request whose route was not found, or that is not what it seems.
func refuse(cause error) *verify.Refusal {
	r := &verify.Refusal{Code: codes.PermissionDenied, Status: http.StatusForbidden, Cause: cause}
	switch {
	case errors.Is(cause, verify.ErrNoRule):
		r.Reason, r.Message = oauth.NoRule, "No rule allows this request."
	case errors.Is(cause, ErrUntrustedProxy):
		r.Reason, r.Message = UntrustedProxy, "Only a trusted proxy may ask."
	case errors.Is(cause, ErrOverloaded):
		r.Code, r.Status = codes.Unavailable, http.StatusServiceUnavailable
		r.Reason, r.Message = oauth.TemporarilyUnavailable, "Too many requests arrive at once; try again later."
	case errors.Is(cause, verify.ErrStale):
		r.Code, r.Status = codes.Unavailable, http.StatusServiceUnavailable
		r.Reason, r.Message = oauth.TemporarilyUnavailable, "What the issuer has revoked is not known; try again later."
	default:
		r.Reason, r.Message = AmbiguousRequest, "The request could be read in more than one way."
		if a, ok := errors.AsType[ambiguity](cause); ok {
			text := string(a)
			r.Message = strings.ToUpper(text[:1]) + text[1:] + "."
		}
	}
	return r
}

// refuseFault returns the refusal of a request that could not be decided.
func refuseFault(cause error) *verify.Refusal {
	return &verify.Refusal{
		Code: codes.Internal, Status: http.StatusInternalServerError, Reason: oauth.ServerError,
		Message: "The request could not be decided.", Cause: fmt.Errorf("%w: %w", verify.ErrFault, cause),
	}
}
