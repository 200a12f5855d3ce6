package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/telemetry"
)

// append appends n events to a stream, numbered from first.
func (k *kit) append(t *testing.T, trail *redisstore.AuditTrail, stream telemetry.Stream, first, n int) {
	t.Helper()
	var entries []telemetry.Entry
	for i := first; i < first+n; i++ {
		entries = append(entries, telemetry.Entry{Time: start.Add(time.Duration(i) * time.Millisecond), Event: "e", Attributes: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	must.Succeed(t, trail.Append(t.Context(), stream, entries))
}

// number returns the number of an event, and checks the rest of it.
func number(t *testing.T, entry redisstore.AuditEntry) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(string(entry.Attributes), `{"n":%d}`, &n); err != nil {
		t.Fatalf("%s: %v", entry.Attributes, err)
	}
	if want := start.Add(time.Duration(n) * time.Millisecond); !entry.Time.Equal(want) || entry.Event != "e" {
		t.Errorf("got %s at %s, want e at %s", entry.Event, entry.Time, want)
	}
	return n
}

// testAudit reads events backwards from the end, and follows new ones.
func testAudit(t *testing.T, k *kit) {
	trail := k.AuditTrail(100_000)
	k.append(t, trail, telemetry.Decisions, 0, 1000)
	k.append(t, trail, telemetry.Changes, 5000, 1)
	last, want := "", 999
	for want >= 0 {
		page, err := trail.Before(t.Context(), telemetry.Decisions, last, 300)
		must.Succeed(t, err)
		if len(page) == 0 {
			t.Fatalf("the events end at %d", want)
		}
		for _, entry := range page {
			if got := number(t, entry); got != want {
				t.Fatalf("got event %d, want %d", got, want)
			}
			want, last = want-1, entry.ID
		}
	}
	ids := map[telemetry.Stream]string{telemetry.Changes: "0-0", telemetry.Decisions: last}
	got := 0
	for got < 1000 {
		page, err := trail.After(t.Context(), ids, time.Second)
		must.Succeed(t, err)
		got += len(page)
	}
	if got != 1000 { // all decisions but the first, and the change
		t.Errorf("got %d events, want 1000", got)
	}
	if page, err := trail.After(t.Context(), ids, time.Millisecond); err != nil || len(page) > 0 {
		t.Errorf("got %v %v, want none", page, err)
	}
	k.append(t, trail, telemetry.Decisions, 1000, 1)
	if page, err := trail.After(t.Context(), ids, time.Second); err != nil || len(page) != 1 || number(t, page[0]) != 1000 {
		t.Errorf("got %v %v, want the new one", page, err)
	}
}

// testAuditTrimmed checks that each stream keeps its newest events.
func testAuditTrimmed(t *testing.T, k *kit) {
	trail := k.AuditTrail(1000)
	k.append(t, trail, telemetry.Changes, 0, 10)
	for i := range 20 {
		k.append(t, trail, telemetry.Decisions, i*500, 500)
	}
	page, err := trail.Before(t.Context(), telemetry.Decisions, "", 10_000)
	must.Succeed(t, err)
	if len(page) < 1000 || len(page) > 1200 || number(t, page[0]) != 9999 {
		t.Errorf("got %d events, want about the 1000 newest", len(page))
	}
	if page, err := trail.Before(t.Context(), telemetry.Changes, "", 10_000); err != nil || len(page) != 10 {
		t.Errorf("got %d changes %v, want all 10", len(page), err)
	}
}

// testAuditUnreadable reads entries that Grantor did not write.
func testAuditUnreadable(t *testing.T, k *kit) {
	trail := k.AuditTrail(1000)
	for _, values := range [][]any{{"x", "y"}, {"t", "never", "e", "e", "a", "{"}, {"t", "1", "e", "", "a", "null"}, {"t", "1", "a", "[]"}} {
		must.Succeed(t, k.client.XAdd(t.Context(), &redis.XAddArgs{Stream: k.base + "audit:changes", Values: values}).Err())
	}
	page, err := trail.Before(t.Context(), telemetry.Changes, "", 10)
	must.Succeed(t, err)
	want := []string{`{"unreadable":"[]"}`, `{"unreadable":"null"}`, `{"unreadable":"{"}`, `{"unreadable":""}`}
	for i, entry := range page {
		if got := string(entry.Attributes); got != want[i] {
			t.Errorf("got %s, want %s", got, want[i])
		}
	}
	if age := time.Since(page[2].Time); age < 0 || age > time.Hour {
		t.Errorf("an event without a time has the time %s, want that of its entry", page[2].Time)
	}
}

// TestAuditInCluster reads both streams of a Cluster in one command: they are in one slot.
func TestAuditInCluster(t *testing.T) {
	_, client := redistest.Cluster(t)
	testAudit(t, newKit(client))
}
