package jws_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/jws"
)

// FuzzParseClaims checks that the members of a payload are those that encoding/json returns.
func FuzzParseClaims(f *testing.F) {
	for _, payload := range []string{
		"", " ", "null", "[]", `"a"`, "1", "{}", " { } ", "{}x", "{", `{"a":1}`, `{"a":1,}`, `{"a":1 , "a" : 2}`, `{"A":1,"a":2}`,
		`{"a":{"b":[1,{"c":"}]"}]},"d":"\"}"}`, `{"a":[],"b":{},"c":null,"d":true,"e":-1.5e3}`, `{"\u0061":1,"a":2}`, `{"\ud800":1}`, "{\"\xff\":\"\xff\"}",
		`{"":""}`, "{\n\t\"a\"\r:\n1\n}\n", `{"a":01}`, `{"a":"` + "\x00" + `"}`, `{"a":"\\"}`, strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000),
		"\ufeff{}", `{"a":1}{"b":2}`, `{'a':1}`, `{a:1}`, `{"a":[1,2,"x"],"b":[[[]]]}`,
	} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var want map[string]json.RawMessage
		valid := json.Unmarshal(payload, &want) == nil && want != nil
		got, err := jws.ParseClaims(payload)
		if (err == nil) != valid {
			t.Fatalf("%q: got %v, want valid %v", payload, err, valid)
		}
		if valid && !maps.EqualFunc(want, got, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%q: got %q, want %q", payload, got, want)
		}
	})
}
