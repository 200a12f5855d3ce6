// Package redisstore keeps everything in Redis 7 or Valkey: each store interface of the domain, on go-redis.
//
// All keys have the configured prefix ("grantor:" below) and one hash tag made of it. The tag puts an issuer's keys into
// one slot of a Cluster, so that a change and its announcement are one step everywhere; what is kept is small and read
// from memory, so one node is enough for it. An id stands at the end of a key, after everything that gives the key its
// meaning: no id can forge a key or a slot.
//
//	grantor:{grantor}:client:ID   hash   v: version, d: JSON of one client
//	grantor:{grantor}:clients     zset   the ids of all clients, in byte order
//	grantor:{grantor}:resources   hash   v: version, d: JSON of all resources
//	grantor:{grantor}:ring        hash   v: version, d: the sealed key ring
//	grantor:{grantor}:feed        stream k: kind of change, i: id; entries older than the retention are trimmed
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/revocation"
)

// DefaultPrefix is the prefix of an issuer that has a Redis to itself.
const DefaultPrefix = "grantor:"

// Store is all stores of one issuer. It may be used by several goroutines.
type Store struct {
	client redis.UniversalClient
	base   string
	// retention is how long an entry of the feed is kept, in seconds.
	retention int64
}

// New makes a store whose keys have the prefix, such as [DefaultPrefix]. Entries of the feed are kept for retention,
// which is at least the longest life of a token.
func New(client redis.UniversalClient, prefix string, retention time.Duration) (*Store, error) {
	if len(prefix) < 2 || !strings.HasSuffix(prefix, ":") || strings.ContainsAny(prefix, "{} \r\n*?[]") {
		return nil, fmt.Errorf("the key prefix %q does not end with a colon, or has a brace, blank or wildcard", prefix)
	}
	base := prefix + "{" + strings.TrimSuffix(prefix, ":") + "}:"
	return &Store{client, base, int64(retention / time.Second)}, nil
}

func (s *Store) key(name string) string { return s.base + name }

// errStale is what the scripts answer when the version is not the expected one.
var errStale = errors.New("stale version")

// A version is the time of the change in microseconds, or one more than the last where the clock did not move on. So a
// record that is removed and made again does not get an old version back.
//
// KEYS: record, feed, index (for a record that is listed)
// ARGV: expected version, data, kind, id, retention in seconds.
var save = redis.NewScript(`
local version = tonumber(redis.call('HGET', KEYS[1], 'v') or '0')
if version ~= tonumber(ARGV[1]) then return 0 end
local time = redis.call('TIME')
local next = math.max(time[1] * 1000000 + time[2], version + 1)
redis.call('HSET', KEYS[1], 'v', string.format('%.0f', next), 'd', ARGV[2])
if KEYS[3] then redis.call('ZADD', KEYS[3], 0, ARGV[4]) end
local oldest = math.max(time[1] - ARGV[5], 0) * 1000
redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%.0f', oldest), '*', 'k', ARGV[3], 'i', ARGV[4])
return 1
`)

// KEYS: record, feed, index
// ARGV: expected version, kind, id.
var remove = redis.NewScript(`
if tonumber(redis.call('HGET', KEYS[1], 'v') or '0') ~= tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[3], ARGV[3])
redis.call('XADD', KEYS[2], '*', 'k', ARGV[2], 'i', ARGV[3])
return 1
`)

// change is a write and its announcement.
type change struct {
	key     string
	version uint64
	data    []byte
	kind    revocation.Kind
	id      string
	// index is the key that lists the record; empty for a record that is not listed.
	index string
}

// save writes a record and announces it, or gives errStale.
func (s *Store) save(ctx context.Context, c change) error {
	keys := []string{c.key, s.key("feed")}
	if c.index != "" {
		keys = append(keys, c.index)
	}
	done, err := save.Run(ctx, s.client, keys, c.version, c.data, string(c.kind), c.id, s.retention).Int()
	if err == nil && done == 0 {
		err = errStale
	}
	return err
}

// remove deletes a listed record and announces it, or gives errStale.
func (s *Store) remove(ctx context.Context, c change) error {
	keys := []string{c.key, s.key("feed"), c.index}
	done, err := remove.Run(ctx, s.client, keys, c.version, string(c.kind), c.id).Int()
	if err == nil && done == 0 {
		err = errStale
	}
	return err
}

// load gives a record's data and version; nil and zero where there is none.
func (s *Store) load(ctx context.Context, key string) ([]byte, uint64, error) {
	var fields struct {
		Version uint64 `redis:"v"`
		Data    []byte `redis:"d"`
	}
	reply := s.client.HMGet(ctx, key, "v", "d")
	if err := reply.Err(); err != nil {
		return nil, 0, err
	}
	if err := reply.Scan(&fields); err != nil {
		return nil, 0, fmt.Errorf("the record %s: %w", key, err)
	}
	return fields.Data, fields.Version, nil
}

// readCount bounds the entries of one read of the feed.
const readCount = 1000

// Read implements [revocation.Log].
func (s *Store) Read(ctx context.Context, after revocation.Cursor, wait time.Duration) ([]revocation.Entry, bool, error) {
	block := max(wait, time.Millisecond) // Redis takes less than that for ever
	if wait == 0 {
		block = -1 // go-redis: no BLOCK at all
	}
	streams, err := s.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{s.key("feed"), streamID(after)}, Count: readCount, Block: block,
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, false, err
	}
	// go-redis hides a short outage by trying again, so a server that came back without its data is met here first. The
	// question comes after the read, whose entries may be from after the loss.
	if err := s.continues(ctx, after); err != nil || len(streams) == 0 {
		return nil, false, err
	}
	var entries []revocation.Entry
	for _, message := range streams[0].Messages {
		cursor, err := parseStreamID(message.ID)
		if err != nil {
			return nil, false, err
		}
		kind, _ := message.Values["k"].(string)
		id, _ := message.Values["i"].(string)
		entries = append(entries, revocation.Entry{
			Cursor: cursor, Change: revocation.Change{Kind: revocation.Kind(kind), ID: id},
		})
	}
	return entries, len(entries) == readCount, nil
}

// continues reports [revocation.ErrGap] where the entry at the cursor is gone.
func (s *Store) continues(ctx context.Context, after revocation.Cursor) error {
	if after == (revocation.Cursor{}) {
		return nil
	}
	found, err := s.client.XRangeN(ctx, s.key("feed"), streamID(after), streamID(after), 1).Result()
	if err == nil && len(found) == 0 {
		err = revocation.ErrGap
	}
	return err
}

// End implements [revocation.Log].
func (s *Store) End(ctx context.Context) (revocation.Cursor, error) {
	last, err := s.client.XRevRangeN(ctx, s.key("feed"), "+", "-", 1).Result()
	if err != nil || len(last) == 0 {
		return revocation.Cursor{}, err
	}
	return parseStreamID(last[0].ID)
}

// streamID writes a cursor as Redis does: milliseconds, a hyphen, a number within the millisecond.
func streamID(c revocation.Cursor) string { return fmt.Sprintf("%d-%d", c.Time, c.Sequence) }

func parseStreamID(id string) (c revocation.Cursor, err error) {
	if _, err = fmt.Sscanf(id, "%d-%d", &c.Time, &c.Sequence); err != nil {
		err = fmt.Errorf("the feed has an entry %q: %w", id, err)
	}
	return c, err
}
