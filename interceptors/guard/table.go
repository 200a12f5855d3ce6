package guard

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/oauth"
)

// Bounds of a table. The last two bound its memory, whatever the routes are: 1,000,000 segments take some 150 MB.
const (
	maxRoutes        = 100_000
	maxMethods       = 32
	maxExcept        = 1000
	maxTableSegments = 1_000_000
)

// Route is a rule with the requests that it is for.
type Route struct {
	// Host is the host: "orders.example.com", "*.example.com" for one label or more before .example.com, or empty for any
	// host.
	Host string
	// Path is the template of the path: in /orders/{id}, {id} is exactly one segment; in /files/{name...}, {name...} is zero or
	// more segments, and the last of the template. Everything else is compared byte for byte, after the normalization that the
	// package comment states.
	Path string
	// Methods are the methods, in upper case. GET also covers HEAD. None means any.
	Methods []string
	// Except are templates of paths to which the route does not apply. Neither does it apply to paths that differ from these only
	// in letter case, spaces around a segment and dots at its end, because some servers take them for the same.
	Except []string
	// Rule says which callers are admitted.
	Rule verify.Rule
	// Resource is the resource that the token must be for. If it is empty, any resource of the verifier suffices.
	Resource string
	// Source says where the route is written, such as "rules.yaml:12", for errors.
	Source string
}

// Table is a set of routes. It is immutable, and safe for concurrent use by multiple goroutines.
type Table struct {
	entries []*entry
	// any has the routes for any host. hosts is keyed by host, and suffixes by what follows "*.".
	any             node
	hosts, suffixes map[string]*node
	// maxLabels is the maximum number of labels of a key of suffixes.
	maxLabels int
}

// entry is a compiled route.
type entry struct {
	*Route

	index   int
	host    string
	pattern *pattern
	// methods is nil for any, and has HEAD if it has GET.
	methods []string
	// except has the paths to which the route does not apply, and is nil if there are none. exceptions are its patterns. Their
	// literals are those of function alike.
	except     *node
	exceptions []*pattern
	// effect is equal for entries that admit the same callers.
	effect int
}

// NewTable returns a table of the routes. No order is significant: if a request could match two routes, they must have the
// same rule and resource, or else NewTable returns an error that names both and such a request. It copies the routes.
func NewTable(routes []Route) (*Table, error) {
	if len(routes) > maxRoutes {
		return nil, fmt.Errorf("guard: more than %d routes", maxRoutes)
	}
	t := &Table{hosts: make(map[string]*node), suffixes: make(map[string]*node)}
	effects := make(map[[2]string]int)
	segments := 0
	var errs []error
	for i, route := range routes {
		e, err := compile(route)
		if err != nil {
			if errs = append(errs, fmt.Errorf("%s: %w", source(&route), err)); len(errs) == maxErrors {
				break
			}
			continue
		}
		effect := [2]string{route.Rule.String(), route.Resource}
		if _, ok := effects[effect]; !ok {
			effects[effect] = len(effects)
		}
		e.index, e.effect = i, effects[effect]
		t.entries = append(t.entries, e)
		segments += e.size()
		if segments > maxTableSegments {
			return nil, fmt.Errorf("guard: the paths of all routes have more than %d segments", maxTableSegments)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for _, e := range t.entries {
		t.tree(e.host).insert(e.pattern, e)
	}
	if err := t.checkOverlaps(); err != nil {
		return nil, err
	}
	return t, nil
}

// maxErrors is the number of mistakes that an error lists.
const maxErrors = 10

// source returns where the route is written.
func source(r *Route) string {
	if r.Source == "" {
		return fmt.Sprintf("the route of %.200q", r.Path)
	}
	return r.Source
}

// compile checks a route.
func compile(route Route) (*entry, error) {
	route.Methods, route.Except = slices.Clone(route.Methods), slices.Clone(route.Except)
	e := &entry{Route: &route}
	if err := route.Rule.Err(); err != nil {
		return nil, err
	}
	if len(route.Methods) > maxMethods || len(route.Except) > maxExcept {
		return nil, fmt.Errorf("more than %d methods or %d exceptions", maxMethods, maxExcept)
	}
	if route.Resource != "" {
		if _, err := oauth.ParseResource(route.Resource); err != nil {
			return nil, fmt.Errorf("the resource %.200q: %w", oauth.RedactURL(route.Resource), err)
		}
	}
	var err error
	if e.host, err = parseHost(route.Host); err != nil {
		return nil, err
	}
	if e.pattern, err = parsePattern(route.Path); err != nil {
		return nil, fmt.Errorf("%.200q: %w", route.Path, err)
	}
	for _, method := range route.Methods {
		if checkMethod(method) != nil || method != strings.ToUpper(method) {
			return nil, fmt.Errorf("%.200q is no method in upper case", method)
		}
		e.methods = append(e.methods, method)
	}
	if slices.Contains(e.methods, "GET") && !slices.Contains(e.methods, "HEAD") {
		e.methods = append(e.methods, "HEAD")
	}
	return e, e.compileExceptions()
}

// compileExceptions checks the exceptions.
func (e *entry) compileExceptions() error {
	for _, template := range e.Except {
		exception, err := parsePattern(template)
		if err != nil {
			return fmt.Errorf("the exception %.200q: %w", template, err)
		}
		if e.except == nil {
			e.except = new(node)
		}
		if e.pattern.intersect(exception) == nil {
			return fmt.Errorf("the exception %.200q is no path of %.200q", template, e.Path)
		}
		for i, s := range exception.segments {
			if s.literal != "" {
				exception.segments[i].literal = alike(s.literal)
			}
		}
		e.except.insert(exception, &entry{})
		e.exceptions = append(e.exceptions, exception)
	}
	return nil
}

// parseHost returns the host of a route in the form in which hosts are compared; that of a suffix begins with "*.".
func parseHost(host string) (string, error) {
	if host == "" {
		return "", nil
	}
	name, isSuffix := strings.CutPrefix(host, "*.")
	normal, err := normalizeHost(name)
	if err != nil || hasPort(name) {
		return "", fmt.Errorf("%.200q is no host: write a name without a port, or *. before one", host)
	}
	if isSuffix {
		if strings.HasPrefix(normal, "[") {
			return "", fmt.Errorf("%.200q is no host: an address has no labels", host)
		}
		return "*." + normal, nil
	}
	return normal, nil
}

// hasPort reports whether a valid host has a port.
func hasPort(host string) bool {
	return strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']')
}

// size returns the number of nodes that the entry takes, at most.
func (e *entry) size() int {
	size := e.pattern.size()
	for _, exception := range e.exceptions {
		size += exception.size()
	}
	return size
}

// tree returns the tree of the routes for a host of a route, and makes it if there is none.
func (t *Table) tree(host string) *node {
	if host == "" {
		return &t.any
	}
	trees := t.hosts
	if suffix, ok := strings.CutPrefix(host, "*."); ok {
		host, trees = suffix, t.suffixes
		t.maxLabels = max(t.maxLabels, strings.Count(suffix, ".")+1)
	}
	if trees[host] == nil {
		trees[host] = new(node)
	}
	return trees[host]
}

// Len returns the number of routes.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	return len(t.entries)
}

// Find returns the route of a request, which must not be changed. The path may have a query. If several routes match, they
// admit the same callers. The error wraps [ErrAmbiguous], or is [verify.ErrNoRule] if no route matches.
func (t *Table) Find(method, host, path string) (*Route, error) {
	if err := checkMethod(method); err != nil {
		return nil, err
	}
	host, err := normalizeHost(host)
	if err != nil {
		return nil, err
	}
	normal, err := normalizePath(path)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, verify.ErrNoRule
	}
	found := t.find(host, &lookup{method: method, path: normal.path})
	for other := range normal.readings {
		e := t.find(host, &lookup{method: method, path: other})
		if (found == nil) != (e == nil) || found != nil && found.effect != e.effect {
			return nil, errPathReadings
		}
	}
	if found == nil {
		return nil, verify.ErrNoRule
	}
	return found.Route, nil
}

// find returns an entry of the request, or nil.
func (t *Table) find(host string, l *lookup) *entry {
	if tree := t.hosts[host]; tree != nil {
		if e := tree.find(l.path, l); e != nil {
			return e
		}
	}
	end := len(host)
	for range t.maxLabels {
		dot := strings.LastIndexByte(host[:end], '.')
		if dot <= 0 {
			break
		}
		if tree := t.suffixes[host[dot+1:]]; tree != nil {
			if e := tree.find(l.path, l); e != nil {
				return e
			}
		}
		end = dot
	}
	return t.any.find(l.path, l)
}
