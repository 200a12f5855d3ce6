// Package redisstore implements every store interface of the domain on Redis 7 or Valkey, with go-redis.
//
// All keys have the configured prefix ("grantor:" below) and one hash tag made of it. The tag puts an issuer's keys into
// one slot of a Cluster, so that a change and its announcement are atomic everywhere. The data is small and read from
// memory, so one node is enough for it. An id is the last part of a key, after everything that gives the key its meaning:
// no id can forge a key or a slot.
//
//	grantor:{grantor}:client:ID   hash   v: version, d: JSON of one client, m: MAC
//	grantor:{grantor}:clients     zset   the ids of all clients, in byte order
//	grantor:{grantor}:used        hash   by client id: JSON that maps secret ids to when they were last used; see RecordUses
//	grantor:{grantor}:assertion:ID
//	                              string a client assertion that was used, by its SHA-256; expires with it; see Use
//	grantor:{grantor}:resources   hash   v: version, d: JSON of all resources, m: MAC
//	grantor:{grantor}:trust       hash   v: version, d: JSON of all trusted issuers and workloads, m: MAC
//	grantor:{grantor}:ring        hash   v: version, d: the sealed key ring
//	grantor:{grantor}:feed        stream k: kind of change, i: id, t: moment; entries older than the retention are trimmed
//	grantor:{grantor}:checkpoints stream by cursor in the feed: p: cursor of the previous checkpoint, d: what the feed has between the
//	                              two, except changes that only invalidate caches, m: MAC; trimmed like the feed. It may be
//	                              deleted at any time: it only makes starts faster
//	grantor:{grantor}:audit:changes, grantor:{grantor}:audit:decisions, grantor:{grantor}:audit:refusals
//	                              stream t: milliseconds since 1970, e: audit event, a: JSON of its attributes; see AuditTrail
//	grantor:{grantor}:limit:KIND:PERIOD:NUMBER
//	                              hash   counts of one window of so many seconds, keyed by the hash of what is counted; at most
//	                                     100,000 fields, expires two periods after the last count; see AddCounts
//	grantor:{grantor}:replicas    hash   by id of a running replica: time of Redis in milliseconds, a space, JSON; see Announce
//
// A MAC binds a record's data to its version and its key, under a secret that Redis never sees: an attacker who can write
// to Redis but cannot read that secret cannot create a record, change one, or move one to another client or issuer. Reading
// a record altered so returns [registry.ErrAltered]; deleting and registering it again repairs it. The ring is encrypted as
// a whole, which binds it to its key.
//
// What leaves every record as Grantor once wrote it is not detected: a whole record that is restored to an earlier state,
// or deleted, and entries of the feed that are removed or added. So an attacker who can write to Redis can give a client
// back what was taken from it, and hide a revocation from replicas that have not read it yet: no one but Grantor may have
// access to the Redis.
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

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
)

// DefaultPrefix is the key prefix of an issuer that has a Redis to itself.
const DefaultPrefix = "grantor:"

// Store implements all stores of one issuer. It is safe for concurrent use by multiple goroutines.
type Store struct {
	client redis.UniversalClient
	base   string
	// replicas is how many replicas of Redis must have a revocation before it counts as recorded.
	replicas int
	// mac computes the MAC of a record; nil before Authenticate is called. It holds the key in a closure, where printing a
	// Store does not show it.
	mac atomic.Pointer[func(key, version string, data []byte) []byte]
	// retention is how long an entry of the feed is kept, in seconds.
	retention int64
	// checkpointEntries is the number of entries of the feed between two checkpoints.
	checkpointEntries int64
	// unreadable is called for each record that cannot be read; see OnUnreadable.
	unreadable func(telemetry.UnreadableRecord)
}

// OnUnreadable makes the store call f for each record that it cannot read, each time that it meets the record. Such a record
// is skipped and affects no other. f must be safe for concurrent use by multiple goroutines. OnUnreadable must be called
// before the first use.
func (s *Store) OnUnreadable(f func(telemetry.UnreadableRecord)) { s.unreadable = f }

func (s *Store) report(record, key, id string, err error) {
	if s.unreadable != nil {
		s.unreadable(telemetry.UnreadableRecord{Record: record, Key: key, ID: id, Err: err})
	}
}

// New returns a store whose keys have the prefix, such as [DefaultPrefix]. Entries of the feed are kept for retention, which
// must be at least the maximum lifetime of a token.
func New(client redis.UniversalClient, prefix string, retention time.Duration) (*Store, error) {
	if len(prefix) < 2 || !strings.HasSuffix(prefix, ":") || strings.ContainsAny(prefix, "{} \r\n*?[]") {
		return nil, fmt.Errorf("the key prefix %q does not end with a colon, or contains a brace, space or wildcard", prefix)
	}
	base := prefix + "{" + strings.TrimSuffix(prefix, ":") + "}:"
	return &Store{client: client, base: base, retention: int64(retention / time.Second), checkpointEntries: maxRead}, nil
}

// RequireReplicas makes everything that revokes tokens, [Store.Publish] and the changes of records that do, wait until n
// replicas of Redis have it (WAIT). A failover then loses a revocation only if it promotes a replica that lags behind those
// n, which Redis avoids, and which is impossible if there are no others. If fewer than n acknowledge, the error is
// [revocation.ErrNotReplicated]. RequireReplicas must be called before the first use.
func (s *Store) RequireReplicas(n int) { s.replicas = n }

// Name implements [keys.Store]. Two Redis servers may use the same prefix, so an issuer with its own Redis still needs its
// own key-encryption key.
func (s *Store) Name() string { return s.base }

func (s *Store) key(name string) string { return s.base + name }

// Publish implements [revocation.Publisher].
func (s *Store) Publish(ctx context.Context, changes ...revocation.Change) error {
	client, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	// Both commands use one connection, because WAIT covers only the writes of its own connection.
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

// awaitReplicas waits until enough replicas of Redis have what was written on the connection.
func (s *Store) awaitReplicas(ctx context.Context, conn *redis.Conn) error {
	acknowledged, err := conn.Wait(ctx, s.replicas, replicaWait).Result()
	if err == nil && acknowledged < int64(s.replicas) {
		err = fmt.Errorf("%w: %d of %d replicas of Redis acknowledged within %s", revocation.ErrNotReplicated, acknowledged, s.replicas, replicaWait)
	}
	return err
}

// Confirm implements [revocation.Publisher]. WAIT covers only what its own connection wrote, so Confirm writes the changes
// again.
func (s *Store) Confirm(ctx context.Context, changes ...revocation.Change) error {
	if s.replicas == 0 {
		return nil
	}
	return s.Publish(ctx, changes...)
}

// replicaWait bounds how long a revocation waits for the replicas of Redis.
const replicaWait = time.Second

// Owner returns the client of the server that has the keys: in a Cluster the primary of their slot.
func (s *Store) Owner(ctx context.Context) (*redis.Client, error) {
	switch client := s.client.(type) {
	case *redis.Client:
		return client, nil
	case *redis.ClusterClient:
		return client.MasterForKey(ctx, s.key("feed"))
	}
	return nil, fmt.Errorf("unsupported client type %T", s.client)
}

// maxRead is the maximum number of entries that one read returns.
const maxRead = 5000

// Read implements [revocation.Log].
func (s *Store) Read(ctx context.Context, after revocation.Cursor, wait time.Duration) ([]revocation.Entry, bool, error) {
	block := max(wait, time.Millisecond) // Redis blocks forever for less than that
	if wait == 0 {
		block = -1 // go-redis omits BLOCK
	}
	streams, err := s.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{s.key("feed"), after.String()}, Count: maxRead, Block: block,
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, false, err
	}
	// go-redis hides a short outage by retrying, so a server that came back without its data is first noticed here. The check
	// follows the read, because the entries may have been added after the loss.
	if err := s.continues(ctx, after); err != nil || len(streams) == 0 {
		return nil, false, err
	}
	entries, err := s.decodeEntries(streams[0].Messages)
	return entries, len(entries) == maxRead, err
}

// decodeEntries decodes entries of the feed. It reports those that cannot be read.
func (s *Store) decodeEntries(messages []redis.XMessage) ([]revocation.Entry, error) {
	entries := make([]revocation.Entry, len(messages))
	for i, m := range messages {
		cursor, err := parseStreamID(m.ID)
		if err != nil {
			return nil, err
		}
		entries[i] = s.entry(cursor, changeFields(m.Values))
	}
	return entries, nil
}

// entry returns the entry of the feed that has the fields. It reports one that cannot be read.
func (s *Store) entry(cursor revocation.Cursor, fields feedFields) revocation.Entry {
	change, err := fields.decode()
	if err != nil {
		s.report("feed", s.key("feed"), cursor.String(), err)
	}
	return revocation.Entry{Cursor: cursor, Change: change, Err: err}
}

// feedFields are the fields of an entry of the feed that this release knows.
type feedFields struct{ kind, id, at string }

func changeFields(all map[string]any) (f feedFields) {
	f.kind, _ = all["k"].(string)
	f.id, _ = all["i"].(string)
	f.at, _ = all["t"].(string)
	return f
}

// decode decodes a change. Only a revocation needs its time: any other change takes effect even if its time cannot be read. A
// newer release may put anything into an entry whose kind this release does not know.
func (f feedFields) decode() (revocation.Change, error) {
	c := revocation.Change{Kind: revocation.Kind(f.kind), ID: f.id}
	if f.kind == "" {
		return c, errors.New("it has no kind")
	}
	if !c.Kind.Revocation() {
		if _, err := oauth.ParseClientID(f.id); err != nil && c.Kind == revocation.ClientChanged {
			return c, fmt.Errorf("its client: %w", err)
		}
		return c, nil
	}
	seconds, err := strconv.ParseUint(f.at, 10, 32) // the ledger stores times in 32 bits
	if err != nil {
		return c, fmt.Errorf("its time is %.40q, want seconds since 1970", f.at)
	}
	c.At = time.Unix(int64(seconds), 0)
	return c, c.Check()
}

// continues returns [revocation.ErrGap] if the entry at the cursor is missing. An entry older than the retention may have
// been trimmed; then there is at least the entry whose addition trimmed it.
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
