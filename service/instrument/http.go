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

// HTTP measures and traces the requests that a server answers, or those that a client makes. It is safe for concurrent
// use by multiple goroutines.
type HTTP struct {
	duration metric.Float64Histogram
	tracer   trace.Tracer
	series   cache[series, []metric.RecordOption]
}

// NewHTTPServer returns an HTTP for a server. It records http.server.request.duration.
func NewHTTPServer(meter metric.Meter, tracer trace.Tracer) (*HTTP, error) {
	convention := httpconv.ServerRequestDuration{}
	duration, err := Durations(meter, convention.Name(), convention.Description())
	return &HTTP{duration: duration, tracer: tracer}, err
}

// NewHTTPClient returns an HTTP for a client. It records http.client.request.duration.
func NewHTTPClient(meter metric.Meter, tracer trace.Tracer) (*HTTP, error) {
	convention := httpconv.ClientRequestDuration{}
	duration, err := Durations(meter, convention.Name(), convention.Description())
	return &HTTP{duration: duration, tracer: tracer}, err
}

// series is the key of a series of requests. An attribute is omitted if its field is zero.
type series struct {
	method, scheme, route string
	// host and port are those of the server. Only a client sets them.
	host   string
	port   int
	status int
	// failure is the error.type.
	failure string
}

// attributes returns the attributes of the series, which are those of its spans as well.
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

// end records a request and ends its span.
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

// Handler returns a handler that measures next. route is called after next and returns the route of the request, which
// must be empty or from a fixed set.
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
			ctx, span = startSpan(ctx, h.tracer, s.method, trace.SpanKindServer)
			r = r.WithContext(ctx)
		}
		answered := false
		w = httpsnoop.Wrap(w, httpsnoop.Hooks{
			WriteHeader: func(write httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
				return func(status int) {
					if !answered && status >= http.StatusOK { // any number of 1xx headers may precede it
						answered, s.status = true, status
					}
					write(status)
				}
			},
		})
		returned := false
		defer func() {
			if !returned && !answered {
				s.status = http.StatusInternalServerError // a panic, which propagates to the caller
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

// RoundTrip measures next up to the header of the response. It calls next with a copy of r whose headers contain the
// new span, if there is a tracer.
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
		ctx, span = startSpan(ctx, h.tracer, s.method, trace.SpanKindClient)
		r = r.Clone(ctx) // a RoundTripper must not change the request
		if r.Header == nil {
			r.Header = make(http.Header, 2)
		}
		traceContext.Inject(ctx, carrier{set: r.Header.Set})
	}
	response, err := next(r)
	switch {
	case err != nil, response == nil:
		s.failure = other
	case response.StatusCode >= http.StatusBadRequest:
		s.status, s.failure = response.StatusCode, strconv.Itoa(response.StatusCode)
	default:
		s.status = response.StatusCode
	}
	h.end(ctx, s, span, start)
	return response, err
}

// knownMethod returns method if it is one of RFC 9110 §9.3 or RFC 5789, and "_OTHER" if not. The empty method is GET,
// as in [http.Request].
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
