package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/limit"
)

// maxCountedKeys is the maximum number of keys of one window: some 10 MB, which an attacker with many addresses can fill.
const maxCountedKeys = 100_000

// count adds counts and returns the sums.
//
// KEYS: window
// ARGV: maximum number of keys, milliseconds for which the window is kept, then key and count of each.
//
//nolint:dupword // Lua
var count = redis.NewScript(`
local sums = {}
for i = 3, #ARGV, 2 do
  if redis.call('HLEN', KEYS[1]) < tonumber(ARGV[1]) or redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    sums[#sums + 1] = redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
  else
    sums[#sums + 1] = tonumber(ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
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
	return count.Run(ctx, s.client, []string{s.windowKey(w)}, args...).Int64Slice()
}

func (s *Store) windowKey(w limit.Window) string {
	return s.key(fmt.Sprintf("limit:%s:%d:%d", w.Kind, w.Period/time.Second, w.Number))
}
