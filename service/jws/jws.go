// Package jws parses, signs and verifies JSON Web Signatures whose payload is a set of claims: the compact serialization
// of RFC 7515 with the rules of RFC 8725. What the claims must be is for the packages that use it: access tokens in
// package token, client assertions and proofs of possession elsewhere.
package jws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// Header contains the parameters of a JOSE header (RFC 7515 §4.1) that are of use. An empty string stands for an absent one.
type Header struct {
	Algorithm, KeyID, Type string
	// Key is the parameter "jwk", the public key of the signer. It is only set by [ParseWithKey].
	Key json.RawMessage
}

// MediaType returns a "typ" without the prefix application/, which may be left out (RFC 7515 §4.1.9).
func MediaType(typ string) string {
	if prefix := "application/"; len(typ) > len(prefix) && oauth.EqualFold(typ[:len(prefix)], prefix) {
		return typ[len(prefix):]
	}
	return typ
}

// foreign are the parameters that no header may have: no extension is supported (RFC 7515 §4.1.11), and no key is taken
// from where the message says (RFC 8725 §3.10).
var foreign = [...]string{"crit", "jku", "x5u"}

// ParseHeader parses an encoded header whose signature has not been verified yet. A header with "crit", "jku", "jwk" or
// "x5u" is an error.
func ParseHeader(encoded string) (Header, error) {
	h, err := parseHeader(encoded)
	if err == nil && h.Key != nil {
		return Header{}, errors.New("the header has jwk")
	}
	return h, err
}

func parseHeader(encoded string) (Header, error) {
	data, err := Decode(encoded)
	if err != nil {
		return Header{}, err
	}
	// A map, so that names are compared with their letter case, as in Claims.
	raw := parseObject(data)
	if raw == nil {
		return Header{}, errors.New("the header is not a JSON object")
	}
	for _, name := range foreign {
		if _, ok := raw[name]; ok {
			return Header{}, fmt.Errorf("the header has %s", name)
		}
	}
	h := Header{Key: raw["jwk"]}
	texts := [...]struct {
		name string
		to   *string
	}{{"alg", &h.Algorithm}, {"kid", &h.KeyID}, {"typ", &h.Type}}
	for _, field := range texts {
		if value, ok := raw[field.name]; ok && !String(value, field.to) {
			return Header{}, fmt.Errorf("%s in the header is not a string", field.name)
		}
	}
	return h, nil
}

// Message is a signed message in its parts. Until [Message.Verify] has succeeded, nothing in it can be trusted.
type Message struct {
	Header  Header
	Payload []byte

	signed    string
	signature []byte
}

// Parse parses a message in compact serialization. Its size must have been checked.
func Parse(raw string) (*Message, error) {
	m, err := ParseWithKey(raw)
	if err == nil && m.Header.Key != nil {
		return nil, errors.New("the header has jwk")
	}
	return m, err
}

// ParseWithKey is Parse for a message whose header may have "jwk".
func ParseWithKey(raw string) (*Message, error) {
	signed, signature64, ok := CutLast(raw)
	header64, payload64, ok2 := strings.Cut(signed, ".")
	if !ok || !ok2 {
		return nil, errors.New("not three parts")
	}
	header, err := parseHeader(header64)
	if err != nil {
		return nil, err
	}
	payload, err := Decode(payload64)
	if err != nil {
		return nil, err
	}
	signature, err := Decode(signature64)
	if err != nil {
		return nil, err
	}
	return &Message{header, payload, signed, signature}, nil
}

// Verify returns [ErrSignature] if the message is not signed with the key. The algorithm is that of the key, which must
// have been selected by that of the header ([jwks.Key.For]).
func (m *Message) Verify(key jwks.Key) error { return Verify(key, []byte(m.signed), m.signature) }

// Signed returns what is signed: the encoded header and payload. Unlike the whole message it is one for all its signatures, of
// which another can be made from one with some algorithms.
func (m *Message) Signed() string { return m.signed }

// Claims maps the names of claims to their JSON. It is a map because encoding/json would fill a struct's fields from names
// in any letter case: an issuer that lets its clients add a claim "AUD" must not let them replace "aud".
type Claims map[string]json.RawMessage

// ParseClaims parses a payload. The claims share memory with it.
func ParseClaims(payload []byte) (Claims, error) {
	c := parseObject(payload)
	if c == nil {
		return nil, errors.New("the payload is not a JSON object")
	}
	return c, nil
}

// Text returns a claim that is a string other than "".
func (c Claims) Text(name string) (string, error) {
	var text string
	if !String(c[name], &text) || text == "" {
		return "", fmt.Errorf("the claim %s is missing or not a string", name)
	}
	return text, nil
}

// Texts returns a claim that is a string or a list of strings, none of them empty; nil if it is anything else (RFC 7519
// §4.1.3).
func (c Claims) Texts(name string) []string {
	all := make([]string, 1)
	// A null in the list would decode as "".
	if (!String(c[name], &all[0]) && json.Unmarshal(c[name], &all) != nil) || slices.Contains(all, "") {
		return nil
	}
	return all
}

// Scalar returns a claim that is a string, a number or a boolean as text: a string as it is, the others as their JSON. ok is
// false for any other claim.
func (c Claims) Scalar(name string) (text string, ok bool) {
	raw := bytes.TrimSpace(c[name])
	if String(raw, &text) {
		return text, true
	}
	if len(raw) == 0 || strings.IndexByte(`{["n`, raw[0]) >= 0 {
		return "", false
	}
	return string(raw), true
}

// Time returns a claim that is a NumericDate (RFC 7519 §2): seconds since 1970, whose fraction, if any, is cut off.
func (c Claims) Time(name string) (time.Time, error) {
	const year9999 = 253402300799
	seconds, err := strconv.ParseInt(string(c[name]), 10, 64)
	if err != nil {
		float, floatErr := strconv.ParseFloat(string(c[name]), 64)
		if floatErr != nil || math.Abs(float) > year9999 {
			return time.Time{}, fmt.Errorf("the claim %s is missing or not a time", name)
		}
		seconds = int64(float)
	}
	if seconds < 0 || seconds > year9999 {
		return time.Time{}, fmt.Errorf("the claim %s is not between the years 1970 and 9999", name)
	}
	return time.Unix(seconds, 0), nil
}

// String parses a JSON string and nothing else: encoding/json alone would accept a null as "". raw must be valid JSON or
// empty.
func String(raw json.RawMessage, to *string) bool {
	if !bytes.HasPrefix(raw, []byte(`"`)) {
		return false
	}
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		*to = string(raw[1 : len(raw)-1]) // without a backslash, nothing is escaped
		return true
	}
	return json.Unmarshal(raw, to) == nil
}

var strict = base64.RawURLEncoding.Strict()

var errBase64 = errors.New("not base64url")

// Decode decodes base64url as RFC 7515 §2 requires it: without padding, stray bits, or the line breaks that
// encoding/base64 ignores. The empty text is an error.
func Decode(s string) ([]byte, error) {
	if s == "" || strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 {
		return nil, errBase64
	}
	data, err := strict.DecodeString(s)
	if err != nil {
		return nil, errBase64
	}
	return data, nil
}

// CutLast cuts s around its last dot.
func CutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
