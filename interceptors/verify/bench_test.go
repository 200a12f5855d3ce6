package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
)

// unaryInterceptor returns the guard as grpc runs it, taken out of a server: the call itself would cost a hundred times
// as much as the guard.
func unaryInterceptor(b *testing.B, verifier *verify.Verifier) grpc.UnaryServerInterceptor {
	var guard grpc.UnaryServerInterceptor
	probe := &grpc.ServiceDesc{ServiceName: "test.v1.Take", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Take",
		Handler: func(_ any, _ context.Context, decode func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			guard = i
			return &emptypb.Empty{}, decode(&emptypb.Empty{})
		},
	}}}
	server := verify.NewServer(verifier, verify.Policy{
		"/test.v1.Take/Take": verify.Public(), "/test.v1.Take/Read": verify.Scopes("orders.read"),
	})
	server.RegisterService(probe, nil)
	conn := listen(b, uncheckedServer{server})
	if err := conn.Invoke(context.Background(), "/test.v1.Take/Take", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		b.Fatal(err)
	}
	return guard
}

// uncheckedServer serves although the policy names a method that is not registered.
type uncheckedServer struct{ *verify.Server }

func (u uncheckedServer) Serve(l net.Listener) error { return u.Server.Server.Serve(l) }

// guardedMethod is the method that the benchmarks call.
var guardedMethod = &grpc.UnaryServerInfo{FullMethod: "/test.v1.Take/Read"}

func noopHandler(context.Context, any) (any, error) { return nil, nil }

// newToken returns a token with an id in Grantor's form: other ids are not looked up among the revocations.
func newToken(signer *token.Signer) string {
	return must.Get(signer.Sign(claims(testIssuer, "orders.read", func(c *token.Claims) { c.ID = token.NewID().String() })))
}

// incoming returns the context of a call with the token.
func incoming(raw string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.MD{
		":authority": {"orders.internal"}, "content-type": {"application/grpc"}, "user-agent": {"grpc-go"},
		"authorization": {"Bearer " + raw},
	})
}

// benchmarkCalls makes the calls in turn.
func benchmarkCalls(b *testing.B, intercept grpc.UnaryServerInterceptor, calls ...context.Context) {
	b.Helper()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := intercept(calls[i%len(calls)], nil, guardedMethod, noopHandler); err != nil {
			b.Fatal(err)
		}
	}
}

// manyCalls returns the contexts of calls with a different token each.
func manyCalls(signer *token.Signer) []context.Context {
	var calls []context.Context
	for range 2000 {
		calls = append(calls, incoming(newToken(signer)))
	}
	return calls
}

// singleEntryCache makes a verifier cache one token only, so that each of many tokens is new when its turn comes again.
var singleEntryCache = verify.CacheSize(1)

// wantMisses fails if tokens were found in the cache.
func wantMisses(b *testing.B, verifier *verify.Verifier) {
	b.Helper()
	if hits, misses := verify.Lookups(verifier); hits > misses/100 {
		b.Errorf("%d cache hits and %d misses, want misses only", hits, misses)
	}
}

// BenchmarkUnary guards calls with a cached token, and calls with a new token each. The floors are the handler alone
// and the check of one signature.
func BenchmarkUnary(b *testing.B) {
	private := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	signer := must.Get(token.NewSigner(jwks.ES256, private))
	raw := newToken(signer)
	seen := incoming(raw)
	b.Run("seen/grantor", func(b *testing.B) {
		benchmarkCalls(b, unaryInterceptor(b, newVerifier(signer)), seen)
	})
	b.Run("seen/floor", func(b *testing.B) {
		benchmarkCalls(b, func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return handler(ctx, request)
		}, seen)
	})
	b.Run("seen/measured", func(b *testing.B) {
		benchmarkCalls(b, unaryInterceptor(b, newVerifier(signer, measure(b).option)), seen)
	})
	b.Run("new/grantor", func(b *testing.B) {
		verifier := newVerifier(signer, singleEntryCache)
		benchmarkCalls(b, unaryInterceptor(b, verifier), manyCalls(signer)...)
		wantMisses(b, verifier)
	})
	b.Run("new/floor", func(b *testing.B) {
		signed := []byte(raw[:strings.LastIndexByte(raw, '.')])
		hash := sha256.Sum256(signed)
		signature := must.Get(ecdsa.SignASN1(rand.Reader, private, hash[:]))
		b.ReportAllocs()
		for b.Loop() {
			hash := sha256.Sum256(signed)
			if !ecdsa.VerifyASN1(&private.PublicKey, hash[:], signature) {
				b.Fatal("wrong")
			}
		}
	})
}

// BenchmarkRevocations guards calls while n revocations are live, none of which concerns the tokens of the calls. The
// calls with cached tokens use many tokens too: the cost of a lookup in the list depends on where it falls.
func BenchmarkRevocations(b *testing.B) {
	signer := newSigner()
	calls := manyCalls(signer)
	for _, n := range []int{0, 1000, 10_000, 100_000, million} {
		denied := sync.OnceValue(func() verify.Option {
			list := revocation.NewList()
			for range n {
				list.Apply(revocation.Change{Kind: revocation.TokenRevoked, ID: token.NewID().String(), At: time.Now().Add(time.Hour)})
			}
			return verify.Denied(list)
		})
		b.Run(fmt.Sprintf("seen/n=%d", n), func(b *testing.B) {
			intercept := unaryInterceptor(b, newVerifier(signer, denied()))
			for _, call := range calls {
				must.Get(intercept(call, nil, guardedMethod, noopHandler))
			}
			benchmarkCalls(b, intercept, calls...)
		})
		b.Run(fmt.Sprintf("new/n=%d", n), func(b *testing.B) {
			verifier := newVerifier(signer, denied(), singleEntryCache)
			benchmarkCalls(b, unaryInterceptor(b, verifier), calls...)
			wantMisses(b, verifier)
		})
	}
}

// million is the number of revocations that a list must hold.
const million = 1_000_000

func denyMillion(verifier *verify.Verifier) {
	for range million {
		verify.Deny(verifier, revocation.Change{Kind: revocation.TokenRevoked, ID: token.NewID().String(), At: time.Now().Add(time.Hour)})
	}
}

// BenchmarkRevocationMemory measures the memory that a revocation takes in each verifier.
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

// BenchmarkProof measures the guard with a token that was seen before and is bound to a key, next to the bare check of a DPoP
// proof. Goal: at most 1.15 times as long.
func BenchmarkProof(b *testing.B) {
	signer := newSigner()
	prover := must.Get(dpop.NewSigner(must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))))
	raw := boundToken(signer, prover.Thumbprint())
	proofs := func(n int) []string {
		all := make([]string, n)
		for i := range all {
			all[i] = must.Get(prover.Sign(dpop.Claims{Method: "POST", URL: "https://orders.internal" + guardedMethod.FullMethod, Token: raw, Time: time.Now()}))
		}
		return all
	}
	const batch = 5000
	each := func(b *testing.B, check func(proof string) error) {
		b.ReportAllocs()
		var ready []string
		for b.Loop() {
			if len(ready) == 0 {
				b.StopTimer()
				ready = proofs(batch)
				b.StartTimer()
			}
			if err := check(ready[0]); err != nil {
				b.Fatal(err)
			}
			ready = ready[1:]
		}
	}
	b.Run("seen/floor", func(b *testing.B) {
		verifier := &dpop.Verifier{Replays: dpop.NewReplays(dpop.DefaultReplays)}
		request := &dpop.Request{Method: "POST", URLs: []string{"https://orders.internal" + guardedMethod.FullMethod}, Token: raw}
		each(b, func(proof string) error { _, err := verifier.Verify(proof, request); return err })
	})
	b.Run("seen/grantor", func(b *testing.B) {
		guard := unaryInterceptor(b, newVerifier(signer))
		each(b, func(proof string) error {
			ctx := metadata.NewIncomingContext(context.Background(), metadata.MD{
				"authorization": {"DPoP " + raw}, "dpop": {proof}, ":authority": {"orders.internal"},
			})
			_, err := guard(ctx, nil, guardedMethod, noopHandler)
			return err
		})
	})
}
