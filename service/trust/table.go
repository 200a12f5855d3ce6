package trust

import (
	"fmt"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

const (
	// maxIssuers and maxWorkloads are the maximum numbers of each in a table: every workload of an issuer is tried for
	// each of its identities.
	maxIssuers   = 100
	maxWorkloads = 1000
)

// Table has all trusted issuers and workloads. They are stored and changed as one, so that no identity can come to be two
// clients. A Table is immutable.
type Table struct {
	issuers   []Issuer
	workloads []Workload
	byID      map[string]*Issuer
	// selections has what each workload selects, and byIssuer those of the issuer with an ID.
	selections []*Selection
	byIssuer   map[string][]*Selection
	// version distinguishes this state of the table from every other one; zero means that nothing is stored.
	version uint64
}

// NewTable returns the table that a store keeps under version. It rejects a duplicate, a workload of an issuer that is
// not in the table, and two workloads that one identity or one client ID may match. The error is an [EntryError].
func NewTable(version uint64, issuers []Issuer, workloads []Workload) (*Table, error) {
	t := &Table{
		issuers: issuers, workloads: workloads, version: version,
		byID: make(map[string]*Issuer, len(issuers)), byIssuer: make(map[string][]*Selection),
	}
	for i := range issuers {
		if err := t.addIssuer(&issuers[i]); err != nil {
			return nil, &EntryError{KindIssuer, issuers[i].ID(), err}
		}
	}
	for i := range workloads {
		if err := t.addWorkload(&workloads[i]); err != nil {
			return nil, &EntryError{KindWorkload, workloads[i].ClientID.String(), err}
		}
	}
	return t, nil
}

func (t *Table) addIssuer(i *Issuer) error {
	if err := i.Check(); err != nil {
		return err
	}
	switch _, duplicate := t.byID[i.ID()]; {
	case duplicate:
		return &FieldError{"issuer", "is in the list twice"}
	case len(t.byID) == maxIssuers:
		return &FieldError{"issuer", fmt.Sprintf("there are more than %d trusted issuers", maxIssuers)}
	}
	t.byID[i.ID()] = i
	return nil
}

func (t *Table) addWorkload(w *Workload) error {
	if err := w.Check(); err != nil {
		return err
	}
	if len(t.selections) == maxWorkloads {
		return &FieldError{"client_id", fmt.Sprintf("there are more than %d workloads", maxWorkloads)}
	}
	id := w.Rule.IssuerID()
	if t.byID[id] == nil {
		return &FieldError{ruleField(&w.Rule), fmt.Sprintf("%s is not a trusted issuer", id)}
	}
	s := w.Selection()
	for _, earlier := range t.selections {
		if err := s.conflict(earlier); err != nil {
			return err
		}
	}
	t.selections, t.byIssuer[id] = append(t.selections, s), append(t.byIssuer[id], s)
	return nil
}

// IssuerID returns the ID of the issuer whose identities the rule selects.
func (r *Rule) IssuerID() string {
	if !r.SPIFFEID.set() {
		return r.Issuer
	}
	domain, _, _ := strings.Cut(strings.TrimPrefix(r.SPIFFEID.text, "spiffe://"), "/")
	return "spiffe://" + domain
}

// IssuerID returns the ID of the issuer that vouches for the identity.
func (i *Identity) IssuerID() string {
	return (&Rule{Issuer: i.Issuer, SPIFFEID: Pattern{i.SPIFFEID}}).IssuerID()
}

// Version distinguishes this state of the table from every other one; zero means that nothing is stored.
func (t *Table) Version() uint64 { return t.version }

// Issuers returns the trusted issuers in the order in which they were stored.
func (t *Table) Issuers() []Issuer { return t.issuers }

// Workloads returns the workloads in the order in which they were stored.
func (t *Table) Workloads() []Workload { return t.workloads }

// Issuer returns the trusted issuer with the ID ([Issuer.ID]).
func (t *Table) Issuer(id string) (*Issuer, bool) {
	i, ok := t.byID[id]
	return i, ok
}

// Match returns the workload whose rule selects the identity, and the ID of the client that the identity is.
func (t *Table) Match(id Identity) (*Workload, oauth.ClientID, bool) {
	for _, s := range t.byIssuer[id.IssuerID()] {
		if client, _, ok := s.match(id); ok {
			return s.Workload, client, true
		}
	}
	return nil, oauth.ClientID{}, false
}

// Workload returns the workload whose client has the ID.
func (t *Table) Workload(id oauth.ClientID) (*Workload, bool) {
	for _, s := range t.selections {
		if s.Includes(id) {
			return s.Workload, true
		}
	}
	return nil, false
}

// The kinds of entries.
const (
	KindIssuer   = "trusted_issuer"
	KindWorkload = "workload"
)

// EntryError reports which entry of a table is not valid, and why.
type EntryError struct {
	// Kind is one of the kinds of entries, and ID what identifies the entry: [Issuer.ID] or the pattern of a client ID.
	Kind, ID string
	// Err is a [FieldError].
	Err error
}

func (e *EntryError) Error() string {
	id := e.ID
	if strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) || len(id) > maxText {
		id = fmt.Sprintf("%.100q", id) // it is not valid, and may have line breaks
	}
	return fmt.Sprintf("%s %s: %v", e.Kind, id, e.Err)
}

// Unwrap returns the [FieldError].
func (e *EntryError) Unwrap() error { return e.Err }
