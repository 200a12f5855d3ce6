package guard

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxComparisons bounds the work of comparing the routes with each other, to some seconds. Routes with literal first segments
// take a few each.
const maxComparisons = 4_000_000

// errComparisons reports that the routes would take too long to compare.
var errComparisons = errors.New("guard: too many routes overlap to compare them: begin their paths with different segments, or name their hosts")

// checkOverlaps returns an error that lists pairs of routes with different effects that a request could both match.
func (t *Table) checkOverlaps() error {
	t.any.summarize()
	for _, trees := range []map[string]*node{t.hosts, t.suffixes} {
		for _, tree := range trees {
			tree.summarize()
		}
	}
	c := comparison{remaining: maxComparisons}
	for _, e := range t.entries {
		c.entry, c.inner = e, nil
		for _, tree := range t.overlapping(e.host) {
			c.compare(tree, 0)
		}
		switch {
		case c.remaining <= 0:
			return errComparisons
		case c.inner != nil:
			if c.errs = append(c.errs, c.inner); len(c.errs) == maxErrors {
				return errors.Join(c.errs...)
			}
		}
	}
	return errors.Join(c.errs...)
}

// overlapping returns the trees of the hosts of routes that include all hosts of a route. The trees of narrower hosts are not
// among them: their routes are compared with this one.
func (t *Table) overlapping(host string) []*node {
	trees := []*node{&t.any}
	if host == "" {
		return trees
	}
	if suffix, ok := strings.CutPrefix(host, "*."); ok {
		trees = append(trees, t.suffixes[suffix])
		host = suffix
	} else {
		trees = append(trees, t.hosts[host])
	}
	for {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return trees
		}
		if tree := t.suffixes[parent]; tree != nil {
			trees = append(trees, tree)
		}
		host = parent
	}
}

// comparison compares an entry with others.
type comparison struct {
	entry     *entry
	remaining int
	// inner is the first error of the entry, and errs are those of the entries before.
	inner error
	errs  []error
}

// compare compares the entry, whose first i segments lead to the node, with the entries at and below the node.
func (c *comparison) compare(n *node, i int) {
	if c.remaining--; c.remaining <= 0 || c.inner != nil || n.effect == c.entry.effect {
		return
	}
	c.compareAll(n.rests)
	segments := c.entry.pattern.segments
	switch {
	case i < len(segments) && segments[i].literal != "":
		if child := n.literals[segments[i].literal]; child != nil {
			c.compare(child, i+1)
		}
		if n.wild != nil {
			c.compare(n.wild, i+1)
		}
	case i < len(segments) || c.entry.pattern.rest:
		if i >= len(segments) {
			c.compareAll(n.ends)
		}
		for child := range n.children {
			c.compare(child, i+1)
		}
	default:
		c.compareAll(n.ends)
	}
}

// compareAll compares the entry with others whose patterns have paths in common with its own.
func (c *comparison) compareAll(others []*entry) {
	for _, other := range others {
		if c.remaining--; c.remaining <= 0 || c.inner != nil {
			return
		}
		if other.effect == c.entry.effect || other.host == c.entry.host && other.index > c.entry.index {
			continue
		}
		method, ok := commonMethod(c.entry, other)
		if !ok {
			continue
		}
		if path, ok := c.commonPath(other); ok {
			c.inner = disagreement(other, c.entry, method+" "+commonOrigin(c.entry.host, other.host)+path)
		}
	}
}

// disagreement returns the error about two entries that an example of a request matches.
func disagreement(a, b *entry, example string) error {
	if a.index > b.index {
		a, b = b, a
	}
	describe := func(e *entry) string {
		if e.Resource == "" {
			return e.Rule.String()
		}
		return fmt.Sprintf("%s for %.200q", e.Rule, e.Resource)
	}
	return fmt.Errorf("%s and %s disagree about %s: %s, but %s", source(a.Route), source(b.Route), example, describe(a), describe(b))
}

// commonMethod returns a method that both entries match.
func commonMethod(a, b *entry) (string, bool) {
	switch {
	case a.methods == nil && b.methods == nil:
		return "GET", true
	case a.methods == nil:
		return b.methods[0], true
	case b.methods == nil:
		return a.methods[0], true
	}
	for _, method := range a.methods {
		if slices.Contains(b.methods, method) {
			return method, true
		}
	}
	return "", false
}

// commonOrigin returns the beginning of a URL with a host that the hosts of both routes include, of which a's is the narrower.
func commonOrigin(a, b string) string {
	host := cmp.Or(a, b)
	if host == "" {
		return ""
	}
	if suffix, ok := strings.CutPrefix(host, "*."); ok {
		host = "www." + suffix
	}
	return "https://" + host
}

// commonPath returns a path that both entries match, if there is one.
//
// A pattern that matches a path with fresh segments, which equal no literal of an exception, matches every path with as many
// segments that has other segments in their places. So a path that no exception matches can be found among those with fresh
// segments, if there is any. Beyond the number of segments of the longest exception, they are all alike.
func (c *comparison) commonPath(other *entry) (string, bool) {
	both := c.entry.pattern.intersect(other.pattern)
	if both == nil {
		return "", false
	}
	taken := make(map[string]bool)
	shortest := len(both.segments)
	longest := shortest
	for _, e := range []*entry{c.entry, other} {
		for _, exception := range e.exceptions {
			if both.rest {
				longest = max(longest, len(exception.segments)+1)
			}
			for _, s := range exception.segments {
				taken[s.literal] = true
			}
		}
	}
	c.remaining -= 10 + len(taken) // a comparison with a path takes about as long as ten without
	fresh := func(name string) string {
		for i := 1; ; i++ {
			candidate := name
			if i > 1 {
				candidate += strconv.Itoa(i)
			}
			if !taken[alike(candidate)] {
				return candidate
			}
		}
	}
	for n := shortest; n <= longest; n++ {
		l := lookup{path: both.path(n, fresh)}
		excepted := c.entry.excepts(&l) || other.excepts(&l)
		c.remaining -= l.visits
		if !excepted {
			return l.path, true
		}
	}
	return "", false
}
