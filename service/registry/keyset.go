package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/grantorhq/grantor/service/jwks"
)

const (
	// maxKeySet is the maximum size of a client's key set, in bytes, and maxKeys the maximum number of keys in it.
	maxKeySet = 16 << 10
	maxKeys   = 8
)

// KeySet holds the public keys of a client: a JWK Set (RFC 7517 §5). The zero value has no key. It is immutable.
type KeySet struct {
	// text is the set as JSON, with the members that matter in a fixed order.
	text string
	set  *jwks.Set
}

// ParseKeySet parses a JWK Set in which every key verifies signatures, unlike [jwks.Parse], which ignores the others: a key
// that would never be used is a mistake of whoever registers it. A key without "kid" gets its RFC 7638 thumbprint. The
// empty text is the zero value.
func ParseKeySet(text string) (KeySet, error) {
	if text == "" {
		return KeySet{}, nil
	}
	if len(text) > maxKeySet {
		return KeySet{}, fmt.Errorf("has more than %d bytes", maxKeySet)
	}
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		return KeySet{}, errors.New(`is not a JWK Set such as {"keys": [...]}`)
	}
	if n := len(document.Keys); n == 0 || n > maxKeys {
		return KeySet{}, fmt.Errorf("has %d keys, want 1 to %d", n, maxKeys)
	}
	var all []jwks.Key
	canonical := make([]jwks.JWK, len(document.Keys))
	for i, raw := range document.Keys {
		keys, published, err := parseClientKey(raw)
		if err != nil {
			return KeySet{}, fmt.Errorf("key %d %w", i+1, err)
		}
		for _, other := range all {
			if other.ID() == published.ID {
				return KeySet{}, fmt.Errorf("key %d has the kid of another one", i+1)
			}
		}
		all, canonical[i] = append(all, keys...), published
	}
	data, err := json.Marshal(map[string]any{"keys": canonical})
	return KeySet{string(data), jwks.NewSet(all...)}, err
}

// private are the members of a JWK with a private or symmetric key (RFC 7518 §6).
var private = [...]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// parseClientKey parses one key of a set. It returns the key once for each algorithm that it is used with, and in the form
// in which it is stored.
func parseClientKey(raw json.RawMessage) ([]jwks.Key, jwks.JWK, error) {
	var members map[string]json.RawMessage
	var published jwks.JWK
	if json.Unmarshal(raw, &members) != nil || json.Unmarshal(raw, &published) != nil {
		return nil, published, errors.New("is not a JWK")
	}
	for _, name := range private {
		if _, ok := members[name]; ok {
			return nil, published, fmt.Errorf("has the member %q of a private key; register the public key alone, and replace this one", name)
		}
	}
	set, err := jwks.Parse(bytes.Join([][]byte{[]byte(`{"keys":[`), raw, []byte(`]}`)}, nil))
	if err != nil {
		return nil, published, errors.New("verifies no signature: want an EC key on P-256, P-384 or P-521, an RSA key of 2048 to 8192 bits, or an Ed25519 key, without a use other than sig")
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
func (k KeySet) String() string { return k.text }

// Find returns the first key with the id, as [jwks.Set.Find] does. The id may also be the RFC 7638 thumbprint of the key,
// which is what a client sends that does not know under which id its key was registered.
func (k KeySet) Find(ctx context.Context, id string) (jwks.Key, error) {
	if k.set == nil {
		return jwks.Key{}, jwks.ErrUnknownKey
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
	return jwks.Key{}, err
}
