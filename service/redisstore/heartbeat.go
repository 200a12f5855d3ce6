package redisstore

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/heartbeat"
)

// replicaRecord is the stored form of a replica's status. Times are in milliseconds since 1970, durations in milliseconds.
type replicaRecord struct {
	Format          int               `json:"format"`
	ID              string            `json:"id"`
	Version         string            `json:"version"`
	Host            string            `json:"host"`
	HTTP            string            `json:"http"`
	GRPC            string            `json:"grpc"`
	StartedAt       int64             `json:"started_at"`
	Ahead           int64             `json:"ahead"`
	FeedAge         int64             `json:"feed_age"`
	CertificateEnds int64             `json:"certificate_ends,omitempty"`
	Settings        map[string]string `json:"settings"`
	Insecure        []string          `json:"insecure,omitempty"`
	Published       []string          `json:"published"`
	Active          []string          `json:"active"`
}

// announce stores the record of a replica, preceded by the time of the Redis server in milliseconds and a space. It deletes
// the records that were written long ago, or that are in the future because a clock was set back. The key expires after
// the last replica has left.
//
// KEYS: replicas
// ARGV: id, record, how long a record is kept in milliseconds, and the maximum number of replicas.
//
//nolint:dupword // Lua
var announce = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if type(redis.pcall('HLEN', KEYS[1])) ~= 'number' then redis.call('DEL', KEYS[1]) end -- of another type than hash
local known = redis.call('HGETALL', KEYS[1])
for i = 1, #known, 2 do
  local at = tonumber(string.match(known[i + 1], '^%d+') or '')
  if not at or math.abs(now - at) > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], known[i]) end
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 or redis.call('HLEN', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return time
`)

// Announce implements [heartbeat.Store].
func (s *Store) Announce(ctx context.Context, status heartbeat.Status) (time.Time, error) {
	record, err := json.Marshal(replicaRecord{
		Format: replicaFormat, ID: status.ID, Version: status.Version, Host: status.Host, HTTP: status.HTTP, GRPC: status.GRPC,
		StartedAt: status.StartedAt.UnixMilli(), Ahead: status.Ahead.Milliseconds(),
		FeedAge: int64(math.Floor(float64(status.FeedAge) / float64(time.Millisecond))), CertificateEnds: milliseconds(status.CertificateEnds),
		Settings: status.Settings, Insecure: status.Insecure, Published: status.Published, Active: status.Active,
	})
	if err != nil {
		return time.Time{}, err
	}
	now, err := announce.Run(ctx, s.client, []string{s.key("replicas")}, status.ID, record, heartbeat.Retention.Milliseconds(), heartbeat.MaxReplicas).Int64Slice()
	if err != nil {
		return time.Time{}, err
	}
	if len(now) != 2 {
		return time.Time{}, fmt.Errorf("the reply to TIME has %d parts, want 2", len(now))
	}
	return time.Unix(now[0], now[1]*int64(time.Microsecond)), nil
}

// Withdraw implements [heartbeat.Store].
func (s *Store) Withdraw(ctx context.Context, id string) error {
	return s.client.HDel(ctx, s.key("replicas"), id).Err()
}

// Replicas implements [heartbeat.Store].
func (s *Store) Replicas(ctx context.Context) ([]heartbeat.Status, time.Time, error) {
	client, err := s.Owner(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	now, err := client.Time(ctx).Result()
	if err != nil {
		return nil, time.Time{}, err
	}
	stored, err := client.HGetAll(ctx, s.key("replicas")).Result()
	if err != nil {
		return nil, time.Time{}, err
	}
	var found []heartbeat.Status
	for _, id := range slices.Sorted(maps.Keys(stored)) {
		status, err := decodeReplica(id, stored[id])
		if err != nil {
			s.report("replica", s.key("replicas"), id, err)
			continue
		}
		found = append(found, status)
	}
	return found, now, nil
}

func decodeReplica(id, stored string) (heartbeat.Status, error) {
	at, document, _ := strings.Cut(stored, " ")
	storedAt, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return heartbeat.Status{}, fmt.Errorf("its time is %.40q, want milliseconds since 1970", at)
	}
	var r replicaRecord
	if err := json.Unmarshal([]byte(document), &r); err != nil {
		return heartbeat.Status{}, err
	}
	if r.Format != replicaFormat || r.ID != id {
		return heartbeat.Status{}, fmt.Errorf("it is of format %d and of replica %.40q, want format %d and %.40q", r.Format, r.ID, replicaFormat, id)
	}
	status := heartbeat.Status{
		ID: r.ID, Version: r.Version, Host: r.Host, HTTP: r.HTTP, GRPC: r.GRPC, StartedAt: time.UnixMilli(r.StartedAt),
		Ahead: time.Duration(r.Ahead) * time.Millisecond, StoredAt: time.UnixMilli(storedAt),
		FeedAge: time.Duration(r.FeedAge) * time.Millisecond, Settings: r.Settings, Insecure: r.Insecure,
		Published: r.Published, Active: r.Active,
	}
	if r.CertificateEnds != 0 {
		status.CertificateEnds = time.UnixMilli(r.CertificateEnds)
	}
	return status, nil
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
