package guard

import "slices"

// node is a node of a tree of patterns: each edge is a segment.
type node struct {
	// literals is keyed by segment, and wild is for any segment.
	literals map[string]*node
	wild     *node
	// ends are the entries whose pattern ends here, and rests those whose pattern matches zero or more further segments.
	ends, rests []*entry
	// effect is that of all entries at and below the node, or mixed. It is set by summarize.
	effect int
}

// mixed is the effect of a node whose entries differ.
const mixed = -1

// insert adds an entry under a pattern.
func (n *node) insert(p *pattern, e *entry) {
	for _, s := range p.segments {
		next := &n.wild
		if s.literal != "" {
			if n.literals == nil {
				n.literals = make(map[string]*node)
			}
			child := n.literals[s.literal]
			if child == nil {
				child = new(node)
				n.literals[s.literal] = child
			}
			next = &child
		} else if n.wild == nil {
			n.wild = new(node)
		}
		n = *next
	}
	if p.rest {
		n.rests = append(n.rests, e)
	} else {
		n.ends = append(n.ends, e)
	}
}

// lookup is a request that is looked up.
type lookup struct {
	// path is normal.
	method, path string
	// alike is alikePath of path, once an exception was compared with it.
	alike string
	// visits counts the nodes that were visited.
	visits int
}

// find returns an entry that matches the request, whose path continues with rest below the node, or nil.
func (n *node) find(rest string, l *lookup) *entry {
	l.visits++
	if rest == "" || rest == "/" {
		if e := first(n.ends, l); e != nil {
			return e
		}
		return first(n.rests, l)
	}
	segment, rest := cutSegment(rest)
	if child := n.literals[segment]; child != nil {
		if e := child.find(rest, l); e != nil {
			return e
		}
	}
	if n.wild != nil {
		if e := n.wild.find(rest, l); e != nil {
			return e
		}
	}
	return first(n.rests, l)
}

// first returns the first of the entries that applies to the request, or nil.
func first(entries []*entry, l *lookup) *entry {
	for _, e := range entries {
		if (e.methods == nil || slices.Contains(e.methods, l.method)) && !e.excepts(l) {
			return e
		}
	}
	return nil
}

// excepts reports whether the path is an exception of the entry, or like one.
func (e *entry) excepts(l *lookup) bool {
	if e.except == nil {
		return false
	}
	if l.alike == "" {
		l.alike = alikePath(l.path)
	}
	inner := lookup{path: l.alike}
	found := e.except.find(l.alike, &inner)
	l.visits += inner.visits
	return found != nil
}

// summarize sets the effect of the node and those below.
func (n *node) summarize() int {
	n.effect = mixed
	seen := false
	add := func(effect int) {
		if !seen {
			n.effect, seen = effect, true
		} else if n.effect != effect {
			n.effect = mixed
		}
	}
	for _, e := range n.ends {
		add(e.effect)
	}
	for _, e := range n.rests {
		add(e.effect)
	}
	for child := range n.children {
		add(child.summarize())
	}
	return n.effect
}

// children yields the nodes directly below.
func (n *node) children(yield func(*node) bool) {
	for _, child := range n.literals {
		if !yield(child) {
			return
		}
	}
	if n.wild != nil {
		yield(n.wild)
	}
}
