package oauth

import (
	"slices"
	"strings"
)

// Scope is one right that a token can carry (RFC 6749 §3.3), compared byte for byte.
type Scope struct{ name string }

// ParseScope makes a scope of s, which must be one scope-token: %x21 / %x23-5B / %x5D-7E, at most 128 of them.
func ParseScope(s string) (Scope, error) {
	if len(s) > maxScope {
		return Scope{}, Refuse(InvalidRequest, "A scope has more than 128 characters.")
	}
	if s == "" || !visible(s) || strings.ContainsAny(s, `"\`) {
		return Scope{}, Refuse(InvalidScope, "A scope is empty or has a character outside RFC 6749 section 3.3.")
	}
	return Scope{s}, nil
}

// String gives the scope as it stands on the wire.
func (s Scope) String() string { return s.name }

// Scopes is a set of scopes in the order in which they were asked for. The zero value is the empty set.
type Scopes []Scope

// ParseScopes reads scopes separated by spaces; blanks and repeats are dropped. A list of more than [MaxScopes], or of
// more bytes than so many scopes can have, and a scope that is too long are an [InvalidRequest]; a scope with characters
// that none has is an [InvalidScope].
func ParseScopes(s string) (Scopes, error) {
	if len(s) > MaxScopes*(maxScope+1) {
		return nil, tooManyScopes()
	}
	var scopes Scopes
	for field := range strings.SplitSeq(s, " ") {
		if field == "" {
			continue
		}
		scope, err := ParseScope(field)
		if err != nil {
			return nil, err
		}
		if scopes.Has(scope) {
			continue
		}
		if len(scopes) == MaxScopes {
			return nil, tooManyScopes()
		}
		scopes = append(scopes, scope)
	}
	return scopes, nil
}

func tooManyScopes() error { return Refuse(InvalidRequest, "scope has more than 64 scopes.") }

// Has reports whether scope is in the set.
func (s Scopes) Has(scope Scope) bool { return slices.Contains(s, scope) }

// HasAll reports whether every one of wanted is in the set.
func (s Scopes) HasAll(wanted Scopes) bool {
	return !slices.ContainsFunc(wanted, func(w Scope) bool { return !s.Has(w) })
}

// String gives the scopes as they stand on the wire, separated by single spaces.
func (s Scopes) String() string {
	if len(s) == 1 {
		return s[0].name
	}
	return strings.Join(s.Strings(), " ")
}

// Strings gives each scope as it stands on the wire.
func (s Scopes) Strings() []string {
	names := make([]string, len(s))
	for i, scope := range s {
		names[i] = scope.name
	}
	return names
}
