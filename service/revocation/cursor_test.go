package revocation_test

import (
	"math"
	"testing"

	"github.com/grantorhq/grantor/service/revocation"
)

func TestCursorString(t *testing.T) {
	for want, c := range map[string]revocation.Cursor{
		"0-0":             {},
		"1-0":             {Time: 1},
		"1800000000123-7": {Time: 1_800_000_000_123, Sequence: 7},
		"18446744073709551615-18446744073709551615": {Time: math.MaxUint64, Sequence: math.MaxUint64},
	} {
		if got := c.String(); got != want {
			t.Errorf("%v: got %q, want %q", [2]uint64{c.Time, c.Sequence}, got, want)
		}
		if got, err := revocation.ParseCursor(want); got != c || err != nil {
			t.Errorf("%q: got %v, %v", want, got, err)
		}
	}
}

func TestParseCursorRejects(t *testing.T) {
	for _, text := range []string{
		"", "x", "1", "-", "1-", "-1", "1-2-3", "1-2x", "1-2 ", " 1-2", "1 -2", "+1-2", "1-+2", "1--2", "01-2", "1-02", "1_0-2", "0x1-2",
		"1-18446744073709551616", "１-2", "1-2\x00",
	} {
		if got, err := revocation.ParseCursor(text); got != (revocation.Cursor{}) || err == nil {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

// FuzzParseCursor checks that a cursor has one text: whatever ParseCursor accepts, String returns unchanged.
func FuzzParseCursor(f *testing.F) {
	for _, seed := range []string{"0-0", "1-2", "1800000000123-7", "1-2x", "", "-", "18446744073709551615-0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := revocation.ParseCursor(text)
		if err == nil && c.String() != text {
			t.Errorf("%q was parsed as %s", text, c)
		}
		if err != nil && c != (revocation.Cursor{}) {
			t.Errorf("%q: got %s with the error %v", text, c, err)
		}
	})
}
