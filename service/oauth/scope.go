package oauth

import (
	"slices"
	"strings"
)

// Scope is a single scope of a token (RFC 6749 §3.3), compared byte for byte.
type Scope struct{ name string }

// ParseScope parses a single scope-token: 1 to 128 characters of %x21 / %x23-5B / %x5D-7E. The error is an
// [InvalidRequest] if s is too long, and an [InvalidScope] otherwise.
func ParseScope(s string) (Scope, error) {
	if len(s) > maxScope {
		return Scope{}, Refuse(InvalidRequest, "A scope has more than 128 characters.")
	}
	return ReadScope(s)
}

// ReadScope parses a single scope-token of a token, or of a rule about tokens, of any issuer. The limits of [ParseScope]
// are Grantor's own: other issuers have scopes that are URLs of more than 128 characters. The caller limits the size.
// The error is an [InvalidScope].
func ReadScope(s string) (Scope, error) {
	if s == "" || !visible(s) || strings.ContainsAny(s, `"\`) {
		return Scope{}, Refuse(InvalidScope, "A scope is empty or has a character outside RFC 6749 section 3.3.")
	}
	return Scope{s}, nil
}

// String returns the scope as it is sent.
func (s Scope) String() string { return s.name }

// Scopes is a set of scopes in the order in which they were requested. The zero value is the empty set.
type Scopes []Scope

// ParseScopes parses a space-separated list of scopes. It ignores extra spaces and duplicates. The error is an
// [InvalidRequest] if there are more than [MaxScopes] scopes or a scope is too long, and an [InvalidScope] if a scope
// contains an invalid character.
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

// ReadScopes parses the space-separated list of scopes in a token of any issuer, as [CollectScopes] does its names. It
// makes no slice of the names.
func ReadScopes(s string) (_ Scopes, err error) {
	scopes := make(Scopes, 0, strings.Count(s, " ")+1)
	for name := range strings.SplitSeq(s, " ") {
		if scopes, err = appendScope(scopes, name); err != nil {
			return nil, err
		}
	}
	return scopes.Unique(), nil
}

// CollectScopes returns the set of the names in a token of any issuer, without those that are empty. It has no limit on
// their number or length, as [ReadScope]. The error is an [InvalidScope].
func CollectScopes(names []string) (_ Scopes, err error) {
	scopes := make(Scopes, 0, len(names))
	for _, name := range names {
		if scopes, err = appendScope(scopes, name); err != nil {
			return nil, err
		}
	}
	return scopes.Unique(), nil
}

// appendScope appends the scope with the name, unless the name is empty.
func appendScope(scopes Scopes, name string) (Scopes, error) {
	if name == "" {
		return scopes, nil
	}
	scope, err := ReadScope(name)
	return append(scopes, scope), err
}

// Unique removes duplicates in place and returns the rest. It takes linear time for many scopes.
func (s Scopes) Unique() Scopes {
	var seen map[Scope]bool
	if len(s) > MaxScopes {
		seen = make(map[Scope]bool, len(s))
	}
	kept := s[:0]
	for _, scope := range s {
		if seen == nil {
			if !kept.Has(scope) {
				kept = append(kept, scope)
			}
		} else if !seen[scope] {
			seen[scope] = true
			kept = append(kept, scope)
		}
	}
	return kept
}

func tooManyScopes() error { return Refuse(InvalidRequest, "scope has more than 64 scopes.") }

// RefuseScope returns an [InvalidScope] whose text names a scope of the request. It is for a client that is authenticated,
// to which it shows what the client itself has sent: at most the 128 characters of a scope, where "?" stands for each that
// an error_description cannot have (RFC 6749 §5.2).
func RefuseScope(name string, problem Text) *Error {
	if len(name) > maxScope {
		name = name[:maxScope]
	}
	shown := []byte(name)
	for i, c := range shown {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			shown[i] = '?'
		}
	}
	return Refuse(InvalidScope, "The scope "+Text(shown)+" "+problem)
}

// Has reports whether the set contains scope.
func (s Scopes) Has(scope Scope) bool { return slices.Contains(s, scope) }

// HasAll reports whether the set contains all of required.
func (s Scopes) HasAll(required Scopes) bool {
	return !slices.ContainsFunc(required, func(scope Scope) bool { return !s.Has(scope) })
}

// String returns the scopes as they are sent, separated by single spaces.
func (s Scopes) String() string {
	if len(s) == 1 {
		return s[0].name
	}
	return strings.Join(s.Strings(), " ")
}

// Strings returns each scope as it is sent.
func (s Scopes) Strings() []string {
	names := make([]string, len(s))
	for i, scope := range s {
		names[i] = scope.name
	}
	return names
}
