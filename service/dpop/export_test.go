package dpop

// Use exports Replays.use.
func (r *Replays) Use(thumbprint, id string, issued, oldest int64) error {
	return r.use(thumbprint, id, issued, oldest)
}

// Len returns the number of proofs in memory.
func (r *Replays) Len() (n int) {
	for i := range r.shards {
		n += r.shards[i].count
	}
	return n
}

// ReplayShards exports replayShards.
const ReplayShards = replayShards
