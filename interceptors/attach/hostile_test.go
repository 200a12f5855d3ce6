package attach_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// answering returns a client of a token endpoint that always returns the same answer, without a network.
func answering(status int, body string) *http.Client {
	return &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", body), Header: http.Header{},
			Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})}
}

// askOnce returns the error of a token request with the secret, over a client that returns the answer.
func askOnce(t *testing.T, secret string, answer *http.Client) error {
	t.Helper()
	_, err := attach.ClientCredentials("", "a", secret, attach.TokenURL("https://auth.example.com/token"),
		attach.HTTPClient(answer), attach.AuthMethod(attach.ClientSecretBasic)).Token()
	return err
}

// TestRefusalKeepsItsCode refuses secrets that occur in a refusal by chance, whole or in part.
func TestRefusalKeepsItsCode(t *testing.T) {
	for _, secret := range []string{"x", "i", "t", "it", "inv", "***", "*", ":", "%", ".", "Client", "client", "omitted", "invalid",
		"invalid_client", "authentication", "client_secret", "(omitted: it contains the secret)", "Client authentication failed.",
		"\x00", "ä", "\xff", "===", "aW52"} {
		err := askOnce(t, secret, answering(401, `{"error":"invalid_client","error_description":"Client authentication failed."}`))
		var refused *attach.Error
		if !errors.As(err, &refused) || refused.Code != oauth.InvalidClient || status.Code(err) != codes.Unauthenticated {
			t.Errorf("secret %q: got %v, want invalid_client", secret, err)
			continue
		}
		want := "Client authentication failed."
		switch secret {
		case "Client":
			want = "*** authentication failed."
		case "authentication":
			want = "Client *** failed."
		case "Client authentication failed.":
			want = "(omitted: it contains the secret)"
		}
		if refused.Description != want {
			t.Errorf("secret %q: got description %q, want %q", secret, refused.Description, want)
		}
	}
}

// TestEchoedSecret has servers echo a secret in each part of an answer.
func TestEchoedSecret(t *testing.T) {
	for _, secret := range []string{"inv", "s3cret", "service-secret-here", "p&ss wörd%", "contains", "authentication"} {
		escaped := url.QueryEscape(secret)
		basic := base64.StdEncoding.EncodeToString([]byte("a:" + escaped))
		for name, body := range map[string]string{
			"quoted":         `{"error":"invalid_client","error_description":"wrong secret '` + secret + `'."}`,
			"last":           `{"error":"invalid_client","error_description":"wrong secret: ` + secret + `."}`,
			"form":           `{"error":"invalid_client","error_description":"got grant_type=x&client_secret=` + escaped + `&a=b"}`,
			"header":         `{"error":"invalid_client","error_description":"got Basic ` + basic + `"}`,
			"as the code":    `{"error":"` + secret + `"}`,
			"unknown code":   `{"error":"bad ` + secret + `"}`,
			"token type":     `{"access_token":"b","token_type":"` + secret + `"}`,
			"status line":    secret,
			"several, glued": `{"error":"invalid_client","error_description":"` + secret + ` ` + secret + `,` + secret + `"}`,
		} {
			for _, status := range []int{200, 400, 401, 302, 500} {
				err := askOnce(t, secret, answering(status, body))
				text := strings.NewReplacer("the token endpoint's answer", "", "it contains", "", "invalid_client", "").Replace(fmt.Sprint(err))
				if strings.Contains(text, secret) || strings.Contains(text, escaped) || strings.Contains(text, strings.TrimRight(basic, "=")) {
					t.Errorf("%s, %d: secret %q is in %v", name, status, secret, err)
				}
			}
		}
	}
	broken := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, errors.New(`malformed HTTP response "service-secret-here"`)
	})}
	if err := askOnce(t, "service-secret-here", broken); err == nil || strings.Contains(err.Error(), "service-secret-here") {
		t.Errorf("transport: the secret is in %v", err)
	}
}

// errorMeters provides a meter that returns nothing beside its errors.
type errorMeters struct{ noop.MeterProvider }

type errorMeter struct{ noop.Meter }

func (errorMeters) Meter(string, ...metric.MeterOption) metric.Meter { return errorMeter{} }

func (errorMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, errors.New("no counter")
}

func (errorMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, errors.New("no histogram")
}

func (errorMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return nil, errors.New("no callback")
}

// panickingMeters provides a meter whose counter panics, unless it is nil and panics itself.
type panickingMeters struct{ noop.MeterProvider }

type panickingMeter struct{ noop.Meter }

type panickingCounter struct{ noop.Int64Counter }

func (p *panickingMeters) Meter(name string, _ ...metric.MeterOption) metric.Meter {
	_ = p.MeterProvider.Meter(name)
	return panickingMeter{}
}

func (panickingMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return panickingCounter{}, nil
}

func (panickingMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	panic("no callback")
}

func (panickingCounter) Add(context.Context, int64, ...metric.AddOption) { panic("no counter") }

// TestFaultyProgram configures a source as a faulty program may. Each part must fail with an error; a panic in the
// source's goroutine would end the program.
func TestFaultyProgram(t *testing.T) {
	panics := func(value any) *http.Client {
		return &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { panic(value) })}
	}
	url := attach.TokenURL("https://auth.example.com/token")
	good := attach.HTTPClient(answering(200, `{"access_token":"b","token_type":"Bearer"}`))
	for name, test := range map[string]struct {
		text    string // in the error; empty if a token is issued
		options []attach.Option
	}{
		"nil option":               {"", []attach.Option{nil, url, good, attach.SecretFunc(func(context.Context) (string, error) { return "s", nil })}},
		"nil client":               {"", []attach.Option{attach.HTTPClient(nil), url, good, function("s")}},
		"meters without a counter": {"", []attach.Option{attach.Telemetry(errorMeters{}, nil), url, good, function("s")}},
		"meters that are nil":      {"", []attach.Option{attach.Telemetry((*panickingMeters)(nil), nil), url, good, function("s")}},
		"meters that panic":        {"", []attach.Option{attach.Telemetry(&panickingMeters{}, nil), url, good, function("s")}},
		"nil *http.Transport": {"the token request panicked", []attach.Option{url, function("s"),
			attach.HTTPClient(&http.Client{Transport: (*http.Transport)(nil)})}},
		"nil function": {"the function is nil", []attach.Option{url, good, attach.SecretFunc(nil)}},
		"function that panics": {"the function panicked with a string", []attach.Option{url, good,
			attach.SecretFunc(func(context.Context) (string, error) { panic("s3cret") })}},
		"function that ends its goroutine": {"ended its goroutine", []attach.Option{url, good,
			attach.SecretFunc(func(context.Context) (string, error) { runtime.Goexit(); return "", nil })}},
		"nil connection":       {"the connection is nil", []attach.Option{attach.OverGRPC(nil), function("s")}},
		"typed nil connection": {"the connection is nil", []attach.Option{attach.OverGRPC((*grpc.ClientConn)(nil)), function("s")}},
		"transport that panics": {"panicked: runtime error: index out of range [1] with length 0", []attach.Option{url, function("s"),
			attach.HTTPClient(&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				return nil, []error{}[len("x")]
			})})}},
		"transport that panics with a value": {"panicked with a string", []attach.Option{url, function("s"), attach.HTTPClient(panics("s3cret"))}},
		"transport that ends its goroutine": {"ended its goroutine", []attach.Option{url, function("s"),
			attach.HTTPClient(&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				runtime.Goexit()
				return nil, nil
			})})}},
		"transport that returns nothing": {"nil *Response", []attach.Option{url, function("s"),
			attach.HTTPClient(&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, nil })})}},
	} {
		t.Run(name, func(t *testing.T) {
			source := attach.ClientCredentials("", "a", "", test.options...)
			for range 2 {
				_, err := source.Token()
				if (err == nil) != (test.text == "") || err != nil && !strings.Contains(err.Error(), test.text) {
					t.Fatalf("got %v, want %q in it", err, test.text)
				}
				wantNoSecret(t, "s3cret", err)
			}
		})
	}
}

func TestNilSourcesContextsAndRequests(t *testing.T) {
	invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	open := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		return nil, nil
	}
	var none context.Context
	for name, source := range map[string]*attach.Source{"nil": nil, "zero": new(attach.Source)} {
		source.Drop("a")
		_, token := source.Token()
		_, later := source.TokenContext(none)
		_, stream := attach.StreamInterceptor(source)(t.Context(), &grpc.StreamDesc{}, nil, "/a/b", open)
		_, roundTrip := source.Transport(nil).RoundTrip(newRequest(t, http.MethodGet, "https://orders.internal", nil))
		_, perRPC := source.PerRPCCredentials().GetRequestMetadata(none)
		unary := attach.UnaryInterceptor(source)(t.Context(), "/a/b", nil, nil, nil, invoke)
		for _, err := range []error{token, later, stream, roundTrip, perRPC, unary} {
			if err == nil || status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "the source") {
				t.Errorf("%s source: got %v, want an error", name, err)
			}
		}
		if !source.PerRPCCredentials().RequireTransportSecurity() {
			t.Errorf("%s source: plaintext is allowed", name)
		}
		_ = fmt.Sprint(source)
	}
	source := numberedSource()
	if err := attach.UnaryInterceptor(source)(none, "/a/b", nil, nil, nil, invoke); err == nil {
		t.Error("a call without a context was made")
	}
	if _, err := attach.StreamInterceptor(source)(t.Context(), &grpc.StreamDesc{}, nil, "/a/b", open); err == nil {
		t.Error("got no error for no stream")
	}
	if token, err := source.TokenContext(none); err != nil || token.AccessToken != "1" {
		t.Errorf("without a context: got %v, %v, want a token", token, err)
	}
	for _, base := range []roundTripper{
		func(*http.Request) (*http.Response, error) { return nil, nil },
		func(r *http.Request) (*http.Response, error) {
			h := http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}
			return &http.Response{StatusCode: http.StatusUnauthorized, Header: h, Request: r}, nil // without a body
		},
	} {
		measured := numberedSource()
		attach.Measure(measured, attach.Telemetry(nil, nil))
		for _, source := range []*attach.Source{numberedSource(), measured} {
			answer, err := source.Transport(base).RoundTrip(newRequest(t, http.MethodGet, "https://orders.internal", nil))
			if (answer == nil) == (err == nil) {
				t.Errorf("got %v and %v", answer, err)
			}
			for _, request := range []*http.Request{nil, {}, {Body: http.NoBody}, {URL: &url.URL{Scheme: "https", Host: "a"},
				Response: &http.Response{Request: &http.Request{}}}} {
				if answer, err := source.Transport(base).RoundTrip(request); (answer == nil) == (err == nil) {
					t.Errorf("got %v and %v", answer, err)
				}
			}
		}
	}
	for _, opt := range []grpc.CallOption{grpc.Header(nil), grpc.Trailer(nil)} {
		o := &orders{accepts: "2"}
		_, err := o.client(t, numberedSource()).StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
		if err != nil {
			t.Error(err)
		}
		refused := func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
			for _, opt := range opts {
				if o, ok := opt.(grpc.TrailerCallOption); ok && o.TrailerAddr != nil {
					*o.TrailerAddr = metadata.Pairs("www-authenticate", `Bearer error="invalid_token"`)
				}
			}
			return status.Error(codes.Unauthenticated, "no")
		}
		err = attach.UnaryInterceptor(numberedSource())(t.Context(), "/a/b", nil, nil, nil, refused, opt)
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("got %v, want the server's refusal", err)
		}
	}
}

// idleStream is a stream without a connection.
type idleStream struct{ grpc.ClientStream }

// A stream that a program opens without a connection lives beyond the renewal of its token.
func TestStreamWithoutAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
			return idleStream{}, nil
		}
		source := attach.NewSource((&issuer{lifetime: time.Minute}).fetch, 0.5)
		if _, err := attach.StreamInterceptor(source)(t.Context(), &grpc.StreamDesc{}, nil, "/a/b", open); err != nil {
			t.Fatal(err)
		}
		advance(2 * time.Minute)
	})
}

// TestFaultyErrorHandler checks that a token is issued although neither the meter nor the handler of its errors works.
func TestFaultyErrorHandler(t *testing.T) {
	handler := otel.GetErrorHandler()
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) { panic("s3cret") }))
	t.Cleanup(func() { otel.SetErrorHandler(handler) })
	source := attach.ClientCredentials("", "a", "b", attach.TokenURL("https://auth.example.com/token"),
		attach.HTTPClient(answering(200, `{"access_token":"b","token_type":"Bearer"}`)), attach.Telemetry(&panickingMeters{}, nil))
	if _, err := source.Token(); err != nil {
		t.Error(err)
	}
}

type (
	// registrationMeters provides a meter that returns the registration.
	registrationMeters struct {
		noop.MeterProvider
		registration metric.Registration
	}
	registrationMeter struct {
		noop.Meter
		registration metric.Registration
	}
)

func (r registrationMeters) Meter(string, ...metric.MeterOption) metric.Meter {
	return registrationMeter{registration: r.registration}
}

func (r registrationMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return r.registration, nil
}

// panickingRegistration counts its ends, at which it panics.
type panickingRegistration struct {
	noop.Registration
	ends *atomic.Int32
}

func (p panickingRegistration) Unregister() error {
	p.ends.Add(1)
	panic("s3cret")
}

// TestFaultyCleanup checks that a meter that panics when a source is collected does not end the program.
func TestFaultyCleanup(t *testing.T) {
	var ends atomic.Int32
	attach.ClientCredentials("", "a", "b", attach.TokenURL("https://auth.example.com/token"),
		attach.Telemetry(registrationMeters{registration: panickingRegistration{ends: &ends}}, nil))
	must.Eventually(t, "the source is collected", func() bool {
		runtime.GC()
		return ends.Load() > 0
	})
}

// TestOddCalls makes calls as only a faulty program does.
func TestOddCalls(t *testing.T) {
	source := numberedSource()
	open := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		return idleStream{}, nil
	}
	if _, err := attach.StreamInterceptor(source)(t.Context(), nil, nil, "/a/b", open); status.Code(err) != codes.Internal {
		t.Errorf("without a description: got %v, want INTERNAL", err)
	}
	// The redirects that led to this request lead back to it.
	circular := newRequest(t, http.MethodGet, "https://orders.internal", nil)
	circular.Response = &http.Response{Request: circular}
	sent := ""
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		sent = r.Header.Get("Authorization")
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	})
	if _, err := source.Transport(base).RoundTrip(circular); err != nil || sent != "" {
		t.Errorf("got %v and sent %q, want a request without a token", err, sent)
	}
	_, err := source.Transport((*http.Transport)(nil)).RoundTrip(&http.Request{URL: &url.URL{Scheme: "https", Host: "127.0.0.1:1"}})
	if err == nil {
		t.Error("got no error from a closed port")
	}
	// Credentials of the program's own may add to the metadata of theirs.
	for range 2 {
		own, err := source.PerRPCCredentials().GetRequestMetadata(t.Context())
		if err != nil || len(own) != 1 {
			t.Errorf("got %v, %v, want the token alone", own, err)
		}
		own["tenant"] = "a"
	}
}

// TestZeroError checks an Error that a program creates itself, as its own tests may.
func TestZeroError(t *testing.T) {
	for err, want := range map[*attach.Error]codes.Code{
		{}:                               codes.Internal,
		{Code: oauth.InvalidClient}:      codes.Unauthenticated,
		{Code: oauth.UnauthorizedClient}: codes.PermissionDenied,
		{Code: "access_denied"}:          codes.PermissionDenied,
		{Code: oauth.InvalidScope}:       codes.Internal,
		{Code: oauth.ServerError}:        codes.Unavailable,
	} {
		if got := status.Code(err); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
}
