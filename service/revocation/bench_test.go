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

// BenchmarkRevoked asks a list of a million about a token that is not on it.
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
