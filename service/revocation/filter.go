package revocation

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/grantorhq/grantor/service/token"
)

// filter is a Bloom filter with one hash function. It rejects most IDs that are not on the list with a single memory
// access. Its memory is a twentieth of the list's and so stays in the processor's caches. With a million revoked
// tokens, a lookup in the list itself takes an eighth of the time to verify a cached token. filter is safe for
// concurrent use by multiple goroutines.
type filter struct {
	// bits has one bit for each ID. An ID is random, so that it is its own hash.
	bits []atomic.Uint64
	// capacity is the number of IDs up to which the rate of false positives is acceptable.
	capacity int
}

// bitsPerID is the number of bits for each ID at full capacity. One of sixteen IDs that are not on the list is then a
// false positive, which costs a lookup in the list.
const bitsPerID = 16

// newFilter returns an empty filter with a capacity of at least the given one.
func newFilter(capacity int) *filter {
	size := 1 << 10
	for size < capacity {
		size *= 2
	}
	return &filter{make([]atomic.Uint64, size*bitsPerID/64), size}
}

// bit returns the word that contains the bit of the ID, and a mask with that bit. It uses the last bytes of the ID,
// since the first one selects the shard of the list.
func (f *filter) bit(id token.ID) (*atomic.Uint64, uint64) {
	at := binary.LittleEndian.Uint64(id[len(id)-8:])
	return &f.bits[at/64%uint64(len(f.bits))], 1 << (at % 64)
}

func (f *filter) add(id token.ID) {
	word, mask := f.bit(id)
	word.Or(mask)
}

// mayContain reports whether the ID may have been added. False means that it was not.
func (f *filter) mayContain(id token.ID) bool {
	word, mask := f.bit(id)
	return word.Load()&mask != 0
}
