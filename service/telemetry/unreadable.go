package telemetry

import (
	"sync"
	"time"
)

const (
	// unreadableInterval is how often one unreadable record is logged at most: a client's record is read for each of its
	// requests, which anybody can send.
	unreadableInterval = time.Minute
	// maxUnreadable is how many records are logged within that time at most. The metric counts all.
	maxUnreadable = 100
)

// UnreadableRecord is a record in the store, or an entry of a stream, that cannot be read.
type UnreadableRecord struct {
	// Record is what the record holds: "client", "resources", "uses", "counts", "replica", "feed" or "audit".
	Record string
	// Key is the key in the store, ID the field of the hash or the ID of the entry in the stream, if the record is one of those.
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

// unreadableLog is what was logged of late. It is safe for concurrent use by multiple goroutines.
type unreadableLog struct {
	mu sync.Mutex
	// logged are the records that were logged since began.
	logged map[string]bool
	began  time.Time
}

// first reports whether the record is to be logged.
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
