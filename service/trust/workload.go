package trust

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

// Workload makes clients of identities, without a registration of each: what the rule captures is in the client's ID.
type Workload struct {
	// ClientID is the pattern of the clients' IDs. It identifies the workload. Each of its captures is one of the rule's.
	ClientID Pattern
	Rule     Rule
	// Where restricts captures of the rule to the given texts.
	Where Captures
	// Scopes are the scopes that the clients may be granted, and DefaultScopes those of a request that names none, where
	// empty means all.
	Scopes, DefaultScopes oauth.Scopes
	// AccessTokenLifetime limits the lifetime of the clients' tokens; zero means no limit of their own.
	AccessTokenLifetime time.Duration
}

// ETag identifies the state of the workload, as [Issuer.ETag] does.
func (w *Workload) ETag() string {
	return etag(fmt.Appendf(nil, "%q %q %q %q %q %q %q %q %d", w.ClientID, w.Rule.Issuer, w.Rule.Subject, w.Rule.Claims, w.Rule.SPIFFEID,
		w.Where, w.Scopes, w.DefaultScopes, w.AccessTokenLifetime))
}

// Check returns what is wrong with the workload itself as a [FieldError]. Whether its scopes exist is for the caller to
// check.
func (w *Workload) Check() error {
	if err := w.Rule.Check(); err != nil {
		return err
	}
	captured := w.Rule.names()
	for name, text := range w.Where {
		switch {
		case !slices.Contains(captured, name):
			return &FieldError{"where", fmt.Sprintf("the rule captures no %q", name)}
		case text == "" || len(text) > maxPattern || strings.ContainsAny(text, separators+"*{}"):
			return &FieldError{"where", fmt.Sprintf("%s cannot be %.100q: a capture is a whole segment", name, text)}
		}
	}
	return fieldError("client_id", w.checkClientID(captured))
}

func (w *Workload) checkClientID(captured []string) error {
	switch {
	case !w.ClientID.set():
		return errors.New("is missing")
	case w.ClientID.Any():
		return errors.New("has a segment *, which captures nothing")
	}
	for _, name := range w.ClientID.Names() {
		if !slices.Contains(captured, name) {
			return fmt.Errorf("the rule captures no %q", name)
		}
	}
	// The captures stand for one byte at least, and are checked when there are any.
	fixed := make(Captures)
	for _, name := range w.ClientID.Names() {
		fixed[name] = "x"
	}
	if _, err := oauth.ParseClientID(w.ClientID.Bind(fixed).String()); err != nil {
		return errors.New("has a character that is not visible ASCII, or more than 255")
	}
	return nil
}

// Match returns the ID of the client that the identity is; ok is false if it is none of the workload's, and why then
// says what does not match, for an operator.
func (w *Workload) Match(id Identity) (_ oauth.ClientID, why string, ok bool) {
	return w.Selection().match(id)
}

// Selection is what a workload selects: the identities that match Rule are the clients whose IDs match IDs. Both have
// the captures that Where restricts replaced by their texts, which is done once for a table: its workloads are compared
// pair by pair.
type Selection struct {
	*Workload

	IDs Pattern
	// Rule hides that of the workload, which has the captures that are replaced here.
	Rule Rule
}

// Selection returns what the workload selects.
func (w *Workload) Selection() *Selection {
	return &Selection{w, w.ClientID.Bind(w.Where), w.Rule.bind(w.Where)}
}

// Includes reports whether the client with the ID is one of the workload's.
func (s *Selection) Includes(id oauth.ClientID) bool {
	return s.IDs.Match(id.String(), make(Captures))
}

// match implements [Workload.Match].
func (s *Selection) match(id Identity) (_ oauth.ClientID, why string, ok bool) {
	captures, why := s.Rule.Match(id)
	if why != "" {
		return oauth.ClientID{}, why, false
	}
	maps.Copy(captures, s.Where)
	client, err := oauth.ParseClientID(s.ClientID.Bind(captures).String())
	if err != nil {
		return oauth.ClientID{}, "what is captured makes no client ID of at most 255 visible ASCII characters", false
	}
	return client, "", true
}

// conflict returns why two workloads cannot stand beside each other, or nil.
func (s *Selection) conflict(other *Selection) error {
	switch {
	case s.Rule.Overlaps(&other.Rule):
		return &FieldError{ruleField(&s.Workload.Rule), fmt.Sprintf("an identity may match the workload %s too", other.ClientID)}
	case s.IDs.Overlaps(other.IDs):
		return &FieldError{"client_id", fmt.Sprintf("a client ID may be of the workload %s too", other.ClientID)}
	}
	return nil
}

// ruleField returns the field by which a rule selects foremost.
func ruleField(r *Rule) string {
	switch {
	case r.SPIFFEID.set():
		return "spiffe_id"
	case r.Subject.set():
		return "subject"
	}
	return "claims"
}
