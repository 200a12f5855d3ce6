package telemetry_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/grantorhq/grantor/service/telemetry"
)

// nowhere is a trail that keeps nothing.
type nowhere struct{}

func (nowhere) Append(context.Context, telemetry.Stream, []telemetry.Entry) error { return nil }

// BenchmarkTokenIssued has what the event costs the request that it is about: with the log alone, and with a trail beside
// it, whose own work is done in the background meanwhile.
func BenchmarkTokenIssued(b *testing.B) {
	encoded := slog.NewJSONHandler(io.Discard, nil) //nolint:sloglint // the encoding counts
	for _, kind := range []struct {
		name  string
		log   slog.Handler
		trail telemetry.AuditSink
	}{
		{"nothing", slog.DiscardHandler, nil},
		{"log", encoded, nil},
		{"trail", slog.DiscardHandler, nowhere{}},
		{"log and trail", encoded, nowhere{}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			r, err := telemetry.New(slog.New(kind.log), noop.Meter{}, nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			if kind.trail != nil {
				r.Keep(kind.trail)
			}
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error)
			go func() { ended <- r.Run(ctx) }()
			about := telemetry.Token{ClientID: "background-service", Method: "client_secret_post", Peer: "192.0.2.1:54321"}
			audience := []string{"https://orders.internal"}
			b.ReportAllocs()
			for b.Loop() {
				r.TokenIssued(ctx, about, slog.String("jti", "WdAfBPWUEJa655D6M_7KDg"), slog.String("scope", "api1 orders.read"),
					slog.Any("aud", audience), slog.Int64("lifetime", 3600))
			}
			b.StopTimer()
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}
