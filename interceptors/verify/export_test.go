package verify

import (
	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/service/revocation"
)

// Deny applies a revocation, as the feed does.
func Deny(v *Verifier, change revocation.Change) bool {
	added := v.denied.Apply(change)
	v.streams.recheck()
	return added
}

// StreamInterceptor returns the guard for streams as grpc runs it.
func StreamInterceptor(v *Verifier, policy Policy) grpc.StreamServerInterceptor {
	return newGuard(v, policy).stream
}

// Named returns the number of running streams that can be renewed.
func Named(v *Verifier) int {
	v.streams.mu.Lock()
	defer v.streams.mu.Unlock()
	return len(v.streams.byKey)
}

// Open returns the number of running streams.
func Open(v *Verifier) int {
	v.streams.mu.Lock()
	defer v.streams.mu.Unlock()
	return len(v.streams.open)
}

// Lookups returns the numbers of cache hits and misses.
func Lookups(v *Verifier) (hits, misses uint64) { return v.tokens.Lookups() }
