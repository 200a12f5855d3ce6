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

// BenchmarkUnary makes a call with a cached token. The floor is the call itself, which does nothing.
func BenchmarkUnary(b *testing.B) {
	conn, err := grpc.NewClient("localhost:1", plaintext)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	measured := warm(b)
	attach.Measure(measured, measure(b, .01).option)
	for _, test := range []struct {
		name string
		call func(context.Context) error
	}{
		{"warm/grantor", intercepted(warm(b), conn, invoke)},
		{"warm/floor", func(ctx context.Context) error { return invoke(ctx, "/orders/Get", nil, nil, conn) }},
		{"measured", intercepted(measured, conn, invoke)},
	} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := test.call(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func intercepted(source *attach.Source, conn *grpc.ClientConn, invoke grpc.UnaryInvoker) func(context.Context) error {
	intercept := attach.UnaryInterceptor(source)
	return func(ctx context.Context) error { return intercept(ctx, "/orders/Get", nil, nil, conn, invoke) }
}

func BenchmarkUnaryInterceptorWarmParallel(b *testing.B) {
	intercept := attach.UnaryInterceptor(warm(b))
	conn, err := grpc.NewClient("localhost:1", plaintext)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			_ = intercept(context.Background(), "/orders/Get", nil, nil, conn, invoke)
		}
	})
}
