package extauthz_test

import (
	"context"
	"syscall"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/guard/extauthz"
	"github.com/grantorhq/grantor/service/must"
)

// emptyServer answers every question alike.
type emptyServer struct {
	authv3.UnimplementedAuthorizationServer

	answer *authv3.CheckResponse
}

func (s *emptyServer) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.answer, nil
}

// BenchmarkCheck checks a token that was seen before: in process, and over gRPC on loopback beside a server that answers the same
// without looking. Goal: at least 0.85 as many answers per second as that server.
func BenchmarkCheck(b *testing.B) {
	question := order("Authorization: Bearer "+newToken("orders.read"), "Accept: */*", "X-Forwarded-For: 10.0.0.1", "X-Request-Start: 1").check(true)
	g := newGuard(b, newVerifier(), guard.Config{})
	server := extauthz.New(g)
	answer := must.Get(server.Check(b.Context(), question))
	if answer.GetOkResponse() == nil {
		b.Fatal(answer)
	}
	sent := &guard.Request{Wire: guard.ExtAuthz, Method: "GET", Scheme: "https", Host: "orders.example.com", Path: "/orders/1", Header: func(yield func(string, string) bool) {
		for _, h := range question.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if !yield(h.GetKey(), string(h.GetRawValue())) {
				return
			}
		}
	}}
	b.Run("decide", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if d := g.Decide(b.Context(), sent); d.Refusal != nil {
				b.Fatal(d.Refusal.Cause)
			}
		}
	})
	b.Run("in process", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := server.Check(b.Context(), question); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, s := range []struct {
		name   string
		server authv3.AuthorizationServer
	}{{"grpc/grantor", server}, {"grpc/floor", &emptyServer{answer: answer}}} {
		client := authv3.NewAuthorizationClient(connect(b, s.server))
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpu(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if answer, err := client.Check(b.Context(), question); err != nil || answer.GetOkResponse() == nil {
						b.Error(answer, err)
						return
					}
				}
			})
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpu returns the processor time of this process, client and server alike, in nanoseconds.
func cpu(b *testing.B) int64 {
	var usage syscall.Rusage
	must.Succeed(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}
