package guard

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of a template.
const (
	maxTemplate = 1024
	maxSegments = 32
)

// pattern is a parsed template of paths.
type pattern struct {
	segments []segment
	// rest is true if zero or more segments may follow.
	rest bool
	// restName is the name of the rest.
	restName string
}

// segment is a segment of a template.
type segment struct {
	// literal is the segment in the form in which paths are compared. It is empty if any segment matches.
	literal string
	// name is the name between braces of one that any segment matches.
	name string
}

// parsePattern parses a template of paths:
//
//	template = "/" / 1*( "/" segment ) [ "/" ] / *( "/" segment ) "/{" name "...}"
//	segment  = "{" name "}" / literal
func parsePattern(template string) (*pattern, error) {
	if len(template) > maxTemplate {
		return nil, fmt.Errorf("the path has more than %d bytes", maxTemplate)
	}
	normal, err := normalizeTemplate(template)
	if err != nil {
		return nil, err
	}
	p := new(pattern)
	names := make(map[string]bool)
	for rest := strings.TrimPrefix(normal, "/"); rest != ""; {
		var text string
		text, rest, _ = strings.Cut(rest, "/")
		if p.rest {
			return nil, fmt.Errorf("{%s...} is not the last segment", p.restName)
		}
		if len(p.segments) == maxSegments {
			return nil, fmt.Errorf("the path has more than %d segments", maxSegments)
		}
		name, isName, err := parseName(text)
		switch {
		case err != nil:
			return nil, err
		case !isName:
			p.segments = append(p.segments, segment{literal: text})
			continue
		}
		name, p.rest = strings.CutSuffix(name, "...")
		if names[name] {
			return nil, fmt.Errorf("two segments have the name %s", name)
		}
		names[name] = true
		if p.rest {
			p.restName = name
		} else {
			p.segments = append(p.segments, segment{name: name})
		}
	}
	return p, nil
}

// normalizeTemplate returns a template in the form in which paths are compared.
func normalizeTemplate(template string) (string, error) {
	if strings.Contains(template, "?") {
		return "", errors.New("the path has a query")
	}
	normal, err := normalizePath(template)
	switch {
	case err != nil:
		return "", err
	case normal.reserved:
		// A request's path is compared without its escapes too.
		return "", errors.New("the path has an escape of an ASCII character: write the character itself")
	}
	return normal.path, nil
}

// parseName returns the name of a segment between braces, with its dots if it is the rest of the path.
func parseName(text string) (name string, isName bool, err error) {
	if !strings.ContainsAny(text, "{}") {
		return "", false, nil
	}
	name, opened := strings.CutPrefix(text, "{")
	name, closed := strings.CutSuffix(name, "}")
	letters := strings.TrimSuffix(name, "...")
	isLetter := func(c byte) bool { return alphanumeric(c) || c == '_' }
	if !opened || !closed || letters == "" || '0' <= letters[0] && letters[0] <= '9' ||
		slices.ContainsFunc([]byte(letters), func(c byte) bool { return !isLetter(c) }) {
		return "", false, fmt.Errorf("the segment %.200q is neither text nor {name}, nor {name...} for the rest of the path", text)
	}
	return name, true, nil
}

// size returns the number of nodes that the pattern adds to a tree, at most.
func (p *pattern) size() int { return 1 + len(p.segments) }

// intersect returns a pattern of the paths that match both p and q, or nil if there are none.
func (p *pattern) intersect(q *pattern) *pattern {
	if len(p.segments) < len(q.segments) {
		p, q = q, p
	}
	if len(q.segments) < len(p.segments) && !q.rest {
		return nil
	}
	both := &pattern{segments: slices.Clone(p.segments), rest: p.rest && q.rest, restName: p.restName}
	for i, s := range q.segments {
		switch mine := both.segments[i].literal; {
		case s.literal == "" || mine == s.literal:
		case mine == "":
			both.segments[i] = s
		default:
			return nil
		}
	}
	return both
}

// path returns a path that the pattern matches: with n segments, at least as many as the pattern has, and with fresh
// segments, that is ones which equal no other literal, where any segment matches.
func (p *pattern) path(n int, fresh func(name string) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteByte('/')
		switch {
		case i >= len(p.segments):
			b.WriteString(fresh(p.restName))
		case p.segments[i].literal == "":
			b.WriteString(fresh(p.segments[i].name))
		default:
			b.WriteString(p.segments[i].literal)
		}
	}
	if n == 0 {
		return "/"
	}
	return b.String()
}
