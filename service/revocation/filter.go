package revocation

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/grantorhq/grantor/service/token"
)

// filter tells of most tokens that they are not on the list, with one look at a memory that is a twentieth of the list's
// and so stays in the processor's caches. Where a million tokens are revoked, looking in the list itself is an eighth of
// what it costs to verify a token that was seen before. It may be used by several goroutines.
type filter struct {
	// bits has one bit for each token, at the place that its id says, which is random.
	bits []atomic.Uint64
	// room is for how many tokens there is a place: with more, too many share one.
	room int
}

// perToken is how many bits there are for each token, where there are as many tokens as there is room for. So one of
// sixteen tokens that are not on the list has to be looked for in it.
const perToken = 16

// newFilter makes an empty filter with room for at least so many tokens.
func newFilter(tokens int) *filter {
	room := 1 << 10
	for room < tokens {
		room *= 2
	}
	return &filter{make([]atomic.Uint64, room*perToken/64), room}
}

// place gives the word and the bit in it. A shard of the list is chosen by the first byte, so it is none of these.
func (f *filter) place(id token.ID) (*atomic.Uint64, uint64) {
	at := binary.LittleEndian.Uint64(id[len(id)-8:])
	return &f.bits[at/64%uint64(len(f.bits))], 1 << (at % 64)
}

func (f *filter) add(id token.ID) {
	word, bit := f.place(id)
	word.Or(bit)
}

// mayContain reports whether the token may have been added; where it says no, it was not.
func (f *filter) mayContain(id token.ID) bool {
	word, bit := f.place(id)
	return word.Load()&bit != 0
}
