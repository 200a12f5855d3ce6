package jws_test

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/must"
)

// TestJoinRS checks that R and S are at their places, whatever leading zeros they have, and that anything but a
// signature of the curve is rejected.
func TestJoinRS(t *testing.T) {
	der := func(numbers ...int64) []byte {
		var all []*big.Int
		for _, n := range numbers {
			all = append(all, big.NewInt(n))
		}
		return must.Get(asn1.Marshal(all))
	}
	got, err := jws.JoinRS(der(1, 0x80ff), 4)
	if want := []byte{0, 0, 0, 1, 0, 0, 0x80, 0xff}; err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	for name, wrong := range map[string][]byte{
		"too large": der(1<<32, 1), "negative": der(-1, 1), "one number": der(1), "nothing": nil, "no sequence": must.Get(asn1.Marshal(1)),
	} {
		if got, err := jws.JoinRS(wrong, 4); err == nil {
			t.Errorf("%s: got %x", name, got)
		}
	}
}
