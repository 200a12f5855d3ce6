package revocation_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// BenchmarkLedgerMemory fills a ledger with a million revoked tokens.
func BenchmarkLedgerMemory(b *testing.B) {
	const total = 1_000_000
	for b.Loop() {
		before := heap()
		l := revocation.NewLedger()
		for i := range total {
			l.Append(revocation.Entry{
				Cursor: revocation.Cursor{Time: uint64(start.UnixMilli()), Sequence: uint64(i)},
				Change: tokenRevoked(token.NewID(), start.Add(time.Hour)),
			})
		}
		b.ReportMetric(float64(heap()-before)/total, "B/revocation")
		runtime.KeepAlive(l)
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// BenchmarkRevoked looks up a token that is not on a list of a million.
func BenchmarkRevoked(b *testing.B) {
	l := revocation.NewList()
	for range 1_000_000 {
		l.Apply(tokenRevoked(token.NewID(), start))
	}
	claims := newMint(b).claims(b, "a", token.NewID().String(), start)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if l.Revoked(claims) {
				b.Error("revoked")
			}
		}
	})
}

// BenchmarkApply applies revoked tokens as the follower of a verifier does, and BenchmarkAppend as that of a replica.
// The floor is the insertion of a key of 24 bytes into a map.
func BenchmarkApply(b *testing.B) {
	b.Run("grantor", func(b *testing.B) {
		var l *revocation.List
		revoke(b, func() { l = revocation.NewList() }, func(e *revocation.Entry) {
			if !l.Apply(e.Change) {
				b.Fatal("the token was known")
			}
		})
	})
	b.Run("floor", insert)
}

// BenchmarkAppend is described at BenchmarkApply.
func BenchmarkAppend(b *testing.B) {
	b.Run("grantor", func(b *testing.B) {
		var l *revocation.Ledger
		revoke(b, func() { l = revocation.NewLedger() }, func(e *revocation.Entry) { l.Append(*e) })
	})
	b.Run("floor", insert)
}

// revoke calls apply for one revoked token after another, and reset before each hundred thousand.
func revoke(b *testing.B, reset func(), apply func(e *revocation.Entry)) {
	b.Helper()
	entries := make([]revocation.Entry, 100_000)
	for i := range entries {
		entries[i] = revocation.Entry{
			Cursor: revocation.Cursor{Time: uint64(start.UnixMilli()), Sequence: uint64(i)},
			Change: tokenRevoked(token.NewID(), start.Add(time.Hour)),
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i %= len(entries); i == 0 {
			reset()
		}
		apply(&entries[i])
	}
}

// insert inserts the IDs into a map, in the form that they have in the feed.
func insert(b *testing.B) {
	var revoked map[[24]byte]struct{}
	revoke(b, func() { revoked = make(map[[24]byte]struct{}) }, func(e *revocation.Entry) {
		var key [24]byte
		copy(key[:], e.ID)
		revoked[key] = struct{}{}
	})
}
