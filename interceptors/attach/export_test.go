package attach

import (
	"context"
	"time"
)

// Fetch stands in for an issuer.
type Fetch func(ctx context.Context) (token string, lifetime time.Duration, err error)

func (f Fetch) issue(ctx context.Context) (issuedToken, error) {
	token, lifetime, err := f(ctx)
	return issuedToken{token, lifetime}, err
}

// NewSource makes a source over fetch; jitter is in [0, 1).
func NewSource(fetch Fetch, jitter float64) *Source {
	return NewSourceWith(fetch, func() float64 { return jitter })
}

// NewSourceWith makes a source over fetch; jitter is called while the source is locked.
func NewSourceWith(fetch Fetch, jitter func() float64) *Source {
	return &Source{issuer: fetch, name: "background-service", jitter: jitter}
}

// Measure gives the source what the option, [Telemetry], gives it.
func Measure(s *Source, telemetry Option) {
	var c config
	telemetry(&c)
	s.instruments = c.instruments
}

// Issue asks the source's issuer, past the cache.
func Issue(ctx context.Context, s *Source) (string, error) {
	answer, err := s.issuer.issue(ctx)
	return answer.token, err
}

var (
	TokenRefused = tokenRefused
	Loopback     = loopback
	Unavailable  = unavailable
	Refusal      = refusal
)
