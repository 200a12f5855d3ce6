package service_test

import (
	"io"
	"testing"
)

// BenchmarkIssueToken issues tokens through a whole replica, for many callers on one connection over loopback.
func BenchmarkIssueToken(b *testing.B) {
	c := newCluster(b)
	c.log = io.Discard // the audit events are written, as in production, but not kept
	r := c.start(b)
	r.apply(b, manifest())
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.issue(b.Context()); err != nil {
				b.Errorf("got %v", err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
