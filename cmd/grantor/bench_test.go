package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

// TestBench puts a short load on a real issuer over each wire.
func TestBench(t *testing.T) {
	asDevClient(t)
	for _, args := range [][]string{
		{"issue", "--wire=grpc"},
		{"issue", "--wire=rest"},
		{"introspect", "--wire=grpc", "--tokens=3"},
		{"introspect", "--wire=rest", "--rate=50", "--tokens=3"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			ran := run(t, append([]string{"bench", "--duration=500ms", "--warm-up=100ms", "--in-flight=4", "--connections=2", "-o=json"}, args...)...)
			var result benchResult
			if err := json.Unmarshal([]byte(ran.works(t)), &result); err != nil {
				t.Fatal(err)
			}
			if result.Calls == 0 || len(result.Failures) != 0 || result.Algorithm != "ES256" || result.PerSecond <= 0 {
				t.Errorf("got %+v, want answers alone, signed with ES256", result)
			}
			if l := result.Latency; l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.Max {
				t.Errorf("the latencies are %+v", l)
			}
		})
	}
	text := run(t, "bench", "--duration=300ms", "--warm-up=0s", "--quiet", "--clients", file(t, "clients", "background-service "+devSecret+"\n")).works(t)
	for _, want := range []string{"issue over grpc, ES256, 4 connections", "closed, 64 in flight", "99.9%", " ms |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

func TestBenchRefuses(t *testing.T) {
	asDevClient(t)
	for want, args := range map[string][]string{
		"wire":                                 {"--wire=soap"},
		"each is at least 1 and at most 10000": {"--connections=0"},
		"in-flight, tokens: each is at least":  {"--in-flight=10001"},
		"tokens: each is at least 1":           {"--tokens=10001"},
		"calls: none is negative":              {"--duration=0s"},
		"rate: NaN":                            {"--rate=NaN"},
		"rate: +Inf":                           {"--rate=Inf"},
		"rate: 0.0009 is neither":              {"--rate=0.0009"},
		"rate: 1.000001e+06 is neither 0 nor":  {"--rate=1000001"},
		"rate: -1 is neither 0 nor within":     {"--rate=-1"},
		"they are for issue alone":             {"introspect", "--clients", file(t, "one", "a b\n")},
		"no meaning with --wire rest":          {"--wire=rest", "--grpc-endpoint=localhost:1"},
		`grpc-endpoint: "nowhere"`:             {"--grpc-endpoint=nowhere"},
		"invalid argument":                     {"revoke"},
		"line 2 is not an id":                  {"--clients", file(t, "half", "a b\nalone\n")},
		"the file names no client":             {"--clients", file(t, "empty", "")},
		"invalid_client":                       {"--clients", file(t, "wrong", "background-service wrong-secret-instead\n")},
		"invalid_scope":                        {"--scope=none"},
		"no such file":                         {"--clients", "absent"},
	} {
		run(t, append([]string{"bench"}, args...)...).fails(t, want)
	}
}

// TestBenchCalls has the load end after a number of calls, at the replica that is named.
func TestBenchCalls(t *testing.T) {
	asDevClient(t)
	limited := []string{"bench", "--duration=1m", "--warm-up=0s", "--calls=5", "-o=json"}
	var result benchResult
	if err := json.Unmarshal([]byte(run(t, limited...).works(t)), &result); err != nil {
		t.Fatal(err)
	}
	if result.Calls != 5 || result.Seconds <= 0 || result.Seconds > 30 {
		t.Errorf("got %d calls in %.1f s, want 5 at once", result.Calls, result.Seconds)
	}
}

// TestBenchREST has a server that answers 200 to everything: what the answer says counts.
func TestBenchREST(t *testing.T) {
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
	t.Cleanup(server.Close)
	client := &tokenClient{found: &oauth.Metadata{Issuer: server.URL, TokenEndpoint: server.URL, IntrospectionEndpoint: server.URL}}
	for _, c := range []struct{ operation, body, want string }{
		{operationIssue, `{"access_token": "a.b.c", "expires_in": 60}`, ""},
		{operationIssue, `{"access_token": ""}`, "no token"},
		{operationIssue, `{}`, "no token"},
		{operationIssue, `<html>`, "no token"},
		{operationIssue, `{"access_token": "a"` + strings.Repeat(" ", mostBody) + `}`, "no token"},
		{operationIntrospect, `{"active": true, "sub": "a"}`, ""},
		{operationIntrospect, `{"active": false}`, "inactive"},
		{operationIntrospect, `{}`, "inactive"},
		{operationIntrospect, ``, "inactive"},
	} {
		body = c.body
		l := &loadSettings{operation: c.operation, wire: wireREST, connections: 1, inFlight: 1, tokens: 1}
		target := &target{}
		l.overREST(target, client, []caller{{"a", "b"}}, []string{"a.b.c"})
		if got := target.call(t.Context(), 0, 0); got != c.want {
			t.Errorf("%s of %.40q: got %q, want %q", c.operation, c.body, got, c.want)
		}
		target.close()
	}
	client.found.IntrospectionEndpoint = ""
	l := &loadSettings{operation: operationIntrospect, wire: wireREST, connections: 1, inFlight: 1, tokens: 1}
	if _, err := l.reach(t.Context(), client, nil); err == nil || !strings.Contains(err.Error(), "has no introspection_endpoint") {
		t.Errorf("without an endpoint: got the error %v", err)
	}
}

// TestBenchUnderWay has one call hang until the end: it is told of, although it is neither answered nor failed.
func TestBenchUnderWay(t *testing.T) {
	hang := &target{call: func(ctx context.Context, _ int, number int64) string {
		if number == 3 {
			<-ctx.Done()
			return "canceled"
		}
		<-time.After(time.Millisecond)
		return ""
	}}
	for _, rate := range []float64{0, 100} {
		l := &loadSettings{connections: 1, inFlight: 2, duration: 400 * time.Millisecond, rate: rate}
		result := l.run(t.Context(), hang, func(string) {})
		if result.Calls == 0 || len(result.Failures) != 0 || result.UnderWay < 1 || result.UnderWay > 2 || result.Oldest < 200 {
			t.Errorf("at a rate of %g: got %+v, want the call that hangs under way", rate, result)
		}
	}
	result := &benchResult{UnderWay: 3, Oldest: 2100, Latency: latencies{Max: 2100.5}, histogram: (&loadSettings{}).result(nil, hang, 0).histogram}
	for _, c := range []struct {
		longest float64
		want    bool
	}{{2100.5, false}, {2099, true}} {
		var text strings.Builder
		result.Latency.Max = c.longest
		if err := result.writeText(&text); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text.String(), "under way  3 at the end, the oldest for 2.1s\n") != c.want {
			t.Errorf("with a longest latency of %g ms, want %t:\n%s", c.longest, c.want, text.String())
		}
	}
}

// TestBenchUnanswered has an open loop of a limited number of calls: no more than these can lack an answer.
func TestBenchUnanswered(t *testing.T) {
	hang := &target{call: func(ctx context.Context, _ int, _ int64) string { <-ctx.Done(); return "canceled" }}
	for _, c := range []struct {
		calls, want int64
		warmUp      time.Duration
	}{{3, 3, 0}, {12, 2, 100 * time.Millisecond}, {3, 0, 100 * time.Millisecond}} {
		l := &loadSettings{connections: 1, inFlight: 1, duration: 100 * time.Millisecond, warmUp: c.warmUp, rate: 100, calls: c.calls}
		if got := l.run(t.Context(), hang, func(string) {}).Unanswered; got != c.want {
			t.Errorf("%d calls, %s of warm-up: got %d unanswered, want %d", c.calls, c.warmUp, got, c.want)
		}
	}
	for _, rate := range []float64{0.001, 0.3, 3, 500, 700_000} {
		l := &loadSettings{rate: rate, warmUp: 2 * time.Second}
		if got, want := l.due(100*time.Second), int64(rate*100); got < want-1 || got > want+1 {
			t.Errorf("at a rate of %g: %d are due in 100 s, want %d", rate, got, want)
		}
	}
}

// TestLoadFailures counts what goes wrong by what it was, beside what went well.
func TestLoadFailures(t *testing.T) {
	l := &loadSettings{connections: 1, inFlight: 2, duration: 100 * time.Millisecond}
	result := l.run(t.Context(), &target{call: func(_ context.Context, _ int, number int64) string {
		if number%2 == 0 {
			return "broken"
		}
		return ""
	}}, func(string) {})
	if result.Calls == 0 || result.Failures["broken"] == 0 || len(result.Failures) != 1 {
		t.Errorf("got %d calls and the failures %v", result.Calls, result.Failures)
	}
}

// TestOpenLoop has a server that stands still for a while: the calls that were due meanwhile took that long, although only
// one of them was under way.
func TestOpenLoop(t *testing.T) {
	const still = 200 * time.Millisecond
	l := &loadSettings{connections: 1, inFlight: 1, duration: 600 * time.Millisecond, rate: 100}
	result := l.run(t.Context(), &target{call: func(_ context.Context, _ int, number int64) string {
		if number == 10 {
			<-time.After(still)
		}
		return ""
	}}, func(string) {})
	late := int64(0)
	for _, bar := range result.histogram.Distribution() {
		if bar.From >= (still / 4).Microseconds() {
			late += bar.Count
		}
	}
	if late < 10 {
		t.Errorf("%d calls were late, want those that were due while the server stood still: about 15", late)
	}
	// One that never answers leaves all that was due without an answer.
	l.duration = 200 * time.Millisecond
	result = l.run(t.Context(), &target{call: func(ctx context.Context, _ int, _ int64) string {
		<-ctx.Done()
		return "canceled"
	}}, func(string) {})
	if result.Calls != 0 || len(result.Failures) != 0 || result.Unanswered < 10 {
		t.Errorf("got %d calls, %v failed, %d unanswered; want about 20 of the last alone", result.Calls, result.Failures, result.Unanswered)
	}
}

// TestBenchBacklog measures a server that is asked for more than it can do, in the warm-up too.
func TestBenchBacklog(t *testing.T) {
	l := &loadSettings{rate: 10_000, inFlight: 1, connections: 1, warmUp: 100 * time.Millisecond, duration: 200 * time.Millisecond}
	slow := &target{call: func(ctx context.Context, _ int, _ int64) string {
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
		return ""
	}}
	if r := l.run(t.Context(), slow, func(string) {}); r.Calls < 5 || r.Unanswered < 1000 {
		t.Errorf("got %d calls and %d unanswered", r.Calls, r.Unanswered)
	}
}
