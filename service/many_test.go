package service_test

import (
	"fmt"
	"io"
	"runtime"
	"testing"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// BenchmarkManyClients applies clients through the API, lists them, and requests a token as each of them. Its metrics are
// the memory that each of the three adds: that of the first two must not grow with the number of clients; that of the
// third is the cache.
func BenchmarkManyClients(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				c := newCluster(b)
				c.log = io.Discard // the audit events would grow with the clients
				r := c.start(b)
				r.apply(b, withBoss(manifest()))
				ctx := r.adminContext(b)
				b.StartTimer()
				before := inUse()
				for at := 0; at < n; at += 500 {
					m := &grantorv1.ApplyManifestRequest{}
					for i := at; i < min(at+500, n); i++ {
						m.Clients = append(m.Clients, &grantorv1.WantedClient{ClientSecret: secret, Client: &grantorv1.Client{
							ClientId: fmt.Sprintf("client-%06d", i), GrantTypes: []string{oauth.GrantClientCredentials}, Scopes: []string{"api1"},
						}})
					}
					_, err := grantorv1.NewResourceServiceClient(r.conn).ApplyManifest(ctx, m)
					must.Succeed(b, err)
				}
				applied := inUse()
				listed := 0
				for token := ""; ; {
					page, err := grantorv1.NewClientServiceClient(r.conn).ListClients(ctx, &grantorv1.ListClientsRequest{PageSize: 1000, PageToken: token})
					must.Succeed(b, err)
					listed += len(page.GetClients())
					if token = page.GetNextPageToken(); token == "" {
						break
					}
				}
				if listed != n+3 {
					b.Fatalf("got %d clients, want %d", listed, n+3)
				}
				list := inUse()
				for i := range n {
					_, err := r.tokens.IssueToken(b.Context(), &grantorv1.IssueTokenRequest{
						GrantType: oauth.GrantClientCredentials, ClientId: fmt.Sprintf("client-%06d", i), ClientSecret: secret,
					})
					must.Succeed(b, err)
				}
				cached := inUse()
				b.ReportMetric(mega(before, applied), "MB-applied")
				b.ReportMetric(mega(applied, list), "MB-listed")
				b.ReportMetric(mega(list, cached), "MB-cached")
				r.stop()
			}
		})
	}
}

// inUse returns the size of the live heap, in bytes.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func mega(before, after uint64) float64 { return (float64(after) - float64(before)) / 1e6 }
