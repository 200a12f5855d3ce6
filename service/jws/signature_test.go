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

// TestSplitRS checks that the numbers are those of encoding/asn1, whatever leading zeros and signs they would have.
func TestSplitRS(t *testing.T) {
	type numbers struct{ R, S *big.Int }
	for _, size := range []int{32, 48, 66} {
		for _, first := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			for leading := range size + 1 {
				signature := bytes.Repeat([]byte{first}, 2*size)
				clear(signature[:leading])
				clear(signature[size+leading/2 : size+leading])
				want := must.Get(asn1.Marshal(numbers{new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])}))
				if got := jws.SplitRS(signature); !bytes.Equal(got, want) {
					t.Errorf("%x: got %x, want %x", signature, got, want)
				}
			}
		}
	}
}
