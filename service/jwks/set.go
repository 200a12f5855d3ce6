package jwks

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// MaxDocument is the maximum size of a JWK Set, in bytes.
const MaxDocument = 1 << 20

// ErrUnknownKey reports that no trusted key has the id.
var ErrUnknownKey = errors.New("no such key in the key set")

// Set is an immutable set of keys. It is safe for concurrent use by multiple goroutines. A nil Set has no keys.
type Set struct {
	// byID maps a "kid" to the first key that has it; the others are linked by Key.next.
	byID map[string]*Key
	list []Key
}

// NewSet returns a set of keys. Of several keys with the same id and algorithm, it contains the first.
func NewSet(keys ...Key) *Set {
	set := &Set{byID: make(map[string]*Key, len(keys))}
	for _, k := range keys {
		set.add(k)
	}
	return set
}

// add adds a key unless the set has one with the same id and algorithm.
func (s *Set) add(k Key) {
	k.next = nil
	end := s.byID[k.id]
	for other := end; other != nil; end, other = other, other.next {
		if other.algorithm == k.algorithm {
			return
		}
	}
	if end == nil {
		s.byID[k.id] = &k
	} else {
		end.next = &k
	}
	s.list = append(s.list, k)
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
	// A key that names its algorithm comes before those that name none: of two with the same id, it is the one that is
	// meant.
	var named, unnamed []Key
	for i := range raw.Len() {
		k, ok := raw.Key(i)
		switch {
		case !ok:
		case k.Algorithm().String() == "":
			unnamed = append(unnamed, parseKey(k)...)
		default:
			named = append(named, parseKey(k)...)
		}
	}
	if len(named)+len(unnamed) == 0 {
		return nil, errors.New("the key set has no key that verifies tokens")
	}
	return NewSet(append(named, unnamed...)...), nil
}

// Keys returns the keys, first those that name their algorithm. A published key that names none occurs once for each
// algorithm that its type allows. The caller must not modify the slice.
func (s *Set) Keys() []Key {
	if s == nil {
		return nil
	}
	return s.list
}

// Find returns the first key with the id, or [ErrUnknownKey]; [Key.For] returns those with the same id and another
// algorithm. An empty id, from a token without "kid", matches the key of a set with exactly one. The context is not
// used.
func (s *Set) Find(_ context.Context, id string) (Key, error) {
	if s == nil {
		return Key{}, ErrUnknownKey
	}
	if k, ok := s.byID[id]; ok {
		return *k, nil
	}
	if id == "" && s.single() {
		return *s.byID[s.list[0].id], nil
	}
	return Key{}, ErrUnknownKey
}

// FindThumbprint returns the first key with the RFC 7638 thumbprint, or [ErrUnknownKey].
func (s *Set) FindThumbprint(thumbprint string) (Key, error) {
	for _, k := range s.Keys() {
		if k.Thumbprint() == thumbprint {
			return k, nil
		}
	}
	return Key{}, ErrUnknownKey
}

// single reports whether all keys of the set are the same public key with the same id.
func (s *Set) single() bool {
	return len(s.list) > 0 && len(s.byID) == 1 && !slices.ContainsFunc(s.list, func(k Key) bool {
		return k.thumbprint != s.list[0].thumbprint
	})
}

// Trusts reports whether the set contains k.
func (s *Set) Trusts(k Key) bool {
	if s == nil {
		return false
	}
	for own := s.byID[k.id]; own != nil; own = own.next {
		if own.Equal(k) {
			return true
		}
	}
	return false
}
