package bench_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/bench"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/service/oauth"
)

// TestBenchREST uses a server that responds 200 to everything: the body decides.
func TestBenchREST(t *testing.T) {
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
	t.Cleanup(server.Close)
	metadata := &oauth.Metadata{Issuer: server.URL, TokenEndpoint: server.URL, IntrospectionEndpoint: server.URL}
	client := &remote.Client{Metadata: metadata, Authentication: remote.NewAuthentication(remote.Credentials{ID: "a", Secret: "b"}, metadata)}
	for _, c := range []struct{ operation, body, want string }{
		{bench.OperationIssue, `{"access_token": "a.b.c", "expires_in": 60}`, ""},
		{bench.OperationIssue, `{"access_token": ""}`, "no token"},
		{bench.OperationIssue, `{}`, "no token"},
		{bench.OperationIssue, `<html>`, "no token"},
		{bench.OperationIssue, `{"access_token": "a"` + strings.Repeat(" ", bench.MaxBody) + `}`, "no token"},
		{bench.OperationIntrospect, `{"active": true, "sub": "a"}`, ""},
		{bench.OperationIntrospect, `{"active": false}`, "inactive"},
		{bench.OperationIntrospect, `{}`, "inactive"},
		{bench.OperationIntrospect, ``, "inactive"},
	} {
		body = c.body
		l := &bench.Load{Operation: c.operation, Wire: bench.WireREST, Connections: 1, InFlight: 1, Tokens: 1}
		target := &bench.Target{}
		l.OverREST(target, client, remote.Credentials{ID: "a", Secret: "b"}, []string{"a.b.c"})
		if got := target.Call(t.Context(), 0, 0); got != c.want {
			t.Errorf("%s of %.40q: got %q, want %q", c.operation, c.body, got, c.want)
		}
		target.Close()
	}
	client.Metadata.IntrospectionEndpoint = ""
	l := &bench.Load{Operation: bench.OperationIntrospect, Wire: bench.WireREST, Connections: 1, InFlight: 1, Tokens: 1}
	if _, err := l.Reach(t.Context(), client, nil); err == nil || !strings.Contains(err.Error(), "has no introspection_endpoint") {
		t.Errorf("without an endpoint: got the error %v", err)
	}
}

// TestBenchUnderWay expects a call that hangs until the end to be reported, although it is neither answered nor failed.
func TestBenchUnderWay(t *testing.T) {
	hang := &bench.Target{Call: func(ctx context.Context, _ int, number int64) string {
		if number == 3 {
			<-ctx.Done()
			return "canceled"
		}
		<-time.After(time.Millisecond)
		return ""
	}}
	for _, rate := range []float64{0, 100} {
		l := &bench.Load{Connections: 1, InFlight: 2, Duration: 400 * time.Millisecond, Rate: rate}
		result := l.Run(t.Context(), hang, func(string) {})
		if result.Calls == 0 || len(result.Failures) != 0 || result.UnderWay < 1 || result.UnderWay > 2 || result.Oldest < 200 {
			t.Errorf("at a rate of %g: got %+v, want the call that hangs under way", rate, result)
		}
	}
	result := &bench.Result{UnderWay: 3, Oldest: 2100, Latency: bench.Latencies{Max: 2100.5}, Histogram: (&bench.Load{}).EmptyResult(hang).Histogram}
	for _, c := range []struct {
		longest float64
		want    bool
	}{{2100.5, false}, {2099, true}} {
		var text strings.Builder
		result.Latency.Max = c.longest
		if err := result.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text.String(), "under way  3 at the end, the oldest for 2.1s\n") != c.want {
			t.Errorf("with a longest latency of %g ms, want %t:\n%s", c.longest, c.want, text.String())
		}
	}
}

// TestBenchUnanswered runs an open loop of a limited number of calls: no more than these can be unanswered.
func TestBenchUnanswered(t *testing.T) {
	hang := &bench.Target{Call: func(ctx context.Context, _ int, _ int64) string { <-ctx.Done(); return "canceled" }}
	for _, c := range []struct {
		calls, want int64
		warmUp      time.Duration
	}{{3, 3, 0}, {12, 2, 100 * time.Millisecond}, {3, 0, 100 * time.Millisecond}} {
		l := &bench.Load{Connections: 1, InFlight: 1, Duration: 100 * time.Millisecond, WarmUp: c.warmUp, Rate: 100, Calls: c.calls}
		if got := l.Run(t.Context(), hang, func(string) {}).Unanswered; got != c.want {
			t.Errorf("%d calls, %s of warm-up: got %d unanswered, want %d", c.calls, c.warmUp, got, c.want)
		}
	}
	for _, rate := range []float64{0.001, 0.3, 3, 500, 700_000} {
		l := &bench.Load{Rate: rate, WarmUp: 2 * time.Second}
		if got, want := l.Due(100*time.Second), int64(rate*100); got < want-1 || got > want+1 {
			t.Errorf("at a rate of %g: %d are due in 100 s, want %d", rate, got, want)
		}
	}
}

// TestLoadFailures expects failures to be counted by their kind, beside the successes.
func TestLoadFailures(t *testing.T) {
	l := &bench.Load{Connections: 1, InFlight: 2, Duration: 100 * time.Millisecond}
	result := l.Run(t.Context(), &bench.Target{Call: func(_ context.Context, _ int, number int64) string {
		if number%2 == 0 {
			return "broken"
		}
		return ""
	}}, func(string) {})
	if result.Calls == 0 || result.Failures["broken"] == 0 || len(result.Failures) != 1 {
		t.Errorf("got %d calls and the failures %v", result.Calls, result.Failures)
	}
}

// TestOpenLoop uses a server that stalls: the calls that were due during the stall have its latency, although only one
// of them was in flight.
func TestOpenLoop(t *testing.T) {
	const still = 200 * time.Millisecond
	l := &bench.Load{Connections: 1, InFlight: 1, Duration: 600 * time.Millisecond, Rate: 100}
	result := l.Run(t.Context(), &bench.Target{Call: func(_ context.Context, _ int, number int64) string {
		if number == 10 {
			<-time.After(still)
		}
		return ""
	}}, func(string) {})
	late := int64(0)
	for _, bar := range result.Histogram.Distribution() {
		if bar.From >= (still / 4).Microseconds() {
			late += bar.Count
		}
	}
	if late < 10 {
		t.Errorf("%d calls were late, want those that were due while the server stood still: about 15", late)
	}
	// If the server never responds, all calls that were due are unanswered.
	l.Duration = 200 * time.Millisecond
	result = l.Run(t.Context(), &bench.Target{Call: func(ctx context.Context, _ int, _ int64) string {
		<-ctx.Done()
		return "canceled"
	}}, func(string) {})
	if result.Calls != 0 || len(result.Failures) != 0 || result.Unanswered < 10 {
		t.Errorf("got %d calls, %v failed, %d unanswered; want about 20 of the last alone", result.Calls, result.Failures, result.Unanswered)
	}
}

// TestBenchBacklog measures a server that is slower than the rate, during the warm-up too.
func TestBenchBacklog(t *testing.T) {
	l := &bench.Load{Rate: 10_000, InFlight: 1, Connections: 1, WarmUp: 100 * time.Millisecond, Duration: 200 * time.Millisecond}
	slow := &bench.Target{Call: func(ctx context.Context, _ int, _ int64) string {
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
		return ""
	}}
	if r := l.Run(t.Context(), slow, func(string) {}); r.Calls < 5 || r.Unanswered < 1000 {
		t.Errorf("got %d calls and %d unanswered", r.Calls, r.Unanswered)
	}
}
