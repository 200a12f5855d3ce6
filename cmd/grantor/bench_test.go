package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

// benchReport is the output of grantor bench for scripts.
type benchReport struct {
	Algorithm string           `json:"alg"`
	Seconds   float64          `json:"seconds"`
	Calls     int64            `json:"calls"`
	Failures  map[string]int64 `json:"failures"`
	PerSecond float64          `json:"per_second"`
	Latency   struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
		Max float64 `json:"max"`
	} `json:"latency_ms"`
}

// TestBench puts a short load on a real issuer over each transport.
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
			var result benchReport
			if err := json.Unmarshal([]byte(ran.Works(t)), &result); err != nil {
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
	text := run(t, "bench", "--duration=300ms", "--warm-up=0s", "--quiet", "--clients", servetest.WriteFile(t, "clients", "background-service "+clitest.DevSecret+"\n")).Works(t)
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
		"each must be from 1 to 10000":         {"--connections=0"},
		"in-flight, tokens: each must be from": {"--in-flight=10001"},
		"tokens: each must be from 1":          {"--tokens=10001"},
		"calls: must not be negative":          {"--duration=0s"},
		"rate: NaN":                            {"--rate=NaN"},
		"rate: +Inf":                           {"--rate=Inf"},
		"rate: 0.0009 is neither":              {"--rate=0.0009"},
		"rate: 1.000001e+06 is neither 0 nor":  {"--rate=1000001"},
		"rate: -1 is neither 0 nor from":       {"--rate=-1"},
		"only issue uses several clients":      {"introspect", "--clients", servetest.WriteFile(t, "one", "a b\n")},
		"no meaning with --wire rest":          {"--wire=rest", "--grpc-endpoint=localhost:1"},
		`grpc-endpoint: "nowhere"`:             {"--grpc-endpoint=nowhere"},
		"invalid argument":                     {"revoke"},
		"line 2 is not an id":                  {"--clients", servetest.WriteFile(t, "half", "a b\nalone\n")},
		"the file has no client":               {"--clients", servetest.WriteFile(t, "empty", "")},
		"invalid_client":                       {"--clients", servetest.WriteFile(t, "wrong", "background-service wrong-secret-instead\n")},
		"invalid_scope":                        {"--scope=none"},
		"no such file":                         {"--clients", "absent"},
	} {
		run(t, append([]string{"bench"}, args...)...).Fails(t, want)
	}
}

// TestBenchCalls expects the load to end after a number of calls.
func TestBenchCalls(t *testing.T) {
	asDevClient(t)
	limited := []string{"bench", "--duration=1m", "--warm-up=0s", "--calls=5", "-o=json"}
	var result benchReport
	if err := json.Unmarshal([]byte(run(t, limited...).Works(t)), &result); err != nil {
		t.Fatal(err)
	}
	if result.Calls != 5 || result.Seconds <= 0 || result.Seconds > 30 {
		t.Errorf("got %d calls in %.1f s, want 5 at once", result.Calls, result.Seconds)
	}
}
