package instrument

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/felixge/httpsnoop"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/trace"
)

// HTTP measures the requests that a server answers, or that a client makes. It may be used by several goroutines.
type HTTP struct {
	duration metric.Float64Histogram
	tracer   trace.Tracer
	series   cache[series, []metric.RecordOption]
}

// NewHTTPServer makes what measures the requests that a server answers: http.server.request.duration.
func NewHTTPServer(meter metric.Meter, tracer trace.Tracer) (*HTTP, error) {
	of := httpconv.ServerRequestDuration{}
	duration, err := Durations(meter, of.Name(), of.Description())
	return &HTTP{duration: duration, tracer: tracer}, err
}

// NewHTTPClient makes what measures the requests that a client makes: http.client.request.duration.
func NewHTTPClient(meter metric.Meter, tracer trace.Tracer) (*HTTP, error) {
	of := httpconv.ClientRequestDuration{}
	duration, err := Durations(meter, of.Name(), of.Description())
	return &HTTP{duration: duration, tracer: tracer}, err
}

// series is what requests are counted by. A zero field is left out.
type series struct {
	method, scheme, route string
	// host and port are those of the server that a client asks.
	host   string
	port   int
	status int
	// failure is the error.type where that is not the status.
	failure string
}

// attributes are those of metric and span alike.
func (s *series) attributes() []attribute.KeyValue {
	all := []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(s.method), semconv.URLScheme(s.scheme)}
	if s.route != "" {
		all = append(all, semconv.HTTPRoute(s.route))
	}
	if s.host != "" {
		all = append(all, semconv.ServerAddress(s.host), semconv.ServerPort(s.port))
	}
	if s.status != 0 {
		all = append(all, semconv.HTTPResponseStatusCode(s.status))
	}
	if s.failure != "" {
		all = append(all, semconv.ErrorTypeKey.String(s.failure))
	}
	return all
}

// end counts a request, and ends its span.
func (h *HTTP) end(ctx context.Context, s series, span trace.Span, start time.Time) {
	options := h.series.get(s, func() []metric.RecordOption {
		return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(s.attributes()...))}
	})
	h.duration.Record(ctx, time.Since(start).Seconds(), options...)
	if span == nil {
		return
	}
	if span.IsRecording() {
		if s.route != "" {
			span.SetName(s.method + " " + s.route)
		}
		span.SetAttributes(s.attributes()...)
		if s.failure != "" {
			span.SetStatus(otelcodes.Error, "")
		}
	}
	span.End()
}

// Handler measures what next answers. route gives the route of a request that was answered, one of a fixed set or empty.
func (h *HTTP) Handler(next http.Handler, route func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, ctx := time.Now(), r.Context()
		s := series{method: knownMethod(r.Method), scheme: "http", status: http.StatusOK}
		if r.TLS != nil {
			s.scheme = "https"
		}
		var span trace.Span
		if h.tracer != nil {
			ctx = traceContext.Extract(ctx, carrier{get: r.Header.Values})
			ctx, span = h.tracer.Start(ctx, s.method, trace.WithSpanKind(trace.SpanKindServer))
			r = r.WithContext(ctx)
		}
		answered := false
		w = httpsnoop.Wrap(w, httpsnoop.Hooks{
			WriteHeader: func(write httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
				return func(status int) {
					if !answered && status >= http.StatusOK { // before it there may be any number of others
						answered, s.status = true, status
					}
					write(status)
				}
			},
		})
		returned := false
		defer func() {
			if !returned && !answered {
				s.status = http.StatusInternalServerError // a panic, which is the caller's to deal with
			}
			if s.status >= http.StatusInternalServerError {
				s.failure = strconv.Itoa(s.status)
			}
			s.route = route(r)
			h.end(ctx, s, span, start)
		}()
		next.ServeHTTP(w, r)
		returned = true
	})
}

// RoundTrip measures a request that next makes, up to the head of its answer, and has it name the span.
func (h *HTTP) RoundTrip(r *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	start, ctx := time.Now(), r.Context()
	s := series{method: knownMethod(r.Method), scheme: r.URL.Scheme, host: r.URL.Hostname()}
	if s.port, _ = strconv.Atoi(r.URL.Port()); s.port == 0 {
		if s.port = 80; s.scheme == "https" {
			s.port = 443
		}
	}
	var span trace.Span
	if h.tracer != nil {
		ctx, span = h.tracer.Start(ctx, s.method, trace.WithSpanKind(trace.SpanKindClient))
		r = r.Clone(ctx) // a RoundTripper does not change the request
		if r.Header == nil {
			r.Header = make(http.Header, 2)
		}
		traceContext.Inject(ctx, carrier{set: r.Header.Set})
	}
	answer, err := next(r)
	switch {
	case err != nil:
		s.failure = other
	case answer.StatusCode >= http.StatusBadRequest:
		s.status, s.failure = answer.StatusCode, strconv.Itoa(answer.StatusCode)
	default:
		s.status = answer.StatusCode
	}
	h.end(ctx, s, span, start)
	return answer, err
}

// knownMethod is the method of a request, if it is one of RFC 9110 §9.3 or RFC 5789.
func knownMethod(method string) string {
	switch method {
	case "":
		return http.MethodGet
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return other
}
