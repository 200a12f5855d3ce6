package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/limit"
)

// maxCountedKeys is the maximum number of keys of one window: some 10 MB, which an attacker with many addresses can fill.
const maxCountedKeys = 100_000

// count adds counts and returns the sums, followed by how many stored counts were not numbers. Those restart from zero.
//
// KEYS: window
// ARGV: maximum number of keys, milliseconds for which the window is kept, then key and count of each.
//
//nolint:dupword // Lua
var count = redis.NewScript(`
local sums, unreadable = {}, 0
if type(redis.pcall('HLEN', KEYS[1])) ~= 'number' then -- of another type than hash
  redis.call('DEL', KEYS[1])
  unreadable = 1
end
for i = 3, #ARGV, 2 do
  if redis.call('HLEN', KEYS[1]) < tonumber(ARGV[1]) or redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    local sum = redis.pcall('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
    if type(sum) ~= 'number' or sum < 0 then
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
      sum, unreadable = tonumber(ARGV[i + 1]), unreadable + 1
    end
    sums[#sums + 1] = sum
  else
    sums[#sums + 1] = tonumber(ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
sums[#sums + 1] = unreadable
return sums
`)

// AddCounts implements [limit.Store]. If a reply is lost, its counts may be added twice. They only limit callers, who then
// wait a little longer.
func (s *Store) AddCounts(ctx context.Context, w limit.Window, counts []limit.Count) ([]int64, error) {
	args := make([]any, 0, 2+2*len(counts))
	args = append(args, maxCountedKeys, (2 * w.Period).Milliseconds())
	for _, c := range counts {
		args = append(args, c.Key[:], c.N)
	}
	sums, err := count.Run(ctx, s.client, []string{s.windowKey(w)}, args...).Int64Slice()
	if err != nil {
		return nil, err
	}
	if len(sums) != len(counts)+1 {
		return nil, fmt.Errorf("the reply to the counts has %d parts, want %d", len(sums), len(counts)+1)
	}
	for range sums[len(counts)] {
		s.report("counts", s.windowKey(w), "", errors.New("a count is not a number; it restarts from zero"))
	}
	return sums[:len(counts)], nil
}

func (s *Store) windowKey(w limit.Window) string {
	return s.key(fmt.Sprintf("limit:%s:%d:%d", w.Kind, w.Period/time.Second, w.Number))
}
