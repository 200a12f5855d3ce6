package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/telemetry"
)

// AuditTrail keeps audit events in a Redis Stream for each [telemetry.Stream]. It may be used by several goroutines.
type AuditTrail struct {
	store   *Store
	entries int64
}

// AuditTrail makes a trail that keeps about so many entries of each stream, the newest: Redis removes older ones when it can do
// so cheaply. Any number reads.
func (s *Store) AuditTrail(entries int) *AuditTrail { return &AuditTrail{s, int64(entries)} }

// The fields of an entry.
const (
	auditTime       = "t"
	auditEvent      = "e"
	auditAttributes = "a"
)

func (t *AuditTrail) key(stream telemetry.Stream) string { return t.store.key("audit:" + string(stream)) }

// All in one step, so that a batch that is tried again was not half there; and it is two thirds of the work that a command
// for each entry would be to the sender. Trimming with the last entry alone saves Redis a sixth of it.
//
// KEYS: stream
// ARGV: entries to keep, then time, event and attributes of each entry.
var appendEntries = redis.NewScript(`
local t, e, a = '` + auditTime + `', '` + auditEvent + `', '` + auditAttributes + `'
for i = 2, #ARGV - 3, 3 do
  redis.call('XADD', KEYS[1], '*', t, ARGV[i], e, ARGV[i + 1], a, ARGV[i + 2])
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', t, ARGV[#ARGV - 2], e, ARGV[#ARGV - 1], a, ARGV[#ARGV])
`)

// Append implements [telemetry.AuditSink].
func (t *AuditTrail) Append(ctx context.Context, stream telemetry.Stream, entries []telemetry.Entry) error {
	args := append(make([]any, 0, 1+3*len(entries)), t.entries)
	for _, e := range entries {
		args = append(args, e.Time.UnixMilli(), e.Event, e.Attributes)
	}
	err := appendEntries.Run(ctx, t.store.client, []string{t.key(stream)}, args...).Err()
	if errors.Is(err, redis.Nil) {
		return nil // the script gives nothing back
	}
	return err
}

// Kept is an audit event as it is kept.
type Kept struct {
	// ID is that of the entry in its stream: later ones were kept later.
	ID string
	telemetry.Entry
}

// Before gives at most count events of the stream that were kept before the one with the id, the latest first; an empty id
// comes after all. Fewer than count means that there are no more.
func (t *AuditTrail) Before(ctx context.Context, stream telemetry.Stream, id string, count int) ([]Kept, error) {
	end := "+"
	if id != "" {
		end = "(" + id
	}
	messages, err := t.store.client.XRevRangeN(ctx, t.key(stream), end, "-", int64(count)).Result()
	return kept(messages), err
}

// After gives events that were kept after those with the ids, one for each stream, and moves the ids on; "0-0" comes before
// all. It waits as long for one.
func (t *AuditTrail) After(ctx context.Context, ids map[telemetry.Stream]string, wait time.Duration) ([]Kept, error) {
	args := &redis.XReadArgs{Count: readCount, Block: wait}
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
	var all []Kept
	for _, r := range read {
		all = append(all, kept(r.Messages)...)
		ids[streams[r.Stream]] = r.Messages[len(r.Messages)-1].ID
	}
	return all, nil
}

// kept reads entries. One that no Grantor wrote is read as far as it can be.
func kept(messages []redis.XMessage) []Kept {
	all := make([]Kept, len(messages))
	for i, m := range messages {
		text := func(field string) string { s, _ := m.Values[field].(string); return s }
		at, err := strconv.ParseInt(text(auditTime), 10, 64)
		if err != nil {
			stored, _, _ := strings.Cut(m.ID, "-")
			at, _ = strconv.ParseInt(stored, 10, 64) // Redis makes no other ids
		}
		all[i] = Kept{m.ID, telemetry.Entry{Time: time.UnixMilli(at), Event: text(auditEvent), Attributes: []byte(text(auditAttributes))}}
		if object := map[string]json.RawMessage(nil); json.Unmarshal(all[i].Attributes, &object) != nil || object == nil {
			all[i].Attributes, _ = json.Marshal(map[string]string{"unreadable": text(auditAttributes)}) //nolint:errchkjson // a map of texts always works
		}
	}
	return all
}
