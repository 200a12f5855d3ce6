package telemetry_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/telemetry"
)

// FuzzPlain checks that the short way of encoding attributes writes what the encoder writes, or nothing.
func FuzzPlain(f *testing.F) {
	for _, text := range []string{
		"", "plain", `a"b`, `a\b`, "<&>", "é\u2028", "\xff", "a\x7fb", "tab\tline\n\x00", strings.Repeat("a", 1024), strings.Repeat("a", 1025),
	} {
		f.Add("jti", text, int64(-1), true)
		f.Add(text, "value", int64(1<<62), false)
	}
	f.Add(slog.LevelKey, "value", int64(0), false)
	f.Add(slog.MessageKey, "value", int64(0), false)
	f.Fuzz(func(t *testing.T, key, text string, number int64, yes bool) {
		for _, attrs := range [][]slog.Attr{
			nil, {slog.String(key, text)}, {slog.Int64(key, number), slog.Bool("yes", yes)}, {slog.Any("aud", []string{text})},
			{slog.Any("aud", []string{text, "https://orders.internal"}), slog.String("cnf", text)}, {slog.Any("aud", []string(nil))}, {slog.Any("aud", []string{})},
			{slog.Time("since", time.Unix(number, 0))}, {slog.Any("changes", []telemetry.Change{{Field: text}})}, {slog.Any("cause", nil)},
		} {
			if got, ok := telemetry.AppendPlain(attrs); ok && got != telemetry.Encode(attrs) {
				t.Errorf("got %s, want %s", got, telemetry.Encode(attrs))
			}
		}
	})
}

// TestPlain checks that the event of a token is encoded the short way.
func TestPlain(t *testing.T) {
	attrs := []slog.Attr{slog.String("client_id", "svc"), slog.Any("aud", []string{"https://a", "https://b"}), slog.Int64("lifetime", 3600), slog.Bool("all", false)}
	const want = `{"client_id":"svc","aud":["https://a","https://b"],"lifetime":3600,"all":false}`
	if got, ok := telemetry.AppendPlain(attrs); !ok || got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
