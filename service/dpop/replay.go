package dpop

import (
	"crypto/sha256"
	"sync"
)

const (
	// DefaultReplays is how many proofs a [Replays] holds unless its owner sets another number: those of 11,000 requests per
	// second, in about 40 MB. Memory is taken as proofs arrive.
	DefaultReplays = 1 << 20
	// replayShards is the number of parts of a [Replays] that are locked independently.
	replayShards = 32
)

// Replays remembers which proofs were used, for as long as they would be accepted: MaxAge and Leeway after their "iat". It is
// local to a process, as RFC 9449 §11.1 allows. It is safe for concurrent use by multiple goroutines.
//
// When it is full, it forgets the proofs of the oldest second and from then on refuses every proof that is as old. No proof is
// therefore accepted twice, and an honest client, whose proofs are a moment old, is not refused before a single second has
// more proofs than fit in. A caller that wants to fill the memory needs a valid proof for each place, and those are made with a
// key that the server has accepted: that of a token, or of a client which has authenticated.
type Replays struct {
	shards [replayShards]replayShard
}

// digest identifies a proof. It is half of a SHA-256: two proofs with the same digest could only be made on purpose, by the
// client whose second proof is then refused.
type digest [sha256.Size / 2]byte

// replayShard is a part of a Replays.
type replayShard struct {
	mu sync.Mutex
	// seconds maps an "iat" to the proofs of that second, of which there are count altogether, and at most capacity.
	seconds         map[int64]map[digest]struct{}
	count, capacity int
	// floor is the last second whose proofs are refused. It never decreases, so that a clock which is set back makes no proof
	// acceptable again.
	floor int64
}

// NewReplays returns a memory of the given number of proofs, at least [replayShards].
func NewReplays(capacity int) *Replays {
	r := &Replays{}
	for i := range r.shards {
		r.shards[i] = replayShard{seconds: make(map[int64]map[digest]struct{}), capacity: max(capacity/replayShards, 1)}
	}
	return r
}

// use records that the proof with the ID, which was made with a key in the second issued, is used. It returns an error if it
// was used before, or if that is not known any more. Proofs of before oldest are refused by their age.
func (r *Replays) use(thumbprint, id string, issued, oldest int64) error {
	sum := sha256.Sum256([]byte(thumbprint + " " + id)) // a thumbprint contains no space
	shard := &r.shards[sum[sha256.Size-1]%replayShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.use(digest(sum[:len(digest{})]), issued, oldest)
}

func (s *replayShard) use(d digest, issued, oldest int64) error {
	if s.floor < oldest-1 {
		s.forget(oldest - 1)
	}
	used := s.seconds[issued]
	if _, again := used[d]; again {
		return fail("it was used before")
	}
	if s.count >= s.capacity {
		first := issued
		for second := range s.seconds {
			first = min(first, second)
		}
		s.forget(first)
	}
	if issued <= s.floor {
		return fail("it is of a time of which the proofs are no longer known")
	}
	if used == nil {
		used = make(map[digest]struct{})
		s.seconds[issued] = used
	}
	used[d] = struct{}{}
	s.count++
	return nil
}

// forget forgets the proofs of floor and before, and refuses such proofs from now on.
func (s *replayShard) forget(floor int64) {
	for second, used := range s.seconds {
		if second <= floor {
			s.count -= len(used)
			delete(s.seconds, second)
		}
	}
	s.floor = floor
}
