package bench

import (
	"context"
	"io"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/remote"
)

type (
	Load      = load
	Target    = target
	Result    = result
	Latencies = latencies
)

const (
	OperationIssue      = operationIssue
	OperationIntrospect = operationIntrospect
	WireREST            = wireREST
	MaxBody             = maxBody
)

// Reach opens the connections of the load and prepares its calls.
func (l *load) Reach(ctx context.Context, client *remote.Client, callers []remote.Credentials) (*Target, error) {
	return l.reach(ctx, client, callers)
}

// OverREST prepares the calls of t over REST, as a client.
func (l *load) OverREST(t *Target, client *remote.Client, caller remote.Credentials, tokens []string) {
	l.overREST(t, client, []*remote.Authentication{remote.NewAuthentication(caller, client.Metadata)}, tokens)
}

// Run runs and measures the load.
func (l *load) Run(ctx context.Context, t *Target, show func(string)) *Result {
	return l.run(ctx, t, show)
}

// Due returns how many calls of an open loop were due after the warm-up.
func (l *load) Due(measured time.Duration) int64 { return l.due(measured) }

// EmptyResult returns the result of a load without calls.
func (l *load) EmptyResult(t *Target) *Result { return l.result(nil, t, 0) }

// WriteText writes the result for people.
func (r *result) WriteText(out io.Writer) error { return r.writeText(out) }
