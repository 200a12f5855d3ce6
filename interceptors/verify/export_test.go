package verify

import (
	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/service/revocation"
)

// Deny puts a revocation in force, as the feed does.
func Deny(v *Verifier, change revocation.Change) bool {
	news := v.denied.Apply(change)
	v.streams.tell()
	return news
}

// StreamInterceptor gives the guard of streams as grpc runs it.
func StreamInterceptor(v *Verifier, policy Policy) grpc.StreamServerInterceptor {
	return newGuard(v, policy).stream
}

// Named is how many running streams can be renewed.
func Named(v *Verifier) int {
	v.streams.mu.Lock()
	defer v.streams.mu.Unlock()
	return len(v.streams.named)
}

// Open is how many streams run.
func Open(v *Verifier) int {
	v.streams.mu.Lock()
	defer v.streams.mu.Unlock()
	return len(v.streams.open)
}

// Lookups counts the tokens that were known, and those that were not.
func Lookups(v *Verifier) (hits, misses uint64) { return v.tokens.Lookups() }
