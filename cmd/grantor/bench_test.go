package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
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
		"connections":                          {"--connections=0"},
		"duration":                             {"--duration=0s"},
		"invalid argument":                     {"revoke"},
		"line 2 is not an id":                  {"--clients", file(t, "half", "a b\nalone\n")},
		"the file names no client":             {"--clients", file(t, "empty", "")},
		"invalid_client":                       {"--clients", file(t, "wrong", "background-service wrong-secret-instead\n")},
		"invalid_scope":                        {"--scope=none"},
		"no such file":                         {"--clients", "absent"},
		"rate, duration, warm-up, calls: none": {"--rate=-1"},
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
	run(t, append(limited, "--grpc-endpoint=nowhere")...).fails(t, `"nowhere" is not host:port`)
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
