package jwks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

const (
	// MaxRegistered is the maximum size of a registered set, in bytes, and maxRegisteredKeys the maximum number of keys in
	// it.
	MaxRegistered     = 16 << 10
	maxRegisteredKeys = 8
)

// Document is a JWK Set as it is registered (RFC 7517 §5). The zero value has no key. It is immutable.
type Document struct {
	// text is the set as JSON, with the members that matter, sorted.
	text string
	set  *Set
}

// ParseDocument parses a JWK Set in which every key verifies signatures, unlike [Parse], which ignores the others: a key
// that would never be used is a mistake of whoever registers it. A key without "kid" gets its RFC 7638 thumbprint. The
// empty text is the zero value.
func ParseDocument(text string) (Document, error) {
	if text == "" {
		return Document{}, nil
	}
	if len(text) > MaxRegistered {
		return Document{}, fmt.Errorf("has more than %d bytes", MaxRegistered)
	}
	// A map, so that names are compared with their letter case, as [Parse] does.
	var members map[string]json.RawMessage
	var list []json.RawMessage
	if json.Unmarshal([]byte(text), &members) != nil || members["keys"] != nil && json.Unmarshal(members["keys"], &list) != nil {
		return Document{}, errors.New(`is not a JWK Set such as {"keys": [...]}`)
	}
	if n := len(list); n == 0 || n > maxRegisteredKeys {
		return Document{}, fmt.Errorf("has %d keys, want 1 to %d", n, maxRegisteredKeys)
	}
	var all []Key
	canonical := make([]JWK, len(list))
	for i, raw := range list {
		keys, published, err := parseDocumentKey(raw)
		if err != nil {
			return Document{}, fmt.Errorf("key %d %w", i+1, err)
		}
		for _, other := range all {
			if other.ID() == published.ID {
				return Document{}, fmt.Errorf("key %d has the kid of another one", i+1)
			}
		}
		all, canonical[i] = append(all, keys...), published
	}
	data, err := json.Marshal(map[string]any{"keys": canonical})
	if err == nil {
		data, err = sortMembers(data)
	}
	return Document{string(data), NewSet(all...)}, err
}

// NewDocument returns a set with the keys.
func NewDocument(keys ...Key) (Document, error) {
	published := make([]JWK, len(keys))
	for i, key := range keys {
		var err error
		if published[i], err = key.JWK(); err != nil {
			return Document{}, err
		}
	}
	text, err := json.Marshal(map[string]any{"keys": published})
	if err != nil {
		return Document{}, err
	}
	return ParseDocument(string(text))
}

// sortMembers sorts the members of an object and of the objects in it, so that the text of a set does not depend on which
// program encoded it.
func sortMembers(object []byte) ([]byte, error) {
	var members map[string]any
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, err
	}
	return json.Marshal(members)
}

// private are the members of a JWK with a private or symmetric key (RFC 7518 §6).
var private = [...]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// public are the members of a JWK that decide which signatures it verifies (RFC 7517 §4, RFC 7518 §6).
var public = [...]string{"kty", "use", "key_ops", "alg", "kid", "crv", "x", "y", "n", "e"}

// parseDocumentKey parses one key of a set. It returns the key once for each algorithm that it is used with, and in the
// form in which it is stored.
func parseDocumentKey(raw json.RawMessage) ([]Key, JWK, error) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return nil, JWK{}, errors.New("is not a JWK")
	}
	for _, name := range private {
		if _, ok := members[name]; ok {
			return nil, JWK{}, fmt.Errorf("has the member %q of a private key; register the public key alone, and replace this one", name)
		}
	}
	// encoding/json would take "Kty" for "kty", and what is stored would differ from what was checked.
	maps.DeleteFunc(members, func(name string, _ json.RawMessage) bool { return !slices.Contains(public[:], name) })
	raw, err := json.Marshal(members)
	if err != nil {
		return nil, JWK{}, err
	}
	var published JWK
	if err := json.Unmarshal(raw, &published); err != nil {
		return nil, JWK{}, errors.New("is not a JWK")
	}
	set, err := Parse(bytes.Join([][]byte{[]byte(`{"keys":[`), raw, []byte(`]}`)}, nil))
	if err != nil {
		return nil, JWK{}, errors.New("verifies no signature: want an EC key on P-256, P-384 or P-521, an RSA key of 2048 to 8192 bits, or an Ed25519 key, without a use other than sig")
	}
	keys := set.Keys()
	if published.ID == "" {
		published.ID = keys[0].Thumbprint()
		for i := range keys {
			keys[i] = keys[i].WithID(published.ID)
		}
	}
	return keys, published, nil
}

// String returns the set as JSON; the empty text for the zero value.
func (k Document) String() string { return k.text }

// Find returns the first key with the id, as [Set.Find] does. The id may also be the RFC 7638 thumbprint of the key,
// which is what a client sends that does not know under which id its key was registered.
func (k Document) Find(ctx context.Context, id string) (Key, error) {
	if k.set == nil {
		return Key{}, ErrUnknownKey
	}
	key, err := k.set.Find(ctx, id)
	if err == nil {
		return key, nil
	}
	for _, other := range k.set.Keys() {
		if other.Thumbprint() == id {
			return k.set.Find(ctx, other.ID())
		}
	}
	return Key{}, err
}

// FindThumbprint returns the first key with the RFC 7638 thumbprint, or [ErrUnknownKey].
func (k Document) FindThumbprint(thumbprint string) (Key, error) {
	return k.set.FindThumbprint(thumbprint)
}
