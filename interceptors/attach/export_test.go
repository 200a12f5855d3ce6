package attach

import (
	"context"
	"crypto/tls"
	"time"
)

// Fetch is an issuer for tests.
type Fetch func(ctx context.Context) (token string, lifetime time.Duration, err error)

func (f Fetch) issue(ctx context.Context) (issuedToken, error) {
	token, lifetime, err := f(ctx)
	return issuedToken{token, lifetime}, err
}

// NewSource returns a source over fetch with a constant jitter in [0, 1).
func NewSource(fetch Fetch, jitter float64) *Source {
	return NewSourceWith(fetch, func() float64 { return jitter })
}

// NewSourceWith returns a source over fetch. It calls jitter with its lock held.
func NewSourceWith(fetch Fetch, jitter func() float64) *Source {
	return &Source{issuer: fetch, name: "background-service", jitter: jitter}
}

// RenewEarly makes a source renew its tokens after half of their lifetime instead of 75 % to 85 %. It is called before the source
// is used.
func RenewEarly(s *Source) {
	half := func() float64 { return (0.5 - minRenewShare) / (maxRenewShare - minRenewShare) }
	s.jitter = half
	if s.rotation == nil {
		return
	}
	generation := s.rotation.generation
	s.rotation.generation = func(certificate *tls.Certificate) (*Source, error) {
		g, err := generation(certificate)
		if g != nil {
			g.jitter = half
		}
		return g, err
	}
}

// Measure applies [Telemetry] to the source.
func Measure(s *Source, telemetry Option) {
	var c config
	telemetry(&c)
	s.instruments = c.instruments
}

// Issue requests a token from the source's issuer, bypassing the cache.
func Issue(ctx context.Context, s *Source) (string, error) {
	answer, err := s.issuer.issue(ctx)
	return answer.token, err
}

var (
	Loopback    = loopback
	Unavailable = unavailable
	Refusal     = refusal
)

// TokenRefused exports tokenRefused for bearer tokens.
func TokenRefused(values []string) bool { return tokenRefused("Bearer", values) }
