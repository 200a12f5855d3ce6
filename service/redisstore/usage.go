package redisstore

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// use stores uses of secrets. It reads the client's record atomically with the write: so a use that a replica writes late
// does not outlive its client, and the uses of secrets that the client no longer has are deleted. If the record cannot be
// decoded, the uses of the client are deleted, so that a record altered by hand does not hold up the others. The uses of a
// client whose record a newer release wrote stay as they are.
//
// KEYS: uses
// ARGV: the prefix of a client's key, then client, secret and Unix second of each use.
//
//nolint:dupword // Lua
var use = redis.NewScript(`
local function merge(record, before, used, second)
  local known, kept = before and cjson.decode(before) or {}, {}
  for _, secret in ipairs(record.secrets or {}) do
    local at = known[secret.id] or 0
    if secret.id == used then at = math.max(at, second) end
    if at > 0 then kept[secret.id] = at end
  end
  return kept
end
for i = 2, #ARGV, 3 do
  local client = ARGV[i]
  local record, before = redis.call('HGET', ARGV[1] .. client, 'd'), redis.call('HGET', KEYS[1], client)
  local read, decoded = pcall(cjson.decode, record)
  local newer = read and type(decoded) == 'table' and (tonumber(decoded.format) or 0) > ` + strconv.Itoa(usageFormat) + `
  local ok, kept = pcall(merge, decoded, before, ARGV[i + 1], tonumber(ARGV[i + 2]))
  if ok and next(kept) and not newer then
    redis.call('HSET', KEYS[1], client, cjson.encode(kept))
  elseif not newer then
    redis.call('HDEL', KEYS[1], client)
  end
end
return 1
`)

// RecordUses implements [registry.UsageStore].
func (s *Store) RecordUses(ctx context.Context, uses []registry.Use) error {
	args := []any{s.key("client:")}
	for _, u := range uses {
		args = append(args, u.Client.String(), u.SecretID, u.At.Unix())
	}
	return use.Run(ctx, s.client, []string{s.key("used")}, args...).Err()
}

// LastUses implements [registry.UsageStore]. What cannot be decoded counts as no use: only people read it, and no decision
// depends on it.
func (s *Store) LastUses(ctx context.Context, clients []oauth.ClientID) (map[oauth.ClientID]map[string]time.Time, error) {
	found := make(map[oauth.ClientID]map[string]time.Time, len(clients))
	if len(clients) == 0 {
		return found, nil // HMGET requires a field
	}
	ids := make([]string, len(clients))
	for i, id := range clients {
		ids[i] = id.String()
	}
	values, err := s.client.HMGet(ctx, s.key("used"), ids...).Result()
	if err != nil {
		return nil, err
	}
	for i, value := range values {
		text, _ := value.(string)
		var seconds map[string]int64
		if json.Unmarshal([]byte(text), &seconds) != nil {
			continue
		}
		uses := make(map[string]time.Time, len(seconds))
		for id, second := range seconds {
			uses[id] = fromUnix(second)
		}
		found[clients[i]] = uses
	}
	return found, nil
}
