package attach_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/interceptors/attach"
)

func warm(b *testing.B) *attach.Source {
	b.Helper()
	source := attach.NewSource(func(context.Context) (string, time.Duration, error) { return "1", time.Hour, nil }, 0)
	if _, err := source.Token(); err != nil {
		b.Fatal(err)
	}
	return source
}

func BenchmarkWarmToken(b *testing.B) {
	source := warm(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := source.TokenContext(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// What one call costs beyond the call itself.
func BenchmarkUnaryInterceptorWarm(b *testing.B) {
	conn, err := grpc.NewClient("localhost:1", plaintext)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	measured := warm(b)
	attach.Measure(measured, measure(b, .01).option)
	for name, source := range map[string]*attach.Source{"plain": warm(b), "measured": measured} {
		intercept := attach.UnaryInterceptor(source)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := intercept(b.Context(), "/orders/Get", nil, nil, conn, invoke); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUnaryInterceptorWarmParallel(b *testing.B) {
	intercept := attach.UnaryInterceptor(warm(b))
	conn, err := grpc.NewClient("localhost:1", plaintext)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			_ = intercept(context.Background(), "/orders/Get", nil, nil, conn, invoke)
		}
	})
}
