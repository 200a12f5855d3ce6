package guard_test

import (
	"fmt"
	"testing"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
)

// manyRoutes returns the routes of a hundred hosts and a hundred services.
func manyRoutes() []guard.Route {
	var all []guard.Route
	for host := range 100 {
		for i := range 25 {
			all = append(all,
				guard.Route{Host: fmt.Sprintf("h%d.example.com", host), Path: fmt.Sprintf("/v1/things%d/{id}", i), Methods: []string{"GET"}, Rule: verify.Scopes("read")},
				guard.Route{Host: fmt.Sprintf("h%d.example.com", host), Path: fmt.Sprintf("/v1/things%d/{id}/parts/{part...}", i), Rule: verify.Scopes("parts")},
				guard.Route{Path: fmt.Sprintf("/example.v1.Service%d/Method%d", host, i), Methods: []string{"POST"}, Rule: verify.Scopes("call")},
				guard.Route{Host: fmt.Sprintf("*.h%d.example.com", host), Path: fmt.Sprintf("/files%d/{name...}", i), Except: []string{fmt.Sprintf("/files%d/secret/{rest...}", i)}, Rule: verify.Scopes("files")},
			)
		}
	}
	return all
}

// BenchmarkFind finds the routes of requests among 10,000. Goal: well under 1 µs.
func BenchmarkFind(b *testing.B) {
	table := must.Get(guard.NewTable(manyRoutes()))
	for _, request := range []struct{ name, method, host, path string }{
		{"rest", "GET", "h73.example.com", "/v1/things7/12345?expand=parts"},
		{"grpc", "POST", "services.internal:50051", "/example.v1.Service42/Method7"},
		{"suffix", "GET", "a.b.h1.example.com", "/files3/2026/11/30/report.pdf"},
		{"escaped", "GET", "h73.example.com", "/v1/things7/a%40example.com"},
	} {
		b.Run(request.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := table.Find(request.method, request.host, request.path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNewTable compiles 10,000 routes.
func BenchmarkNewTable(b *testing.B) {
	all := manyRoutes()
	b.ReportAllocs()
	for b.Loop() {
		must.Get(guard.NewTable(all))
	}
}
