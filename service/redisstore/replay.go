package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// Use implements [clientauth.Replays] with one conditional write. Redis deletes the key at the given time.
func (s *Store) Use(ctx context.Context, id [sha256.Size]byte, until time.Time) (first bool, err error) {
	// go-redis sends a command again if its reply was lost. The value shows whether it was this call that wrote the key.
	own := rand.Text()
	key := s.key("assertion:" + base64.RawURLEncoding.EncodeToString(id[:]))
	stored, err := s.client.SetArgs(ctx, key, own, redis.SetArgs{Mode: "NX", Get: true, ExpireAt: until}).Result()
	if errors.Is(err, redis.Nil) {
		return true, nil
	}
	return err == nil && stored == own, err
}
