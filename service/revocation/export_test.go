package revocation

import "github.com/grantorhq/grantor/service/token"

// MayContain reports whether the filter has the token.
func (l *List) MayContain(id token.ID) bool { return l.filter.Load().mayContain(id) }

// Contains reports whether the list has the token, as [List.Revoked] determines it.
func (l *List) Contains(id token.ID) bool { return l.MayContain(id) && l.hasToken(id) }
