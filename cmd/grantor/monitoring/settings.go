package monitoring

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"

	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

// Settings are the settings of a command's log, metrics and traces.
type Settings struct {
	// Profiling serves the profiles of the process on the operations port.
	Profiling bool

	logFormat     string
	logLevel      string
	otlpEndpoint  string
	traceSampling float64
}

// Declare declares the settings. logged says what is logged at which level, for the usage of log-level.
func (s *Settings) Declare(set *settings.Set, logged string) {
	set.String(&s.logFormat, "log-format", "json", "`form` of the log on standard error: json or text", settings.Public, settings.OneOf(&s.logFormat, "json", "text"))
	set.String(&s.logLevel, "log-level", "info", "minimum `level` that is logged: debug, info, warn or error; "+logged,
		settings.Public, settings.Check(func() error { _, err := s.Level(); return err }))
	set.Bool(&s.Profiling, "profiling", false, "serve the profiles of the running process at /debug/pprof/ on the operations port; they describe the program and hold no secrets", settings.Public)
	set.String(&s.otlpEndpoint, "otlp-endpoint", "", "`URL` to which traces and metrics are sent by OTLP over gRPC: http://host:4317, or https:// for TLS; none are sent without it",
		settings.PublicURL, settings.Check(func() error { return checkOTLP(s.otlpEndpoint) }))
	set.Float(&s.traceSampling, "trace-sampling", 0.01, "`fraction` of the traces begun here that are recorded, 0 to 1",
		settings.Public, settings.Check(s.checkSampling))
}

// Level returns the minimum level of the log.
func (s *Settings) Level() (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return level, fmt.Errorf("%q is not one of debug, info, warn, error", s.logLevel)
	}
	return level, nil
}

// NewLog returns the log, and its minimum level, which can change.
func (s *Settings) NewLog(w io.Writer) (*slog.Logger, *slog.LevelVar, error) {
	minimum, err := s.Level()
	if err != nil {
		return nil, nil, err
	}
	level := new(slog.LevelVar)
	level.Set(minimum)
	options := &slog.HandlerOptions{Level: level}
	if s.logFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options)), level, nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), level, nil
}

func (s *Settings) checkSampling() error {
	if !(s.traceSampling >= 0 && s.traceSampling <= 1) { // also refuses NaN
		return fmt.Errorf("%g is not between 0 and 1", s.traceSampling)
	}
	return nil
}

// checkOTLP validates an OTLP endpoint, which may be empty.
func checkOTLP(endpoint string) error {
	u, err := url.Parse(endpoint)
	if endpoint == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil {
		return nil
	}
	return errors.New("not a URL such as http://localhost:4317 or https://collector.internal:4317")
}
