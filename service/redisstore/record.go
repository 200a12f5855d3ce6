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

// Authenticate sets the key that authenticates the records of clients and resources. It derives from the pepper of the key
// ring ([keys.RecordKey]), so Authenticate is called once the ring is open. Without the key the store neither reads nor
// writes a record.
func (s *Store) Authenticate(key []byte) {
	key = slices.Clone(key)
	mac := func(record, version string, data []byte) []byte {
		h := hmac.New(sha256.New, key)
		// The lengths keep two records from having the same input.
		for _, part := range [][]byte{[]byte(record), []byte(version), data} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
		return h.Sum(nil)
	}
	s.mac.Store(&mac)
}

// errNoKey means that a record was accessed before Authenticate was called.
var errNoKey = errors.New("the store has no key for its records yet: the key ring must be opened first")

// stored is a record as it is in Redis.
type stored struct {
	version   string
	data, mac []byte
}

func (r *stored) empty() bool { return r.version == "" && len(r.data) == 0 && len(r.mac) == 0 }

// authenticator returns the function that computes MACs.
func (s *Store) authenticator() (func(key, version string, data []byte) []byte, error) {
	if mac := s.mac.Load(); mac != nil {
		return *mac, nil
	}
	return nil, errNoKey
}

// verify returns the version of the record under a key, if Grantor wrote it there.
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
		return 0, errors.New("its version is not a number")
	}
	return version, nil
}

// newVersion returns a random version of 63 bits, since other languages have no unsigned 64-bit integers. A counter or a
// time could repeat after a record was deleted or a clock set back, and would have to be assigned in Redis, where no MAC
// could cover it.
func newVersion() uint64 {
	for {
		var random [8]byte
		_, _ = rand.Read(random[:]) // it never fails (crypto/rand)
		if version := binary.BigEndian.Uint64(random[:]) >> 1; version != 0 {
			return version
		}
	}
}

// errStale means that the stored version is not the expected one.
var errStale = errors.New("stale version")

// change writes or deletes a record and appends entries to the feed, atomically, if the stored version is the expected one.
// If the record has the new version already, this very call wrote it and its reply was lost: go-redis retries by itself.
// The version is then written again, so that a WAIT on this connection has something to wait for.
//
// Redis undoes nothing if a command of a script fails. So the commands that can fail come first: those that read the record
// and the index, which fail if the key is of another type, and XADD, which also fails if the feed ends with the highest
// possible ID. A change that fails can therefore be retried, and no record changes without its announcement. An entry
// that announces a change which then fails only makes replicas read the record again, or revokes what was to be revoked.
// Uses of another type are deleted, because no decision depends on them.
//
// A deletion starts with an HDEL that removes nothing: once a script has written, Redis refuses it no XADD for lack of
// memory, and a deletion frees memory.
//
// KEYS: record, feed, and for a client: index and uses
// ARGV: expected version, new version, data (empty deletes the record), MAC (empty for a record without one), id, retention
// in seconds, then kind, id and time of each entry for the feed, where the time "now" is [revocation.Ahead] after the
// current second.
var change = redis.NewScript(`
local version = redis.call('HGET', KEYS[1], 'v') or '0'
if version == ARGV[2] then
  redis.call('HSET', KEYS[1], 'v', version)
  return 1
end
if version ~= ARGV[1] then return 0 end
local _ = KEYS[3] and redis.call('ZRANGE', KEYS[3], 0, 0)
_ = ARGV[3] == '' and redis.call('HDEL', KEYS[1], '')
local time = redis.call('TIME')
local oldest = string.format('%.0f', math.max(time[1] - ARGV[6], 0) * 1000)
for i = 7, #ARGV, 3 do
  local at = ARGV[i + 2]
  if at == 'now' then at = time[1] + ` + strconv.Itoa(int(revocation.Ahead/time.Second)) + ` end
  redis.call('XADD', KEYS[2], 'MINID', '~', oldest, '*', 'k', ARGV[i], 'i', ARGV[i + 1], 't', at)
end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
  _ = KEYS[3] and redis.call('ZREM', KEYS[3], ARGV[5])
  if KEYS[4] and type(redis.pcall('HDEL', KEYS[4], ARGV[5])) ~= 'number' then redis.call('DEL', KEYS[4]) end
else
  redis.call('HSET', KEYS[1], 'v', ARGV[2], 'd', ARGV[3])
  _ = ARGV[4] ~= '' and redis.call('HSET', KEYS[1], 'm', ARGV[4])
  _ = KEYS[3] and redis.call('ZADD', KEYS[3], 0, ARGV[5])
end
return 1
`)

// write is a change of a record and the entries of the feed that announce it.
type write struct {
	key     string
	version uint64
	// data is nil if the record is deleted. A sealed record has no MAC.
	data   []byte
	sealed bool
	id     string
	// index is the key of the list of clients; empty unless the record is a client.
	index    string
	announce []announcement
}

// announcement is an entry for the feed. at is a time in Unix seconds, "now" or empty.
type announcement struct {
	kind revocation.Kind
	id   string
	at   string
}

// write makes a change and announces it atomically. If the stored version is not w.version, it returns errStale.
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
	for _, a := range w.announce {
		args = append(args, string(a.kind), a.id, a.at)
	}
	if s.replicas > 0 && slices.ContainsFunc(w.announce, func(a announcement) bool { return a.kind.Revocation() }) {
		return s.replicated(ctx, keys, args)
	}
	return run(ctx, s.client, keys, args)
}

// run runs the change script on a client or a connection.
func run(ctx context.Context, on redis.Scripter, keys []string, args []any) error {
	done, err := change.Run(ctx, on, keys, args...).Int()
	if err == nil && done == 0 {
		err = errStale
	}
	return err
}

// replicated makes a change and waits until enough replicas of Redis have it. It does both on one connection, because WAIT
// covers only the writes of its own connection.
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

// load returns the record under a key, unverified.
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

// loadRecord returns the verified data and version of a record; nil and zero if there is none. what names the record in the
// report if it cannot be read.
func (s *Store) loadRecord(ctx context.Context, what, key string) ([]byte, uint64, error) {
	if _, err := s.authenticator(); err != nil {
		return nil, 0, err
	}
	r, err := s.load(ctx, key)
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		err = fmt.Errorf("the record %s: %w: it is not a hash", key, registry.ErrAltered)
		s.report(what, key, "", err)
	}
	if err != nil || r.empty() {
		return nil, 0, err
	}
	version, err := s.verify(key, r)
	if err != nil {
		s.report(what, key, "", err)
		return nil, 0, err
	}
	return r.data, version, nil
}
