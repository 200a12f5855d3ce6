package middleware

import (
	"context"
	"time"

	"github.com/grantorhq/grantor/service/telemetry"
)

// MapErrors returns what converts an error of a method's handler.
func MapErrors(events *telemetry.Recorder) func(ctx context.Context, method string, err error) error {
	return mapErrors{events}.convert
}

// SetReceiveTimeout changes how long a request may take to arrive. It is called before the server starts.
func (c *Chain) SetReceiveTimeout(d time.Duration) { c.arrivals.timeout = d }

// MaxPendingPerSource is how many requests of one source may take that long.
const MaxPendingPerSource = maxPendingPerSource

// Pending returns the number of requests that may take that long and have not arrived.
func (c *Chain) Pending() int {
	c.arrivals.mu.Lock()
	defer c.arrivals.mu.Unlock()
	return c.arrivals.counted
}
