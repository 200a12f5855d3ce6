package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// unaryInterceptor gives the guard as grpc runs it, taken out of a server: the call itself would cost a hundred times
// what is measured here.
func unaryInterceptor(b *testing.B, verifier *verify.Verifier) grpc.UnaryServerInterceptor {
	var found grpc.UnaryServerInterceptor
	take := &grpc.ServiceDesc{ServiceName: "test.v1.Take", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Take",
		Handler: func(_ any, _ context.Context, decode func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			found = i
			return &emptypb.Empty{}, decode(&emptypb.Empty{})
		},
	}}}
	server := verify.NewServer(verifier, verify.Policy{
		"/test.v1.Take/Take": verify.Public(), "/test.v1.Take/Read": verify.Scopes("orders.read"),
	})
	server.RegisterService(take, nil)
	conn := listen(b, unchecked{server})
	if err := conn.Invoke(context.Background(), "/test.v1.Take/Take", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		b.Fatal(err)
	}
	return found
}

// unchecked serves although the policy names a method that is not registered.
type unchecked struct{ *verify.Server }

func (u unchecked) Serve(l net.Listener) error { return u.Server.Server.Serve(l) }

func BenchmarkInterceptorSeen(b *testing.B) {
	signer := newSigner()
	verifier := newVerifier(signer)
	interceptor := unaryInterceptor(b, verifier)
	raw := must(signer.Sign(claims(testIssuer, "orders.read")))
	ctx := metadata.NewIncomingContext(context.Background(), metadata.MD{
		":authority": {"orders.internal"}, "content-type": {"application/grpc"}, "user-agent": {"grpc-go"},
		"authorization": {"Bearer " + raw},
	})
	info := &grpc.UnaryServerInfo{FullMethod: "/test.v1.Take/Read"}
	handler := func(context.Context, any) (any, error) { return nil, nil }

	b.Run("handler alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := handler(ctx, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("guarded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := interceptor(ctx, nil, info, handler); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("guarded and measured", func(b *testing.B) {
		measured := unaryInterceptor(b, newVerifier(signer, measure(b).option))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := measured(ctx, nil, info, handler); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("guarded, with a million revocations", func(b *testing.B) {
		denyMillion(verifier)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := interceptor(ctx, nil, info, handler); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hash alone", func(b *testing.B) {
		for b.Loop() {
			sha256.Sum256([]byte(raw))
		}
	})
}

// million is how many revocations a list must bear.
const million = 1_000_000

func denyMillion(verifier *verify.Verifier) {
	for range million {
		verify.Deny(verifier, revocation.Change{Kind: revocation.TokenRevoked, ID: token.NewID().String(), At: time.Now().Add(time.Hour)})
	}
}

// What a revocation takes in the memory of each verifier.
func BenchmarkRevocationMemory(b *testing.B) {
	verifier := newVerifier(newSigner())
	var before, after runtime.MemStats
	for b.Loop() {
		verifier = newVerifier(newSigner())
		runtime.GC()
		runtime.ReadMemStats(&before)
		denyMillion(verifier)
		runtime.GC()
		runtime.ReadMemStats(&after)
	}
	runtime.KeepAlive(verifier)
	each := float64(after.HeapAlloc-before.HeapAlloc) / million
	b.ReportMetric(each, "bytes/revocation")
	if each > 64 {
		b.Errorf("%.1f bytes for a revocation, want at most 64", each)
	}
}

func BenchmarkVerifyNew(b *testing.B) {
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	signer := must(token.NewSigner(jwks.ES256, private))
	raw := must(signer.Sign(claims(testIssuer, "orders.read")))
	verifier := token.Verifier{Issuer: testIssuer, Audience: []string{orders}, Keys: jwks.NewSet(signer.Public())}
	hash := sha256.Sum256([]byte(raw))
	r, s, err := ecdsa.Sign(rand.Reader, private, hash[:])
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ecdsa alone", func(b *testing.B) {
		for b.Loop() {
			if !ecdsa.Verify(&private.PublicKey, hash[:], r, s) {
				b.Fatal("wrong")
			}
		}
	})
	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := verifier.Verify(context.Background(), raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
