package trust

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxPattern is the maximum size of a pattern, in bytes, and maxCapture that of the name of a capture.
	maxPattern = 512
	maxCapture = 32
	// maxCaptures is the maximum number of captures in a pattern.
	maxCaptures = 16
	// separators end a segment.
	separators = "/:"
)

// Pattern matches texts. It consists of segments, which are separated by / or :. A segment is matched by the same segment,
// byte for byte. The segment * is matched by every segment that is not empty, and so is the segment {name}, which captures
// what it matches under the name. There is nothing else: no segment is matched in part, and none matches a separator.
//
// Patterns are comparable. The zero value matches nothing.
type Pattern struct{ text string }

// ParsePattern parses a pattern.
func ParsePattern(text string) (Pattern, error) {
	switch {
	case text == "":
		return Pattern{}, errors.New("is empty")
	case len(text) > maxPattern:
		return Pattern{}, fmt.Errorf("has more than %d bytes", maxPattern)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return Pattern{}, errors.New("is not UTF-8 without control characters")
	}
	captures := 0
	for s, rest := cut(text); ; s, rest = cut(rest) {
		if err := s.check(); err != nil {
			return Pattern{}, err
		}
		if s.capture() != "" {
			captures++
		}
		if rest == "" {
			break
		}
	}
	if captures > maxCaptures {
		return Pattern{}, fmt.Errorf("has more than %d captures", maxCaptures)
	}
	return Pattern{text}, nil
}

// set reports whether the pattern is not the zero value.
func (p Pattern) set() bool { return p.text != "" }

// String returns the text of the pattern.
func (p Pattern) String() string { return p.text }

// MarshalText implements [encoding.TextMarshaler].
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Pattern) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePattern(string(text))
	return err
}

// segment is a part of a text up to the next separator, and the separator before it.
type segment struct {
	before, text string
}

// cut returns the first segment of a text, and what follows it: text that begins with a separator, or "" after the last
// segment. rest of a text is the text for the next call.
func cut(text string) (s segment, rest string) {
	if text != "" && strings.IndexByte(separators, text[0]) >= 0 {
		s.before, text = text[:1], text[1:]
	}
	end := strings.IndexAny(text, separators)
	if end < 0 {
		end = len(text)
	}
	s.text = text[:end]
	return s, text[end:]
}

// check returns what is wrong with a segment of a pattern.
func (s segment) check() error {
	name := s.capture()
	switch {
	case s.text == "*":
		return nil
	case name != "" && (len(name) > maxCapture || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != ""):
		return fmt.Errorf("the capture %.100q: its name is not of 1 to %d of a to z, 0 to 9 and _", s.text, maxCapture)
	case name == "" && strings.ContainsAny(s.text, "*{}"):
		return fmt.Errorf("the segment %.100q has one of *, { and }, which stand for a whole segment between two separators as * or {name}", s.text)
	}
	return nil
}

// capture returns the name of a segment that is a capture, and "" for other segments.
func (s segment) capture() string {
	if len(s.text) < 2 || s.text[0] != '{' || s.text[len(s.text)-1] != '}' {
		return ""
	}
	return s.text[1 : len(s.text)-1]
}

// open reports whether a segment of a pattern matches more than one text.
func (s segment) open() bool { return s.text == "*" || s.capture() != "" }

// Captures maps the names of captures to what they matched.
type Captures map[string]string

// Match reports whether the text matches the pattern, and adds what is captured. A name that captured another text before, in
// this pattern or an earlier one, does not match.
func (p Pattern) Match(text string, captures Captures) bool {
	if !p.set() {
		return false
	}
	wanted, given := p.text, text
	for {
		var want, got segment
		want, wanted = cut(wanted)
		got, given = cut(given)
		if want.before != got.before || !want.match(got.text, captures) || (wanted == "") != (given == "") {
			return false
		}
		if wanted == "" {
			return true
		}
	}
}

func (s segment) match(text string, captures Captures) bool {
	switch name := s.capture(); {
	case !s.open():
		return s.text == text
	case text == "":
		return false
	case name != "":
		if before, ok := captures[name]; ok {
			return before == text
		}
		captures[name] = text
	}
	return true
}

// Overlaps reports whether a text may match both patterns. It takes no account of captures that occur twice, so that it may
// report an overlap where there is none.
func (p Pattern) Overlaps(other Pattern) bool {
	if !p.set() || !other.set() {
		return false
	}
	left, right := p.text, other.text
	for {
		var a, b segment
		a, left = cut(left)
		b, right = cut(right)
		switch {
		case a.before != b.before || (left == "") != (right == ""):
			return false
		case a.open() && b.text == "" || b.open() && a.text == "":
			return false
		case !a.open() && !b.open() && a.text != b.text:
			return false
		case left == "":
			return true
		}
	}
}

// Names returns the names of the captures.
func (p Pattern) Names() []string {
	var names []string
	for s, rest := cut(p.text); ; s, rest = cut(rest) {
		if name := s.capture(); name != "" {
			names = append(names, name)
		}
		if rest == "" {
			return names
		}
	}
}

// Any reports whether the pattern has a segment * .
func (p Pattern) Any() bool {
	for s, rest := cut(p.text); ; s, rest = cut(rest) {
		if s.text == "*" {
			return true
		}
		if rest == "" {
			return false
		}
	}
}

// Bind returns the pattern with the given captures replaced by texts. A capture without a text stays.
func (p Pattern) Bind(captures Captures) Pattern {
	var text strings.Builder
	for s, rest := cut(p.text); ; s, rest = cut(rest) {
		text.WriteString(s.before)
		if value, ok := captures[s.capture()]; ok {
			text.WriteString(value)
		} else {
			text.WriteString(s.text)
		}
		if rest == "" {
			return Pattern{text.String()}
		}
	}
}
