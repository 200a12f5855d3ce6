package jwks

import (
	"context"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// MaxDocument is the maximum size of a JWK Set, in bytes.
const MaxDocument = 1 << 20

// ErrUnknownKey reports that no trusted key has the id.
var ErrUnknownKey = errors.New("no such key in the issuer's key set")

// Set is an immutable set of keys. It is safe for concurrent use by multiple goroutines.
type Set struct {
	// byID is keyed by "kid".
	byID map[string]Key
	list []Key
}

// NewSet returns a set of keys. Of several keys with the same id, it contains the first.
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

// Parse parses a JWK Set (RFC 7517 §5) of at most [MaxDocument] bytes. It ignores keys of unknown types, as §5
// requires, and also symmetric keys and keys for other uses. A document without a usable key is an error.
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
			if usable, ok := parseKey(k); ok {
				keys = append(keys, usable)
			}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no key that verifies tokens")
	}
	return NewSet(keys...), nil
}

// Keys returns the keys in the order in which they were given. The caller must not modify the slice.
func (s *Set) Keys() []Key { return s.list }

// Find returns the key with the id, or [ErrUnknownKey]. An empty id, from a token without "kid", matches the key of a
// set with exactly one. The context is not used.
func (s *Set) Find(_ context.Context, id string) (Key, error) {
	if k, ok := s.byID[id]; ok {
		return k, nil
	}
	if id == "" && len(s.list) == 1 {
		return s.list[0], nil
	}
	return Key{}, ErrUnknownKey
}

// Trusts reports whether the set contains k.
func (s *Set) Trusts(k Key) bool { return s.byID[k.id].Equal(k) }
