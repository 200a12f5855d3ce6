package revocation

import "github.com/grantorhq/grantor/service/token"

// MayHave reports whether the token is looked for in the list, Has whether it is found.
func (l *List) MayHave(id token.ID) bool { return l.filter.Load().mayContain(id) }

// Has reports what [List.Revoked] does of a token by its id.
func (l *List) Has(id token.ID) bool { return l.MayHave(id) && l.hasToken(id) }
