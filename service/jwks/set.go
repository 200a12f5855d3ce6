package jwks

import (
	"context"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// MaxDocument bounds a key set that is read, in bytes.
const MaxDocument = 1 << 20

// ErrUnknownKey says that no trusted key has the id.
var ErrUnknownKey = errors.New("no such key in the issuer's key set")

// Set is a fixed set of keys. It does not change once made and may be used by several goroutines.
type Set struct {
	// byID has kid → key.
	byID map[string]Key
	list []Key
}

// NewSet makes a set. Of several keys with one id the first stays.
func NewSet(keys ...Key) *Set {
	set := &Set{byID: make(map[string]Key, len(keys))}
	for _, k := range keys {
		if _, twice := set.byID[k.id]; !twice {
			set.byID[k.id] = k
			set.list = append(set.list, k)
		}
	}
	return set
}

// Parse reads a JWK Set (RFC 7517 §5). Keys of unknown kinds, symmetric keys and keys for other uses are passed over,
// as §5 asks; a document without any usable key is an error.
func Parse(document []byte) (*Set, error) {
	if len(document) > MaxDocument {
		return nil, fmt.Errorf("a key set of %d bytes is too large", len(document))
	}
	raw, err := jwk.Parse(document, jwk.WithIgnoreParseError(true))
	if err != nil {
		return nil, fmt.Errorf("reading a key set: %w", err)
	}
	var keys []Key
	for i := range raw.Len() {
		if k, ok := raw.Key(i); ok {
			if usable, ok := key(k); ok {
				keys = append(keys, usable)
			}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no key that verifies tokens")
	}
	return NewSet(keys...), nil
}

// Keys gives the keys in the order in which they were given.
func (s *Set) Keys() []Key { return s.list }

// Find gives the key with the id, or [ErrUnknownKey]. An empty id, of a token without "kid", finds the key of a set
// that has just one.
func (s *Set) Find(_ context.Context, id string) (Key, error) {
	if k, ok := s.byID[id]; ok {
		return k, nil
	}
	if id == "" && len(s.list) == 1 {
		return s.list[0], nil
	}
	return Key{}, ErrUnknownKey
}

// Trusts reports whether k is in the set.
func (s *Set) Trusts(k Key) bool { return s.byID[k.id].Equal(k) }
