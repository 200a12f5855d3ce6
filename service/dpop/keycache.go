package dpop

import (
	"hash/maphash"
	"strings"
	"sync/atomic"

	"github.com/grantorhq/grantor/service/jwks"
)

// keyCache holds the keys of headers that were verified before: all proofs of a client have the same header, whose key is
// otherwise parsed, checked to be on its curve and hashed for its thumbprint each time. Of two headers with the same place,
// the later one stays, so that there is no order to maintain.
type keyCache struct {
	places [256]atomic.Pointer[parsedHeader]
}

// parsedHeader is a header in its encoded form and the key in it.
type parsedHeader struct {
	encoded string
	key     jwks.Key
}

// seed keeps callers from choosing headers with the same place.
var seed = maphash.MakeSeed()

func (c *keyCache) place(header string) *atomic.Pointer[parsedHeader] {
	return &c.places[maphash.String(seed, header)%uint64(len(c.places))]
}

func (c *keyCache) find(header string) (jwks.Key, bool) {
	if found := c.place(header).Load(); found != nil && found.encoded == header {
		return found.key, true
	}
	return jwks.Key{}, false
}

// add adds the key of a header that has signed a proof.
func (c *keyCache) add(header string, key jwks.Key) {
	c.place(header).Store(&parsedHeader{strings.Clone(header), key})
}
