package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/telemetry"
)

// AuditTrail stores audit events, in one Redis Stream for each [telemetry.Stream]. It is safe for concurrent use by multiple
// goroutines.
type AuditTrail struct {
	store *Store
	// maxEntries is the approximate number of entries that each stream keeps.
	maxEntries int64
}

// AuditTrail returns a trail that keeps about maxEntries entries of each stream, the newest: Redis removes older ones when
// it can do so cheaply. For reading, any number will do.
func (s *Store) AuditTrail(maxEntries int) *AuditTrail { return &AuditTrail{s, int64(maxEntries)} }

// The fields of a stream entry.
const (
	auditTime       = "t"
	auditEvent      = "e"
	auditAttributes = "a"
)

func (t *AuditTrail) key(stream telemetry.Stream) string {
	return t.store.key("audit:" + string(stream))
}

// appendEntries appends a batch atomically, so that a retried batch is never half there. For the sender it is two thirds of
// the work of one command for each entry. Trimming with the last entry alone saves Redis a sixth of its work.
//
// KEYS: stream
// ARGV: maximum number of entries, then time, event and attributes of each entry.
var appendEntries = redis.NewScript(`
local t, e, a = '` + auditTime + `', '` + auditEvent + `', '` + auditAttributes + `'
for i = 2, #ARGV - 3, 3 do
  redis.call('XADD', KEYS[1], '*', t, ARGV[i], e, ARGV[i + 1], a, ARGV[i + 2])
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', t, ARGV[#ARGV - 2], e, ARGV[#ARGV - 1], a, ARGV[#ARGV])
`)

// Append implements [telemetry.AuditSink].
func (t *AuditTrail) Append(ctx context.Context, stream telemetry.Stream, entries []telemetry.Entry) error {
	args := append(make([]any, 0, 1+3*len(entries)), t.maxEntries)
	for _, e := range entries {
		args = append(args, e.Time.UnixMilli(), e.Event, e.Attributes)
	}
	err := appendEntries.Run(ctx, t.store.client, []string{t.key(stream)}, args...).Err()
	if errors.Is(err, redis.Nil) {
		return nil // the script returns nothing
	}
	return err
}

// AuditEntry is a stored audit event.
type AuditEntry struct {
	// ID is the ID of the entry in its stream. It increases with the time of storing.
	ID string
	telemetry.Entry
}

// Before returns at most count entries of the stream that were stored before the one with the id, the latest first; an empty
// id follows all. Fewer than count means that there are no more.
func (t *AuditTrail) Before(ctx context.Context, stream telemetry.Stream, id string, count int) ([]AuditEntry, error) {
	end := "+"
	if id != "" {
		end = "(" + id
	}
	messages, err := t.store.client.XRevRangeN(ctx, t.key(stream), end, "-", int64(count)).Result()
	return t.decode(stream, messages), err
}

// After returns entries that were stored after those with the ids, one id for each stream, and advances the ids; "0-0"
// precedes all. It waits up to the given duration for the first entry.
func (t *AuditTrail) After(ctx context.Context, ids map[telemetry.Stream]string, wait time.Duration) ([]AuditEntry, error) {
	args := &redis.XReadArgs{Count: maxRead, Block: wait}
	streams := make(map[string]telemetry.Stream, len(ids))
	for stream := range ids {
		args.Streams = append(args.Streams, t.key(stream))
		streams[t.key(stream)] = stream
	}
	for _, key := range args.Streams {
		args.Streams = append(args.Streams, ids[streams[key]])
	}
	read, err := t.store.client.XRead(ctx, args).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	var all []AuditEntry
	for _, r := range read {
		all = append(all, t.decode(streams[r.Stream], r.Messages)...)
		ids[streams[r.Stream]] = r.Messages[len(r.Messages)-1].ID
	}
	return all, nil
}

// decode decodes entries of a stream.
func (t *AuditTrail) decode(stream telemetry.Stream, messages []redis.XMessage) []AuditEntry {
	all := make([]AuditEntry, len(messages))
	for i, m := range messages {
		var err error
		if all[i], err = decodeAuditEntry(m); err != nil {
			t.store.report("audit", t.key(stream), m.ID, err)
		}
	}
	return all
}

// decodeAuditEntry decodes an entry of a stream. With an error, which an entry that Grantor did not write has, it returns
// what it could decode.
func decodeAuditEntry(m redis.XMessage) (AuditEntry, error) {
	text := func(field string) string { s, _ := m.Values[field].(string); return s }
	at, err := strconv.ParseInt(text(auditTime), 10, 64)
	if err != nil || at < 0 || at/1000 > maxSecond {
		err = fmt.Errorf("its time is %.40q, want milliseconds since 1970", text(auditTime))
		stored, _, _ := strings.Cut(m.ID, "-")
		at, _ = strconv.ParseInt(stored, 10, 64) // Redis generates no other IDs
	}
	entry := AuditEntry{m.ID, telemetry.Entry{Time: time.UnixMilli(at), Event: text(auditEvent), Attributes: []byte(text(auditAttributes))}}
	if object := map[string]json.RawMessage(nil); json.Unmarshal(entry.Attributes, &object) != nil || object == nil {
		err = errors.New("its attributes are no JSON object")
		entry.Attributes, _ = json.Marshal(map[string]string{"unreadable": text(auditAttributes)}) //nolint:errchkjson // marshaling a map of strings never fails
	}
	return entry, err
}
