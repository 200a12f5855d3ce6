package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// use stores uses of secrets. It reads the client's record atomically with the write: so a use that a replica writes late
// does not outlive its client, and the uses of secrets that the client no longer has are deleted. If the record cannot be
// decoded, the uses of the client are deleted, so that a record altered by hand does not hold up the others. The uses of a
// client whose record a newer release wrote stay as they are. It returns the clients whose stored uses cannot be decoded.
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
local unreadable = {}
if type(redis.pcall('HLEN', KEYS[1])) ~= 'number' then redis.call('DEL', KEYS[1]) end -- of another type than hash
for i = 2, #ARGV, 3 do
  local client = ARGV[i]
  local record, before = redis.pcall('HGET', ARGV[1] .. client, 'd'), redis.call('HGET', KEYS[1], client)
  if type(record) ~= 'string' then record = false end
  if before then
    local whole, uses = pcall(cjson.decode, before)
    if not whole or type(uses) ~= 'table' then
      unreadable[#unreadable + 1] = client
      before = false
    end
  end
  local read, decoded = pcall(cjson.decode, record)
  local newer = read and type(decoded) == 'table' and (tonumber(decoded.format) or 0) > ` + strconv.Itoa(usageFormat) + `
  local ok, kept = pcall(merge, decoded, before, ARGV[i + 1], tonumber(ARGV[i + 2]))
  if ok and next(kept) and not newer then
    redis.call('HSET', KEYS[1], client, cjson.encode(kept))
  elseif not newer then
    redis.call('HDEL', KEYS[1], client)
  end
end
return unreadable
`)

// RecordUses implements [registry.UsageStore].
func (s *Store) RecordUses(ctx context.Context, uses []registry.Use) error {
	args := []any{s.key("client:")}
	for _, u := range uses {
		args = append(args, u.Client.String(), u.SecretID, u.At.Unix())
	}
	unreadable, err := use.Run(ctx, s.client, []string{s.key("used")}, args...).StringSlice()
	for _, client := range unreadable {
		s.report("uses", s.key("used"), client, errUses)
	}
	return err
}

// errUses means that the uses of a client's secrets cannot be decoded.
var errUses = errors.New("the uses of the client's secrets cannot be decoded")

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
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		s.report("uses", s.key("used"), "", errors.New("the key is not a hash"))
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	for i, value := range values {
		text, ok := value.(string)
		if !ok {
			continue // no secret was used
		}
		uses, err := decodeUses(text)
		if err != nil {
			s.report("uses", s.key("used"), ids[i], err)
		}
		found[clients[i]] = uses
	}
	return found, nil
}

// decodeUses returns when secrets were last used, keyed by their IDs. With an error it returns those that it can decode.
func decodeUses(text string) (map[string]time.Time, error) {
	var seconds map[string]int64
	if json.Unmarshal([]byte(text), &seconds) != nil {
		return nil, errUses
	}
	var err error
	uses := make(map[string]time.Time, len(seconds))
	for id, second := range seconds {
		if second < 0 || second > maxSecond {
			err = errUses
			continue
		}
		uses[id] = fromUnix(second)
	}
	return uses, err
}
