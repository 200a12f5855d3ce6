package clientauth

import (
	"runtime"

	"github.com/grantorhq/grantor/service/registry"
)

// Queued is how many requests may wait for a slow hash.
const Queued = queued

// SourceShare is how many of them may be of one source.
const SourceShare = sourceShare

// Parallel is how many slow hashes are computed at once.
func Parallel() int { return runtime.GOMAXPROCS(0) }

// Watch has f called for every comparison of a secret with a hash, before it.
func (a *Authenticator) Watch(f func(secret string)) {
	matches := a.secrets.matches
	a.secrets.matches = func(hash registry.Hash, secret string) bool {
		f(secret)
		return matches(hash, secret)
	}
}

// Pretend replaces the comparison with hashes.
func (a *Authenticator) Pretend(matches func(hash registry.Hash, secret string) bool) {
	a.secrets.matches = matches
}
