package telemetry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// from returns a caller from the i-th of many sources.
func from(i int) telemetry.Token {
	return telemetry.Token{ClientID: "svc", Peer: fmt.Sprintf("10.0.%d.%d:1234", i/250, i%250)}
}

// caller is a client that requests a token.
var caller = telemetry.Token{ClientID: "svc", Method: "client_secret_basic", Peer: "192.0.2.1:1234"}

// line is a line of the log.
type line struct {
	Msg    string `json:"msg"`
	Event  string `json:"event"`
	Of     string `json:"of"`
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

// logBuffer is the log of a recorder.
type logBuffer struct{ must.Buffer }

func (l *logBuffer) lines(t *testing.T) []line {
	t.Helper()
	var lines []line
	for text := range strings.Lines(l.String()) {
		var one line
		must.Succeed(t, json.Unmarshal([]byte(text), &one))
		lines = append(lines, one)
	}
	return lines
}

// count returns the number of events of a name.
func (l *logBuffer) count(t *testing.T, event string) int {
	t.Helper()
	n := 0
	for _, one := range l.lines(t) {
		if one.Event == event {
			n++
		}
	}
	return n
}

// start runs a recorder until stop is called.
func start(t *testing.T, sink telemetry.AuditSink) (r *telemetry.Recorder, log *logBuffer, stop func()) {
	t.Helper()
	log = &logBuffer{}
	r, err := telemetry.New(slog.New(slog.NewJSONHandler(log, nil)), noop.Meter{}, nil, nil)
	must.Succeed(t, err)
	if sink != nil {
		r.Keep(sink)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	return r, log, func() {
		cancel()
		must.Succeed(t, <-ended)
	}
}

// TestDeclarations checks that every attribute of an event is declared exactly once, and that every declaration is
// used.
func TestDeclarations(t *testing.T) {
	declared := make(map[string]bool)
	for _, a := range telemetry.Attributes {
		if declared[a.Name] || a.Meaning == "" {
			t.Errorf("the attribute %s is declared twice, or without a meaning", a.Name)
		}
		declared[a.Name] = true
	}
	used, names := make(map[string]bool), make(map[string]bool)
	for _, e := range telemetry.Events {
		if names[e.Name] || e.When == "" {
			t.Errorf("the event %s is declared twice, or without a description", e.Name)
		}
		names[e.Name] = true
		for _, name := range e.Attributes {
			used[name] = true
			if !declared[name] {
				t.Errorf("%s has the attribute %s, which is not declared", e.Name, name)
			}
		}
	}
	for name := range declared {
		if !used[name] {
			t.Errorf("no event has the attribute %s", name)
		}
	}
}

// TestTables compares the tables of docs/audit.md with the declarations.
func TestTables(t *testing.T) {
	page, err := os.ReadFile("../../docs/audit.md")
	must.Succeed(t, err)
	var events, attributes strings.Builder
	events.WriteString("| event | when | attributes | stream |\n|---|---|---|---|\n")
	for _, e := range telemetry.Events {
		name, stream := "`"+e.Name+"`", string(e.Stream)
		if e.Sampled {
			name += " (sampled)"
		}
		fmt.Fprintf(&events, "| %s | %s | `%s` | %s |\n", name, e.When, strings.Join(e.Attributes, "` `"), stream)
	}
	attributes.WriteString("| attribute | what it is |\n|---|---|\n")
	for _, a := range telemetry.Attributes {
		fmt.Fprintf(&attributes, "| `%s` | %s |\n", a.Name, a.Meaning)
	}
	var reasons strings.Builder
	reasons.WriteString("| reason | why |\n|---|---|\n")
	for _, r := range telemetry.Reasons {
		fmt.Fprintf(&reasons, "| `%s` | %s |\n", r.Name, r.Meaning)
	}
	for _, table := range []string{events.String(), attributes.String(), reasons.String()} {
		if !strings.Contains(string(page), table) {
			t.Errorf("docs/audit.md lacks this table:\n%s", table)
		}
	}
}

// TestReasons compares the declared reasons with the words in the code that sets them.
func TestReasons(t *testing.T) {
	declared := []string{"stream_behind", "other"}
	for file, word := range map[string]string{
		"../oauth/error.go":  ` (?:Reason|Code) += "([a-z_]+)"`,
		"../oauth/code.go":   ` (?:Reason|Code) += "([a-z_]+)"`,
		"../token/reason.go": `\{Err[A-Za-z]+, "([a-z_]+)"\}`,
	} {
		source, err := os.ReadFile(file)
		must.Succeed(t, err)
		for _, match := range regexp.MustCompile(word).FindAllSubmatch(source, -1) {
			switch reason := string(match[1]); reason {
			case string(oauth.TooManyRequests): // has no event
			case string(oauth.InvalidToken): // its events have the reason of the token package
			default:
				declared = append(declared, reason)
			}
		}
	}
	slices.Sort(declared)
	var got []string
	for _, r := range telemetry.Reasons {
		got = append(got, r.Name)
	}
	slices.Sort(got)
	if want := slices.Compact(declared); !slices.Equal(got, want) {
		t.Errorf("got the reasons %q, want %q", got, want)
	}
}

// TestSampling floods the recorder with refusals. It writes a hundred of each reason per second, and the number of the
// others.
func TestSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log, stop := start(t, nil)
		defer stop()
		r.TokenRefused(t.Context(), caller, &oauth.Error{Code: oauth.InvalidClient, Reason: oauth.UnknownClient})
		for i := range 250 {
			r.TokenRefused(t.Context(), from(i), &oauth.Error{Code: oauth.InvalidClient, Reason: oauth.WrongSecret})
			r.AdminRefused(t.Context(), "m", telemetry.Administrator{Peer: from(i).Peer}, "no_token", errors.New("no token"))
		}
		r.TokenIssued(t.Context(), caller)
		if refused, others := log.count(t, telemetry.EventTokenRefused), log.count(t, telemetry.EventTokenIssued); refused != 101 || others != 1 {
			t.Errorf("got %d refusals and %d tokens, want 100 of one reason, 1 of the other, and 1", refused, others)
		}
		time.Sleep(3 * time.Second)
		var leftOut []line
		for _, one := range log.lines(t) {
			if one.Event == telemetry.EventLeftOut {
				leftOut = append(leftOut, one)
			}
		}
		slices.SortFunc(leftOut, func(a, b line) int { return strings.Compare(a.Of, b.Of) })
		want := []line{
			{"audit", telemetry.EventLeftOut, telemetry.EventAdminRefused, "no_token", 151},
			{"audit", telemetry.EventLeftOut, telemetry.EventTokenRefused, "wrong_secret", 150},
		}
		if !slices.Equal(leftOut, want) {
			t.Errorf("got %v, want %v", leftOut, want)
		}
		r.TokenRefused(t.Context(), caller, &oauth.Error{Code: oauth.InvalidClient, Reason: oauth.WrongSecret})
		if got := log.count(t, telemetry.EventTokenRefused); got != 102 {
			t.Errorf("got %d refusals, want one more in the next second", got)
		}
	})
}

// TestSampledBySource floods the recorder with refusals of many reasons from one source. Those of another source are
// written nevertheless. A /64 of IPv6 is one source.
func TestSampledBySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log, stop := start(t, nil)
		defer stop()
		flood := func(peer func(i int) string) (written int) {
			before := log.count(t, telemetry.EventTokenRefused)
			for i := range 1000 {
				reason := oauth.Reason(fmt.Sprintf("reason_%d", i%10))
				r.TokenRefused(t.Context(), telemetry.Token{Peer: peer(i)}, &oauth.Error{Code: oauth.InvalidClient, Reason: reason})
			}
			return log.count(t, telemetry.EventTokenRefused) - before
		}
		if got := flood(func(i int) string { return fmt.Sprintf("192.0.2.1:%d", 1000+i) }); got != 100 {
			t.Errorf("got %d refusals of one source, want 100", got)
		}
		for range 30 {
			r.TokenRefused(t.Context(), telemetry.Token{Peer: "192.0.2.2"}, &oauth.Error{Code: oauth.InvalidClient, Reason: "reason_1"})
		}
		if got := log.count(t, telemetry.EventTokenRefused); got != 120 {
			t.Errorf("got %d refusals, want 20 more, of one reason from another source", got)
		}
		time.Sleep(2 * time.Second)
		if got := flood(func(i int) string { return fmt.Sprintf("[2001:db8::%x]:1", 1+i) }); got != 100 {
			t.Errorf("got %d refusals of one network, want 100", got)
		}
	})
}

// TestSampledInAll floods the recorder with refusals of many reasons. It writes two hundred per second in total, and a
// fault is in the log nevertheless.
func TestSampledInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log, stop := start(t, nil)
		for i := range 250 {
			for _, event := range []string{telemetry.EventTokenRefused, telemetry.EventIntrospectRefused, telemetry.EventRevokeRefused} {
				r.Refused(t.Context(), event, from(i), &oauth.Error{Code: oauth.InvalidClient, Reason: oauth.WrongSecret})
				r.Refused(t.Context(), event, from(i), &oauth.Error{Code: oauth.InvalidRequest})
			}
		}
		r.TokenRefused(t.Context(), caller, oauth.From(errors.New("a fault")))
		stop()
		written, left, faults := 0, 0, 0
		for _, one := range log.lines(t) {
			switch one.Event {
			case telemetry.EventLeftOut:
				left += one.Count
			case telemetry.EventTokenRefused, telemetry.EventIntrospectRefused, telemetry.EventRevokeRefused:
				if one.Msg == "audit" {
					written++
				} else {
					faults++
				}
			}
		}
		if written != 200 || left != 1301 || faults != 1 {
			t.Errorf("got %d written, %d left out and %d faults in the log, want 200, 1301 and 1", written, left, faults)
		}
	})
}

// TestSampledWithoutAPause checks that the numbers of each second of a flood are written while it goes on.
func TestSampledWithoutAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log, stop := start(t, nil)
		for i := range 3000 {
			r.TokenRefused(t.Context(), from(i), &oauth.Error{Code: oauth.InvalidScope})
			time.Sleep(time.Millisecond)
		}
		stop()
		written, left := log.count(t, telemetry.EventTokenRefused), 0
		for _, one := range log.lines(t) {
			left += one.Count
		}
		if written < 300 || written > 400 || written+left != 3000 {
			t.Errorf("got %d written and %d left out, want about 300, and 3000 together", written, left)
		}
	})
}

// TestFaults checks that faults of the server itself are logged as errors, up to a limit.
func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log, stop := start(t, nil)
		for range 200 {
			r.TokenRefused(t.Context(), caller, oauth.From(errors.New("a fault")))
			r.Fault(t.Context(), "panic", "/m", slog.String("stack", "s"))
		}
		stop()
		text := log.String()
		if faults, panics := strings.Count(text, "the server failed to answer"), strings.Count(text, `"msg":"panic"`); faults != 100 || panics != 100 {
			t.Errorf("got %d faults and %d panics, want 100 each", faults, panics)
		}
		if !strings.Contains(text, `"of":"fault","reason":"/m","count":100`) {
			t.Errorf("the log lacks the number of left-out faults: %s", text[len(text)-1000:])
		}
	})
}

// TestCut checks that long texts are truncated between two characters.
func TestCut(t *testing.T) {
	r, log, stop := start(t, nil)
	defer stop()
	long := strings.Repeat("ä", 1000)
	r.TokenRefused(t.Context(), caller, &oauth.Error{Code: oauth.InvalidRequest, Cause: errors.New(long)})
	r.Changed(t.Context(), telemetry.EventClientChanged, telemetry.Administrator{}, slog.String("id", "a"),
		telemetry.ChangesOf([]telemetry.Change{{Field: "client_name", From: long, To: "x" + long}}))
	text := log.String()
	if got := strings.Count(text, "more bytes)"); got != 3 || strings.Contains(text, `\ufffd`) || len(text) > 4000 {
		t.Errorf("got %s, want three truncated texts", text)
	}
}

// memory is a sink in memory that can fail.
type memory struct {
	mu      sync.Mutex
	fail    error
	entries map[telemetry.Stream][]string
	calls   int
}

// Append implements [telemetry.AuditSink].
func (m *memory) Append(ctx context.Context, stream telemetry.Stream, entries []telemetry.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.fail != nil {
		return m.fail
	}
	if len(entries) > 500 || ctx.Err() != nil {
		return errors.New("too many entries, or an expired context")
	}
	if m.entries == nil {
		m.entries = make(map[telemetry.Stream][]string)
	}
	for _, e := range entries {
		m.entries[stream] = append(m.entries[stream], e.Event+" "+string(e.Attributes))
	}
	return nil
}

func (m *memory) set(fail error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

func (m *memory) of(stream telemetry.Stream) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.entries[stream])
}

// TestSink checks that events are appended soon, in order, and as they are in the log.
func TestSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		r, _, stop := start(t, &m)
		const n = 1200
		for i := range n {
			r.Revoked(t.Context(), caller, strconv.Itoa(i), false)
		}
		r.Changed(t.Context(), telemetry.EventClientRevoked, telemetry.Administrator{ClientID: "boss", Peer: "p"}, slog.String("id", `a"b`))
		time.Sleep(200 * time.Millisecond)
		got := m.of(telemetry.Decisions)
		if len(got) != n {
			t.Fatalf("got %d events, want %d", len(got), n)
		}
		for i, one := range got {
			want := fmt.Sprintf(`token.revoked {"client_id":"svc","auth_method":"client_secret_basic","identity":"","peer":"192.0.2.1:1234","jti":"%d","all":false}`, i)
			if one != want {
				t.Fatalf("event %d: got %s, want %s", i, one, want)
			}
		}
		if got := m.of(telemetry.Changes); !slices.Equal(got, []string{`client.revoked {"by":"boss","peer":"p","id":"a\"b"}`}) {
			t.Errorf("got the changes %q", got)
		}
		r.TokenIssued(t.Context(), caller)
		stop()
		if got := m.of(telemetry.Decisions); len(got) != n+1 {
			t.Errorf("got %d events after the recorder stopped, want %d", len(got), n+1)
		}
	})
}

// TestIntrospections checks that the introspections of one connection in a second make one event. Those beyond the
// maximum number of callers are written at once, and so are all after the recorder has stopped.
func TestIntrospections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		r, log, stop := start(t, &m)
		other := caller
		other.Peer = "192.0.2.2:1234"
		for i := range 100 {
			r.Introspected(t.Context(), caller, 2, i%2)
		}
		r.Introspected(t.Context(), other, 1, 1)
		time.Sleep(1500 * time.Millisecond)
		want := []string{
			`token.introspected {"client_id":"svc","auth_method":"client_secret_basic","identity":"","peer":"192.0.2.1:1234","tokens":200,"active":50}`,
			`token.introspected {"client_id":"svc","auth_method":"client_secret_basic","identity":"","peer":"192.0.2.2:1234","tokens":1,"active":1}`,
		}
		if got := slices.Sorted(slices.Values(m.of(telemetry.Decisions))); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		const callers = 2500
		for i := range callers {
			other.Peer = strconv.Itoa(i)
			r.Introspected(t.Context(), other, 1, 1)
		}
		if got := log.count(t, telemetry.EventIntrospected); got != 2+callers-telemetry.MaxCallers {
			t.Errorf("got %d callers in memory, want %d", 2+callers-got, telemetry.MaxCallers)
		}
		r.Introspected(t.Context(), other, 1, 1)
		stop()
		r.Introspected(t.Context(), other, 1, 1)
		if got := log.count(t, telemetry.EventIntrospected); got != 2+callers+2 {
			t.Errorf("got %d events after the recorder stopped, want %d", got, 2+callers+2)
		}
	})
}

// TestSinkOfRefusals checks that refusals have a stream apart from decisions, so that they cannot displace them.
func TestSinkOfRefusals(t *testing.T) {
	var m memory
	r, _, stop := start(t, &m)
	r.TokenIssued(t.Context(), caller)
	r.TokenRefused(t.Context(), caller, &oauth.Error{Code: oauth.InvalidScope})
	r.AdminRefused(t.Context(), "m", telemetry.Administrator{}, "no_token", errors.New("no token"))
	r.Revoked(t.Context(), caller, "x", false)
	stop()
	if decisions, refusals := m.of(telemetry.Decisions), m.of(telemetry.Refusals); len(decisions) != 2 || len(refusals) != 2 {
		t.Errorf("got the decisions %q and the refusals %q, want 2 each", decisions, refusals)
	}
}

// TestSinkUnreachable checks that events are queued while the sink is unreachable, and that the number of those that
// did not fit is appended once it is back. A flood of decisions leaves room for changes.
func TestSinkUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory{fail: errors.New("unreachable")}
		r, log, stop := start(t, &m)
		r.TokenIssued(t.Context(), caller)
		time.Sleep(time.Minute)
		const flood = 50_000
		for i := range flood {
			r.Revoked(t.Context(), caller, strconv.Itoa(i), false)
		}
		r.Changed(t.Context(), telemetry.EventClientRevoked, telemetry.Administrator{}, slog.String("id", "a"))
		time.Sleep(time.Minute)
		m.set(nil)
		time.Sleep(5 * time.Second)
		stop()
		decisions, changes := m.of(telemetry.Decisions), m.of(telemetry.Changes)
		if len(changes) != 1 {
			t.Errorf("got %d changes, want 1", len(changes))
		}
		var leftOut line
		last := decisions[len(decisions)-1]
		must.Succeed(t, json.Unmarshal([]byte(last[strings.Index(last, "{"):]), &leftOut))
		if leftOut.Of != "decisions" || leftOut.Reason != "stream_behind" || leftOut.Count+len(decisions)-1 != flood+1 || len(decisions) < 8000 {
			t.Errorf("got %d events and at last %s, want each either appended or counted", len(decisions), last)
		}
		if got := log.count(t, telemetry.EventRevoked); got != flood {
			t.Errorf("got %d events in the log, want all %d", got, flood)
		}
		if got := log.count(t, telemetry.EventLeftOut); got != 1 {
			t.Errorf("got %d events in the log that some were left out, want 1", got)
		}
	})
}

// TestLeftOutIsCounted checks that events missing in a stream are counted even while the sink is unreachable.
func TestLeftOutIsCounted(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	r, err := telemetry.New(slog.New(slog.DiscardHandler), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"), nil, nil)
	must.Succeed(t, err)
	r.Keep(&memory{}) // which gets nothing, because the recorder does not run
	for range 8192 + 7 {
		r.TokenIssued(t.Context(), caller)
	}
	var got metricdata.ResourceMetrics
	must.Succeed(t, reader.Collect(t.Context(), &got))
	for _, m := range got.ScopeMetrics[0].Metrics {
		if m.Name != "grantor.audit.left_out" {
			continue
		}
		for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
			want := int64(0)
			if stream, _ := point.Attributes.Value("stream"); stream.AsString() == "decisions" {
				want = 7
			}
			if point.Value != want {
				t.Errorf("%v: got %d, want %d", point.Attributes.ToSlice(), point.Value, want)
			}
		}
		return
	}
	t.Error("got no metric grantor.audit.left_out")
}

// hanging is a sink that does not answer.
type hanging struct{}

func (hanging) Append(ctx context.Context, _ telemetry.Stream, _ []telemetry.Entry) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestSinkHangs checks that the recorder stops in time if the sink does not answer, and logs the number of lost
// entries.
func TestSinkHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log, stop := start(t, hanging{})
		r.TokenIssued(t.Context(), caller)
		time.Sleep(time.Second)
		r.TokenIssued(t.Context(), caller)
		began := time.Now()
		stop()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("Run returned after %s, want at most 3s", took)
		}
		if text := log.String(); !strings.Contains(text, `"stream":"decisions","count":2`) {
			t.Errorf("the log lacks the number of events: %s", text)
		}
	})
}
