package telemetry

import (
	"sync"
	"time"
)

const (
	// unreadableInterval is the minimum time between two log lines about the same record: a client's record is read for
	// each request in its name, which any caller can send.
	unreadableInterval = time.Minute
	// maxUnreadable is the maximum number of records that are logged within that time. The metric counts all.
	maxUnreadable = 100
)

// UnreadableRecord is a record in the store, or an entry of a stream, that cannot be read.
type UnreadableRecord struct {
	// Record is what the record holds: "client", "resources", "uses", "counts", "replica", "feed", "checkpoint" or "audit".
	Record string
	// Key is the key in the store. ID is the field of a hash or the ID of an entry of a stream; empty if the record is
	// neither.
	Key, ID string
	Err     error
}

// StoreUnreadable counts a record that cannot be read, and logs it.
func (r *Recorder) StoreUnreadable(u UnreadableRecord) {
	r.countUnreadable(u.Record, 1)
	if r.unreadableLog.first(u.Key+" "+u.ID, time.Now()) {
		r.log.Error("a record in the store cannot be read and has no effect",
			"record", u.Record, "key", u.Key, "id", u.ID, "error", u.Err)
	}
}

// unreadableLog remembers what was logged recently. It is safe for concurrent use by multiple goroutines.
type unreadableLog struct {
	mu sync.Mutex
	// logged are the records that were logged since began.
	logged map[string]bool
	began  time.Time
}

// first reports whether the record is to be logged: it was not logged since began, and fewer than maxUnreadable were.
func (u *unreadableLog) first(record string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.logged == nil || now.Sub(u.began) >= unreadableInterval {
		u.logged, u.began = make(map[string]bool), now
	}
	if u.logged[record] || len(u.logged) >= maxUnreadable {
		return false
	}
	u.logged[record] = true
	return true
}
