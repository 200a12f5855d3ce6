package telemetry_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/grantorhq/grantor/service/telemetry"
)

// discard is a sink that discards all entries.
type discard struct{}

func (discard) Append(context.Context, telemetry.Stream, []telemetry.Entry) error { return nil }

// BenchmarkTokenIssued measures what the event costs its request: with the log alone, and with a sink as well, whose
// work is done concurrently in the background.
func BenchmarkTokenIssued(b *testing.B) {
	encoded := slog.NewJSONHandler(io.Discard, nil) //nolint:sloglint // the encoding counts
	for _, c := range []struct {
		name string
		log  slog.Handler
		sink telemetry.AuditSink
	}{
		{"nothing", slog.DiscardHandler, nil},
		{"log", encoded, nil},
		{"sink", slog.DiscardHandler, discard{}},
		{"log and sink", encoded, discard{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			r, err := telemetry.New(slog.New(c.log), noop.Meter{}, nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			if c.sink != nil {
				r.Keep(c.sink)
			}
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error)
			go func() { ended <- r.Run(ctx) }()
			caller := telemetry.Token{ClientID: "background-service", Method: "client_secret_post", Peer: "192.0.2.1:54321"}
			audience := []string{"https://orders.internal"}
			b.ReportAllocs()
			for b.Loop() {
				r.TokenIssued(ctx, caller, slog.String("jti", "WdAfBPWUEJa655D6M_7KDg"), slog.String("scope", "api1 orders.read"),
					slog.Any("aud", audience), slog.Int64("lifetime", 3600), slog.String("cnf", ""))
			}
			b.StopTimer()
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}
