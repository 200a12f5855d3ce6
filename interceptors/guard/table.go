package guard

import (
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/grantorhq/grantor/interceptors/verify"
)

// Route is a rule with the requests that it is for.
type Route struct {
	// Host is the host: "orders.example.com", "*.example.com" for one label or more before .example.com, or empty for any.
	Host string
	// Path is the template of the path.
	Path string
	// Methods are the methods, in upper case. GET also covers HEAD. None means any.
	Methods []string
	// Except are templates of paths to which the route does not apply.
	Except []string
	// Rule says which callers are admitted.
	Rule verify.Rule
	// Resource is the resource that the token must be for. If it is empty, any resource of the verifier suffices.
	Resource string
	// Source says where the route is written, such as "rules.yaml:12", for errors.
	Source string
}

// Table is a set of routes. It is immutable, and safe for concurrent use by multiple goroutines.
type Table struct{}

// NewTable returns a table of the routes. It is an error if two routes that a request could both match disagree.
func NewTable(routes []Route) (*Table, error) { return &Table{}, nil }

// Len returns the number of routes.
func (t *Table) Len() int { return 0 }

// Find returns the route of a request. The error is [ErrAmbiguous], or [verify.ErrNoRule] if no route matches.
func (t *Table) Find(method, host, path string) (*Route, error) { return nil, verify.ErrNoRule }

// DescriptorRoutes returns a route for each method of the set that has option (grantor.v1.rule), and the names of the methods
// that have none.
func DescriptorRoutes(set *descriptorpb.FileDescriptorSet) (routes []Route, unruled []string, err error) {
	return nil, nil, nil
}
