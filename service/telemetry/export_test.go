package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"time"
)

// MaxCallers is the maximum number of callers whose introspections are aggregated at a time.
const MaxCallers = maxCallers

// AppendPlain is appendPlain.
func AppendPlain(attrs []slog.Attr) (string, bool) {
	b, ok := appendPlain(nil, attrs)
	return string(b), ok
}

// Encode returns attributes as the encoder of a sink writes them.
func Encode(attrs []slog.Attr) string {
	var b bytes.Buffer
	record := slog.NewRecord(time.Time{}, slog.LevelInfo, "", 0)
	record.AddAttrs(attrs...)
	_ = newEncoder(&b).Handle(context.Background(), record)
	return strings.TrimSpace(b.String())
}
