// Package profile sums a CPU profile of an issuer, a guard or a yardstick by what the processor time was spent on.
package profile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The kinds of work, in the order in which Kinds lists them.
const (
	Signature = "signature"
	Client    = "client and its proof"
	Claims    = "claims, scope and key"
	Audit     = "audit and Redis"
	Metrics   = "metrics"
	Handler   = "interceptors and handler"
	Transport = "gRPC, HTTP, protobuf"
	Collector = "garbage collector"
	Runtime   = "Go runtime"
)

// Kinds lists the kinds of work.
var Kinds = []string{Signature, Client, Claims, Audit, Metrics, Handler, Transport, Collector, Runtime}

// collecting matches the functions of the garbage collector. A sample with one of them is of the kind Collector, also if an
// allocation of other work called it.
var collecting = regexp.MustCompile(`^runtime\.(gcBgMarkWorker|gcAssistAlloc|gcStart|gcDrain|gcMarkDone|gcMarkTermination|bgsweep|bgscavenge|deductSweepCredit|gcenable|sweepone|\(\*mheap\)\.reclaim|\(\*mcentral\)\.cacheSpan|\(\*sweepLocked\)\.sweep)`)

// module is the module of this repository.
const module = `^github\.com/grantorhq/grantor/`

// rules map functions to kinds. A sample is of the kind of the innermost function that a rule matches: a hash that the
// signature needs counts as the signature, and JSON as the work that it is made for. Functions that no rule matches, such
// as those of the standard library, have no kind.
var rules = []struct {
	kind      string
	functions *regexp.Regexp
}{
	{Signature, regexp.MustCompile(`^crypto/(ecdsa|ed25519|rsa)\.|` + module + `service/jws\.`)},
	{Client, regexp.MustCompile(module + `service/(clientauth|clientsecret|clientassertion|registry|trust|peercert|certificate|dpop|limit)\.`)},
	{Claims, regexp.MustCompile(module + `service/(token|grant|oauth|keys|jwks|issuer|revocation)\.|` + module + `interceptors/verify\.`)},
	{Metrics, regexp.MustCompile(`^go\.opentelemetry\.io/|^github\.com/prometheus/|` + module + `service/instrument\.|` + module + `service/telemetry\.\(\*metrics\)`)},
	{Audit, regexp.MustCompile(`^github\.com/redis/|^log/slog\.|` + module + `service/(redisstore|telemetry)\.`)},
	{Transport, regexp.MustCompile(`^google\.golang\.org/|^golang\.org/x/net/|^net/http|^github\.com/(grpc-ecosystem|pires|envoyproxy)/|^connectrpc\.com/|` + module + `(gen/|service/rest\.)`)},
	{Handler, regexp.MustCompile(module + `|^main\.\(`)},
}

// Shares returns the part of the processor time that was spent on each kind of work, from what
// `go tool pprof -traces -unit=us` prints: blocks of a time and a stack, the innermost function first.
func Shares(traces string) (map[string]float64, error) {
	sums, total := map[string]float64{}, 0.0
	_, blocks, _ := strings.Cut(traces, "-----------+")
	for block := range strings.SplitSeq(blocks, "-----------+") {
		took, stack, err := parseSample(block)
		if err != nil {
			return nil, err
		}
		if len(stack) > 0 {
			sums[kind(stack)] += took
			total += took
		}
	}
	if total == 0 {
		return nil, errors.New("the profile has no samples")
	}
	for name := range sums {
		sums[name] /= total
	}
	return sums, nil
}

// parseSample parses the lines after a separator: labels, then the time and the functions.
func parseSample(block string) (took float64, stack []string, err error) {
	_, lines, _ := strings.Cut(block, "\n") // the rest of the separator
	for line := range strings.Lines(lines) {
		fields := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), " (inline)"))
		switch {
		case len(fields) == 0 || strings.HasSuffix(fields[0], ":"):
			continue
		case len(stack) == 0:
			if len(fields) < 2 {
				return 0, nil, fmt.Errorf("%q has no time and function", line)
			}
			d, err := time.ParseDuration(fields[0])
			if err != nil {
				return 0, nil, err
			}
			took, fields = d.Seconds(), fields[1:]
		}
		stack = append(stack, strings.Join(fields, " "))
	}
	return took, stack, nil
}

// kind returns the kind of work of a stack.
func kind(stack []string) string {
	if slices.ContainsFunc(stack, collecting.MatchString) {
		return Collector
	}
	for _, function := range stack {
		for _, r := range rules {
			if r.functions.MatchString(function) {
				return r.kind
			}
		}
	}
	return Runtime
}
