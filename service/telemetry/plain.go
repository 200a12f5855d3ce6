package telemetry

import (
	"log/slog"
	"strconv"
)

// appendPlain appends attributes as the encoder of [newEncoder] does, if nothing in them must be escaped or truncated; ok is
// false otherwise, and the encoder is needed. Almost every event is such, and the encoder would take a fiftieth of the time of
// its token.
func appendPlain(b []byte, attrs []slog.Attr) (_ []byte, ok bool) {
	b = append(b, '{')
	for i, a := range attrs {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = appendPlainText(b, a.Key); !ok || a.Key == "" || a.Key == slog.LevelKey || a.Key == slog.MessageKey {
			return nil, false
		}
		if b, ok = appendPlainValue(append(b, ':'), a.Value); !ok {
			return nil, false
		}
	}
	return append(b, '}'), true
}

func appendPlainValue(b []byte, v slog.Value) (_ []byte, ok bool) {
	switch v.Kind() {
	case slog.KindString:
		return appendPlainText(b, v.String())
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10), true
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool()), true
	case slog.KindAny:
		list, _ := v.Any().([]string)
		for i, text := range list {
			if b, ok = appendPlainText(append(b, "[,"[min(i, 1)]), text); !ok {
				return nil, false
			}
		}
		return append(b, ']'), len(list) > 0
	}
	return nil, false
}

func appendPlainText(b []byte, text string) (_ []byte, ok bool) {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return nil, false
		}
	}
	return append(append(append(b, '"'), text...), '"'), len(text) <= maxText
}
