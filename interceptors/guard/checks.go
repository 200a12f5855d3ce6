package guard

import (
	"cmp"
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/recovery"
)

// Reason returns the metric label for the cause of a refusal: "ambiguous_request", "untrusted_proxy" or "overloaded" for an error
// of this package, and the label of [verify.Reason] for any other.
func Reason(cause error) string {
	switch {
	case errors.Is(cause, ErrAmbiguous):
		return string(AmbiguousRequest)
	case errors.Is(cause, ErrUntrustedProxy):
		return string(UntrustedProxy)
	case errors.Is(cause, ErrOverloaded):
		return "overloaded"
	}
	return verify.Reason(cause)
}

// checks counts decisions. A nil checks counts nothing.
type checks struct {
	counter metric.Int64Counter
	// allowed is keyed by wire.
	allowed map[Wire][]metric.AddOption
}

// newChecks returns the counter of a provider, or nil without one.
func newChecks(meters metric.MeterProvider) (*checks, error) {
	if meters == nil {
		return nil, nil //nolint:nilnil // as documented
	}
	counter, err := recovery.Call("the provider of Meters", func() (metric.Int64Counter, error) {
		return meters.Meter("github.com/grantorhq/grantor/interceptors/guard").Int64Counter("grantor.guard.checks",
			metric.WithUnit("{check}"), metric.WithDescription("Decisions about requests of proxies."))
	})
	if err != nil {
		return nil, err
	}
	c := &checks{counter: cmp.Or[metric.Int64Counter](counter, noop.Int64Counter{}), allowed: make(map[Wire][]metric.AddOption)}
	for _, wire := range []Wire{ExtAuthz, Forward, otherWire} {
		set := attribute.NewSet(attribute.String("wire", string(wire)), attribute.String("result", "allowed"))
		c.allowed[wire] = []metric.AddOption{metric.WithAttributeSet(set)}
	}
	return c, nil
}

// otherWire is the label of wires that another program defines, so that it cannot make labels without bound.
const otherWire Wire = "other"

// count counts a decision.
func (c *checks) count(ctx context.Context, wire Wire, refusal *verify.Refusal) {
	if c == nil {
		return
	}
	if _, known := c.allowed[wire]; !known {
		wire = otherWire
	}
	if refusal == nil {
		c.counter.Add(ctx, 1, c.allowed[wire]...)
		return
	}
	c.counter.Add(ctx, 1, metric.WithAttributes(attribute.String("wire", string(wire)),
		attribute.String("result", "refused"), attribute.String("reason", Reason(refusal.Cause))))
}
