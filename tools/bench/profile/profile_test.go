package profile_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/tools/bench/profile"
)

// sample returns a block of the output of pprof, with the innermost function first.
func sample(took string, stack ...string) string {
	return "-----------+-------------------------------------------------------\n   " + took + "   " + strings.Join(stack, "\n             ") + "\n"
}

const head = "File: grantor\nType: cpu\nDuration: 3s, Total samples = 100000us\n"

// TestShares expects each sample at the innermost function that has a kind.
func TestShares(t *testing.T) {
	const ours = "github.com/grantorhq/grantor/"
	handled := []string{ours + "service/rpc.(*Server).IssueToken", ours + "service/middleware.chain", "google.golang.org/grpc.(*Server).processUnaryRPC", "runtime.goexit"}
	for name, c := range map[string]struct {
		stack []string
		want  string
	}{
		"a signature":                {[]string{"crypto/internal/fips140/nistec.p256Mul", "crypto/ecdsa.SignASN1", ours + "service/token.(*Signer).Sign"}, profile.Signature},
		"a hash of the signature":    {[]string{"crypto/internal/fips140/sha512.block (inline)", "crypto/ecdsa.SignASN1"}, profile.Signature},
		"the hash of a secret":       {[]string{"crypto/internal/fips140/sha256.block", "crypto/hmac.(*hmac).Sum", ours + "service/clientsecret.Matches"}, profile.Client},
		"JSON of the claims":         {[]string{"encoding/json.Marshal", ours + "service/token.claims"}, profile.Claims},
		"JSON of a response":         {[]string{"encoding/json.Marshal", ours + "service/rest.write"}, profile.Transport},
		"an audit event":             {[]string{"runtime.mallocgc", ours + "service/telemetry.(*Recorder).audit"}, profile.Audit},
		"a write to Redis":           {[]string{"internal/runtime/syscall.Syscall6", "net.(*conn).Write", "github.com/redis/go-redis/v9.(*Client).Process"}, profile.Audit},
		"a counter":                  {[]string{"go.opentelemetry.io/otel/sdk/metric.(*int64Inst).Add", ours + "service/telemetry.(*metrics).countIssued"}, profile.Metrics},
		"a counter of ours":          {[]string{ours + "service/telemetry.(*metrics).countIssued"}, profile.Metrics},
		"a write to a caller":        {[]string{"internal/runtime/syscall.Syscall6", "net.(*conn).Write", "google.golang.org/grpc/internal/transport.(*loopyWriter).run"}, profile.Transport},
		"the handler":                {nil, profile.Handler},
		"the yardstick":              {[]string{"main.(*server).IssueToken"}, profile.Handler},
		"marking":                    {[]string{"runtime.scanobject", "runtime.gcDrain", "runtime.gcBgMarkWorker"}, profile.Collector},
		"marking for an allocation":  {[]string{"runtime.scanobject", "runtime.gcAssistAlloc", "runtime.mallocgc", ours + "service/token.claims"}, profile.Collector},
		"an allocation":              {[]string{"runtime.mallocgc", ours + "service/token.claims"}, profile.Claims},
		"the scheduler":              {[]string{"runtime.findRunnable", "runtime.schedule", "runtime.mcall"}, profile.Runtime},
		"a function of type generic": {[]string{"maps.clone[...]", ours + "service/registry.(*Cache[...]).Get"}, profile.Client},
	} {
		stack := append(c.stack, handled...)
		if c.want == profile.Runtime || c.want == profile.Collector && len(c.stack) == 3 {
			stack = c.stack
		}
		shares, err := profile.Shares(head + sample("10000us", stack...))
		if err != nil || len(shares) != 1 || shares[c.want] != 1 {
			t.Errorf("%s: got %v, %v; want %s", name, shares, err, c.want)
		}
	}
}

// TestSharesSum expects times in several units, labels that are skipped, and shares whose sum is 1.
func TestSharesSum(t *testing.T) {
	traces := head + sample("10000us", "runtime.futex") + sample("1.50s", "crypto/rsa.decrypt (inline)", "crypto/rsa.SignPKCS1v15") +
		strings.Replace(sample("490ms", "net/http.(*conn).serve"), "\n", "\n      path:  /connect/token\n", 1) +
		"-----------+-------------------------------------------------------\n"
	shares, err := profile.Shares(traces)
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for kind, share := range shares {
		sum += share
		if !slices.Contains(profile.Kinds, kind) {
			t.Errorf("%q is not listed", kind)
		}
	}
	if math.Abs(sum-1) > 1e-9 || math.Abs(shares[profile.Signature]-0.75) > 1e-9 || math.Abs(shares[profile.Transport]-0.245) > 1e-9 || math.Abs(shares[profile.Runtime]-0.005) > 1e-9 {
		t.Errorf("got %v, of which the sum is %g", shares, sum)
	}
	for _, broken := range []string{"", head, head + sample("x", "runtime.futex"), head + sample("1ms")} {
		if got, err := profile.Shares(broken); err == nil {
			t.Errorf("%q: got %v and no error", broken, got)
		}
	}
}
