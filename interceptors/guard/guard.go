// Package guard decides about the requests of a proxy: it applies the rules of interceptors/verify to services that
// cannot use that package, because they are not written in Go.
package guard

import (
	"context"
	"crypto/x509"
	"errors"
	"iter"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"

	"github.com/grantorhq/grantor/interceptors/verify"
)

// Reasons of refusals, besides those of package verify. [Config.OnRefusal] gets them.
var (
	// ErrAmbiguous reports that servers differ in how they read the request.
	ErrAmbiguous = errors.New("the request is ambiguous")
	// ErrUntrustedProxy occurs only with [ForwardAuth]: the connection does not come from a trusted proxy.
	ErrUntrustedProxy = errors.New("the connection does not come from a trusted proxy")
)

// Config configures a [Guard].
type Config struct {
	// ClientIDHeader and ScopesHeader name the headers in which the upstream gets the client's id and the scopes of its token,
	// separated by spaces. The defaults are "x-grantor-client-id" and "x-grantor-scopes".
	ClientIDHeader, ScopesHeader string
	// RemoveToken removes the headers Authorization and DPoP from requests that are admitted.
	RemoveToken bool
	// OnRefusal, if not nil, is called for each refused request, with the wire on which it was asked about. It must not block.
	// The request and the cause of the refusal may contain text chosen by an attacker, so quote them in logs.
	OnRefusal func(ctx context.Context, wire Wire, request *Request, refusal *verify.Refusal)
	// Meters counts the decisions as grantor.guard.checks, by result, reason and wire. Nil disables that.
	Meters metric.MeterProvider
}

// Wire is the protocol in which a proxy asks.
type Wire string

// The wires.
const (
	WireExtAuthz    Wire = "ext_authz"
	WireForwardAuth Wire = "forward_auth"
)

// Guard decides about requests. It is safe for concurrent use by multiple goroutines.
type Guard struct {
	verifier *verify.Verifier
	table    atomic.Pointer[Table]
	config   Config
}

// New returns a guard that applies the table's rules with verifier.
func New(verifier *verify.Verifier, table *Table, config Config) (*Guard, error) {
	if verifier == nil || table == nil {
		return nil, errors.New("guard: the verifier or the table is missing")
	}
	g := &Guard{verifier: verifier, config: config}
	g.table.Store(table)
	return g, nil
}

// SetTable replaces the rules, also for requests that are being decided at that time.
func (g *Guard) SetTable(table *Table) { g.table.Store(table) }

// Table returns the rules.
func (g *Guard) Table() *Table { return g.table.Load() }

// Request is a request that a proxy received and asks about.
type Request struct {
	// Method, Scheme and Host are those of the request, as the client sent them. The scheme is that of the client's connection.
	Method, Scheme, Host string
	// Path is the path as the client sent it, with the query.
	Path string
	// Header yields each header with each of its values. The names may be in any letter case. Nil means that there is none.
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
	// Refusal is the response to the client if the request is refused, and nil if it is admitted. The other fields matter only
	// then.
	Refusal *verify.Refusal
	// Caller is the client of the token. It is the zero Caller if the route is public.
	Caller verify.Caller
	// Set are the headers that the upstream must get, in the place of all that the client sent under these names.
	Set []Header
	// Remove names headers of the request that the upstream must not get. None of them is in Set.
	Remove []string
	// NextNonce, if not empty, is sent to the client in the header DPoP-Nonce.
	NextNonce string
}

// Decide decides about a request. wire is for the metrics and for Config.OnRefusal.
func (g *Guard) Decide(ctx context.Context, wire Wire, r *Request) Decision {
	_, refused := g.verifier.Check(ctx, verify.Rule{}, nil)
	return Decision{Refusal: refused}
}
