package revocation

import (
	"fmt"
	"strconv"
	"strings"
)

// String returns the cursor in the form of a Redis stream ID: its time, a hyphen, and its sequence, both in decimal.
func (c Cursor) String() string {
	return strconv.FormatUint(c.Time, 10) + "-" + strconv.FormatUint(c.Sequence, 10)
}

// ParseCursor parses what [Cursor.String] returns, and nothing else: no signs, spaces, leading zeros or trailing text.
func ParseCursor(text string) (Cursor, error) {
	before, after, ok := strings.Cut(text, "-")
	time, err1 := strconv.ParseUint(before, 10, 64)
	sequence, err2 := strconv.ParseUint(after, 10, 64)
	c := Cursor{Time: time, Sequence: sequence}
	if !ok || err1 != nil || err2 != nil || c.String() != text {
		return Cursor{}, fmt.Errorf("malformed cursor %.100q", text)
	}
	return c, nil
}
