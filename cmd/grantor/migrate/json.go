package migrate

import (
	"encoding/json"
	"fmt"
	"sort"
)

// ends maps the offset of each list and object in a JSON text to the offset of its end. With it, a text is read once for
// all its levels: parts skips what is in a part, instead of reading it again at each level.
type ends []span

// span is the place of a list or an object, up to and without end.
type span struct{ start, end int32 }

// of returns the end of the list or object at start.
func (e ends) of(start int) int {
	i := sort.Search(len(e), func(i int) bool { return int(e[i].start) >= start })
	return int(e[i].end)
}

// indexed returns the value with the index of its JSON, which must be well-formed.
func (v value) indexed() (value, error) {
	var open []int // the places in the index of the lists and objects that have not ended
	v.start, v.ends = 0, nil
	for i := 0; i < len(v.raw); i++ {
		switch v.raw[i] {
		case '"':
			i = endOfString(v.raw, i) - 1
		case '[', '{':
			if len(open) == maxDepth {
				return v, v.at(i).errorf("lists and objects are nested more than %d levels deep", maxDepth)
			}
			open = append(open, len(v.ends))
			v.ends = append(v.ends, span{start: int32(i)})
		case ']', '}':
			v.ends[open[len(open)-1]].end = int32(i + 1)
			open = open[:len(open)-1]
		}
	}
	return v, nil
}

// endOfString returns the offset behind the string at start.
func endOfString(data []byte, start int) int {
	i := start + 1
	for data[i] != '"' {
		if data[i] == '\\' {
			i++
		}
		i++
	}
	return i + 1
}

// endOf returns the offset in v of the end of the value at start.
func (v value) endOf(start int) int {
	switch v.raw[start] {
	case '"':
		return endOfString(v.raw, start)
	case '[', '{':
		return v.ends.of(v.start+start) - v.start
	}
	for i := start; i < len(v.raw); i++ {
		switch v.raw[i] {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			return i
		}
	}
	return len(v.raw)
}

// next returns the offset of the next character from start that is neither white space nor one of the skipped.
func (v value) next(start int, skipped byte) int {
	for i := start; i < len(v.raw); i++ {
		switch c := v.raw[i]; c {
		case ' ', '\t', '\r', '\n', skipped:
		default:
			return i
		}
	}
	return len(v.raw)
}

// parts calls fn for each item of a list or each member of an object, which v must be.
func (v value) parts(fn func(part value) error) error {
	object := v.is('{')
	for i := v.next(0, 0) + 1; ; {
		i = v.next(i, ',')
		if v.raw[i] == ']' || v.raw[i] == '}' {
			return nil
		}
		part := v
		if object {
			end := endOfString(v.raw, i)
			if err := json.Unmarshal(v.raw[i:end], &part.name); err != nil {
				return fmt.Errorf("a name: %w", err)
			}
			i = v.next(end, ':')
		}
		end := v.endOf(i)
		part.raw, part.start = v.raw[i:end], v.start+i
		if err := fn(part.at(i)); err != nil {
			return err
		}
		i = end
	}
}
