package redisstore

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// Authenticate gives the key that authenticates the records of clients and resources; the ring's pepper decides it
// ([keys.RecordKey]), so it is called when the ring is open. Without it the store neither reads nor writes a record.
func (s *Store) Authenticate(key []byte) {
	key = slices.Clone(key)
	mac := func(record, version string, data []byte) []byte {
		h := hmac.New(sha256.New, key)
		// The lengths keep two records from coming to one input.
		for _, part := range [][]byte{[]byte(record), []byte(version), data} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
		return h.Sum(nil)
	}
	s.mac.Store(&mac)
}

// errNoKey says that a record was asked for too early.
var errNoKey = errors.New("the store has no key for its records yet: the key ring is opened first")

// stored is a record as it stands in the Redis.
type stored struct {
	version   string
	data, mac []byte
}

func (r *stored) empty() bool { return r.version == "" && len(r.data) == 0 && len(r.mac) == 0 }

// authenticator gives what makes MACs.
func (s *Store) authenticator() (func(key, version string, data []byte) []byte, error) {
	if mac := s.mac.Load(); mac != nil {
		return *mac, nil
	}
	return nil, errNoKey
}

// verify gives the version of what stands under a key, if it is what Grantor wrote there.
func (s *Store) verify(key string, r stored) (uint64, error) {
	mac, err := s.authenticator()
	if err != nil {
		return 0, err
	}
	if !hmac.Equal(r.mac, mac(key, r.version, r.data)) {
		return 0, fmt.Errorf("the record %s: %w", key, registry.ErrAltered)
	}
	return parseVersion(r.version)
}

func parseVersion(text string) (uint64, error) {
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, errors.New("its version is no number")
	}
	return version, nil
}

// newVersion draws a version: 63 bits, since other languages have no 64 unsigned ones. A count or a time could come back
// after a record was removed or a clock set back, and would have to be made in the Redis, where no MAC could cover it.
func newVersion() uint64 {
	for {
		var random [8]byte
		_, _ = rand.Read(random[:]) // it never fails (crypto/rand)
		if version := binary.BigEndian.Uint64(random[:]) >> 1; version != 0 {
			return version
		}
	}
}

// errStale is what write gives when the version is not the expected one.
var errStale = errors.New("stale version")

// Where the new version stands already, this very call wrote it and its answer was lost on the way: go-redis tries again by
// itself. It is written once more, so that a WAIT on this connection has something to wait for.
//
// KEYS: record, feed, and for a client: index and uses
// ARGV: expected version, new version, data (none removes the record), MAC (none for a record without), id, retention in
// seconds, then kind, id and moment of each entry for the feed, where the moment "now" lies [revocation.Ahead] from the
// second that runs.
var change = redis.NewScript(`
local version = redis.call('HGET', KEYS[1], 'v') or '0'
if version == ARGV[2] then
  redis.call('HSET', KEYS[1], 'v', version)
  return 1
end
if version ~= ARGV[1] then return 0 end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
  local _ = KEYS[3] and redis.call('ZREM', KEYS[3], ARGV[5])
  _ = KEYS[4] and redis.call('HDEL', KEYS[4], ARGV[5])
else
  redis.call('HSET', KEYS[1], 'v', ARGV[2], 'd', ARGV[3])
  local _ = ARGV[4] ~= '' and redis.call('HSET', KEYS[1], 'm', ARGV[4])
  _ = KEYS[3] and redis.call('ZADD', KEYS[3], 0, ARGV[5])
end
local time = redis.call('TIME')
local oldest = string.format('%.0f', math.max(time[1] - ARGV[6], 0) * 1000)
for i = 7, #ARGV, 3 do
  local at = ARGV[i + 2]
  if at == 'now' then at = time[1] + ` + strconv.Itoa(int(revocation.Ahead/time.Second)) + ` end
  redis.call('XADD', KEYS[2], 'MINID', '~', oldest, '*', 'k', ARGV[i], 'i', ARGV[i + 1], 't', at)
end
return 1
`)

// write is a change of a record and what it tells the feed.
type write struct {
	key     string
	version uint64
	// data is nil where the record is removed. sealed says that it needs no MAC.
	data   []byte
	sealed bool
	id     string
	// index is the key that lists the clients; empty for a record that is not one.
	index string
	tell  []telling
}

// telling is an entry for the feed. at is a moment in Unix seconds, "now" or empty.
type telling struct {
	kind revocation.Kind
	id   string
	at   string
}

// write makes a change and announces it in one step, or gives errStale.
func (s *Store) write(ctx context.Context, w write) error {
	keys := []string{w.key, s.key("feed")}
	if w.index != "" {
		keys = append(keys, w.index, s.key("used"))
	}
	version := strconv.FormatUint(newVersion(), 10)
	var m []byte
	if !w.sealed {
		mac, err := s.authenticator()
		if err != nil {
			return err
		}
		m = mac(w.key, version, w.data)
	}
	args := []any{strconv.FormatUint(w.version, 10), version, w.data, m, w.id, s.retention}
	for _, t := range w.tell {
		args = append(args, string(t.kind), t.id, t.at)
	}
	if s.replicas > 0 && slices.ContainsFunc(w.tell, func(t telling) bool { return t.kind.Revocation() }) {
		return s.replicated(ctx, keys, args)
	}
	return run(ctx, s.client, keys, args)
}

// run makes a change through a client or on a connection.
func run(ctx context.Context, on redis.Scripter, keys []string, args []any) error {
	done, err := change.Run(ctx, on, keys, args...).Int()
	if err == nil && done == 0 {
		err = errStale
	}
	return err
}

// replicated makes a change and waits until enough replicas of the Redis have it, on one connection, because WAIT asks
// about the writes of its own.
func (s *Store) replicated(ctx context.Context, keys []string, args []any) error {
	client, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	conn := client.Conn()
	defer func() { _ = conn.Close() }()
	if err := run(ctx, conn, keys, args); err != nil {
		return err
	}
	return s.awaitReplicas(ctx, conn)
}

// load gives what stands under a key, unverified.
func (s *Store) load(ctx context.Context, key string) (r stored, err error) {
	fields, err := s.client.HMGet(ctx, key, "v", "d", "m").Result()
	if err != nil {
		return r, err
	}
	text := func(i int) []byte {
		if value, ok := fields[i].(string); ok {
			return []byte(value)
		}
		return nil
	}
	return stored{string(text(0)), text(1), text(2)}, nil
}

// loadRecord gives the data and version of a record; nil and zero where there is none.
func (s *Store) loadRecord(ctx context.Context, key string) ([]byte, uint64, error) {
	if _, err := s.authenticator(); err != nil {
		return nil, 0, err
	}
	r, err := s.load(ctx, key)
	if err != nil || r.empty() {
		return nil, 0, err
	}
	version, err := s.verify(key, r)
	if err != nil {
		return nil, 0, err
	}
	return r.data, version, nil
}
