// Package redisstore keeps everything in Redis 7 or Valkey: each store interface of the domain, on go-redis.
//
// All keys have the configured prefix ("grantor:" below) and one hash tag made of it. The tag puts an issuer's keys into
// one slot of a Cluster, so that a change and its announcement are one step everywhere; what is kept is small and read
// from memory, so one node is enough for it. An id stands at the end of a key, after everything that gives the key its
// meaning: no id can forge a key or a slot.
//
//	grantor:{grantor}:client:ID   hash   v: version, d: JSON of one client, m: MAC
//	grantor:{grantor}:clients     zset   the ids of all clients, in byte order
//	grantor:{grantor}:used        hash   client id → JSON of secret id → when it was last used; see RecordUses
//	grantor:{grantor}:resources   hash   v: version, d: JSON of all resources, m: MAC
//	grantor:{grantor}:ring        hash   v: version, d: the sealed key ring
//	grantor:{grantor}:feed        stream k: kind of change, i: id, t: moment; entries older than the retention are trimmed
//	grantor:{grantor}:audit:changes, grantor:{grantor}:audit:decisions, grantor:{grantor}:audit:refusals
//	                              stream t: milliseconds since 1970, e: audit event, a: JSON of its attributes; see Trail
//	grantor:{grantor}:limit:KIND:PERIOD:NUMBER
//	                              hash   what is counted within so many seconds: hash of whom it is about → count; at most
//	                                     100,000 fields, gone two periods after the last count; see AddCounts
//	grantor:{grantor}:replicas    hash   id of a running replica → the Redis' time in milliseconds, a blank, JSON; see Announce
//
// A MAC binds a record's data to its version and its key, under a key that the Redis never sees: who can write the Redis
// but not read that key cannot make a record, change one, or move one to another client or issuer. Reading one that was
// altered so is [registry.ErrAltered]; deleting it and registering it again mends it. The ring is encrypted as a whole,
// and bound to its place by that.
//
// Not detected is what keeps every record as Grantor once wrote it: a whole record that is put back as it was before, or
// deleted, and entries of the feed that are taken out or added. So who can write the Redis can give a client back what
// was taken from it, and hide a revocation from replicas that have not read it yet: the Redis must be kept for Grantor
// alone.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
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
	// replicas is how many replicas of the Redis must have a revocation before it counts as recorded.
	replicas int
	// mac makes the MAC of a record: nil before Authenticate. It holds the key in a closure, where printing a Store does not
	// show it.
	mac atomic.Pointer[func(key, version string, data []byte) []byte]
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
	return &Store{client: client, base: base, retention: int64(retention / time.Second)}, nil
}

// RequireReplicas makes whatever revokes tokens, [Store.Publish] and the changes of records that do, wait until so many
// replicas of the Redis have it (WAIT). A fail-over loses it then only to a replica that is behind those, which Redis
// avoids, and cannot where they are all that there are. With too few the error is [revocation.ErrNotReplicated]. It is
// called before the first use.
func (s *Store) RequireReplicas(n int) { s.replicas = n }

// Name implements [keys.Store]. Two Redises may have one prefix, so an issuer with a Redis of its own still needs a
// key-encryption key of its own.
func (s *Store) Name() string { return s.base }

func (s *Store) key(name string) string { return s.base + name }

// Publish implements [revocation.Publisher].
func (s *Store) Publish(ctx context.Context, changes ...revocation.Change) error {
	client, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	// One connection for both, because WAIT asks about the writes of its own.
	conn := client.Conn()
	defer func() { _ = conn.Close() }()
	oldest := strconv.FormatInt(max(time.Now().Unix()-s.retention, 0)*1000, 10)
	_, err = conn.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, c := range changes {
			pipe.XAdd(ctx, &redis.XAddArgs{
				Stream: s.key("feed"), MinID: oldest, Approx: true,
				Values: []any{"k", string(c.Kind), "i", c.ID, "t", c.At.Unix()},
			})
		}
		return nil
	})
	if err != nil || s.replicas == 0 {
		return err
	}
	return s.awaitReplicas(ctx, conn)
}

// awaitReplicas waits until enough replicas of the Redis have what was written on the connection.
func (s *Store) awaitReplicas(ctx context.Context, conn *redis.Conn) error {
	acknowledged, err := conn.Wait(ctx, s.replicas, replicaWait).Result()
	if err == nil && acknowledged < int64(s.replicas) {
		err = fmt.Errorf("%w: %d of %d replicas of the Redis acknowledged within %s", revocation.ErrNotReplicated, acknowledged, s.replicas, replicaWait)
	}
	return err
}

// Confirm implements [revocation.Publisher]. WAIT asks about nothing but what its own connection wrote, so the changes are
// written again.
func (s *Store) Confirm(ctx context.Context, changes ...revocation.Change) error {
	if s.replicas == 0 {
		return nil
	}
	return s.Publish(ctx, changes...)
}

// replicaWait is how long a revocation waits for the replicas of the Redis.
const replicaWait = time.Second

// Owner gives the client of the server that has the keys: in a Cluster the primary of their slot.
func (s *Store) Owner(ctx context.Context) (*redis.Client, error) {
	switch client := s.client.(type) {
	case *redis.Client:
		return client, nil
	case *redis.ClusterClient:
		return client.MasterForKey(ctx, s.key("feed"))
	}
	return nil, fmt.Errorf("a %T is no Redis that is known here", s.client)
}

// readCount bounds the entries of one read of the feed.
const readCount = 5000

// Read implements [revocation.Log].
func (s *Store) Read(ctx context.Context, after revocation.Cursor, wait time.Duration) ([]revocation.Entry, bool, error) {
	block := max(wait, time.Millisecond) // Redis takes less than that for ever
	if wait == 0 {
		block = -1 // go-redis: no BLOCK at all
	}
	streams, err := s.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{s.key("feed"), after.String()}, Count: readCount, Block: block,
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
		entry := revocation.Entry{Cursor: cursor, Change: revocation.Change{Kind: revocation.Kind(kind), ID: id}}
		// What a newer release says with a kind of its own is not read.
		if at, _ := message.Values["t"].(string); at != "" && entry.Kind.Known() {
			seconds, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				return nil, false, fmt.Errorf("the feed has an entry of the time %q", at)
			}
			entry.At = time.Unix(seconds, 0)
		}
		entries = append(entries, entry)
	}
	return entries, len(entries) == readCount, nil
}

// continues reports [revocation.ErrGap] where the entry at the cursor is gone. One that is older than the retention may
// have been trimmed; then there is at least the entry that was added with it.
func (s *Store) continues(ctx context.Context, after revocation.Cursor) error {
	if after == (revocation.Cursor{}) {
		return nil
	}
	found, err := s.client.XRangeN(ctx, s.key("feed"), after.String(), after.String(), 1).Result()
	if err != nil || len(found) > 0 {
		return err
	}
	if int64(after.Time/1000) < time.Now().Unix()-s.retention { //nolint:gosec // milliseconds since 1970
		if end, err := s.End(ctx); err != nil || end.Compare(after) > 0 {
			return err
		}
	}
	return revocation.ErrGap
}

// End implements [revocation.Log].
func (s *Store) End(ctx context.Context) (revocation.Cursor, error) {
	last, err := s.client.XRevRangeN(ctx, s.key("feed"), "+", "-", 1).Result()
	if err != nil || len(last) == 0 {
		return revocation.Cursor{}, err
	}
	return parseStreamID(last[0].ID)
}

// parseStreamID parses the ID of an entry of the feed.
func parseStreamID(id string) (revocation.Cursor, error) {
	c, err := revocation.ParseCursor(id)
	if err != nil {
		return c, fmt.Errorf("the feed has an entry %q: %w", id, err)
	}
	return c, nil
}
