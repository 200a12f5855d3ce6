package redisstore

// MaxCountedKeys is the maximum number of keys of one window.
const MaxCountedKeys = maxCountedKeys

// SetCheckpointEntries sets the number of entries of the feed between two checkpoints.
func (s *Store) SetCheckpointEntries(n int64) { s.checkpointEntries = n }
