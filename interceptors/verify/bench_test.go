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

	"github.com/grantorhq/grantor/service/must"

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

// guarded is the method that the benchmarks call, with the work of its handler.
var guarded = &grpc.UnaryServerInfo{FullMethod: "/test.v1.Take/Read"}

func nothing(context.Context, any) (any, error) { return nil, nil }

// mint makes a token with an id of ours: no other is looked for among the revoked.
func mint(signer *token.Signer) string {
	return must.Get(signer.Sign(claims(testIssuer, "orders.read", func(c *token.Claims) { c.ID = token.NewID().String() })))
}

// carrying gives the context of a call with the token.
func carrying(raw string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.MD{
		":authority": {"orders.internal"}, "content-type": {"application/grpc"}, "user-agent": {"grpc-go"},
		"authorization": {"Bearer " + raw},
	})
}

// repeat makes the calls over and over.
func repeat(b *testing.B, intercept grpc.UnaryServerInterceptor, calls ...context.Context) {
	b.Helper()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := intercept(calls[i%len(calls)], nil, guarded, nothing); err != nil {
			b.Fatal(err)
		}
	}
}

// many makes calls with a token each.
func many(signer *token.Signer) []context.Context {
	var calls []context.Context
	for range 2000 {
		calls = append(calls, carrying(mint(signer)))
	}
	return calls
}

// forgetful makes a verifier remember one token only, so that of many each is new when its turn comes again.
var forgetful = verify.CacheSize(1)

// expectNew fails where tokens were taken for known.
func expectNew(b *testing.B, verifier *verify.Verifier) {
	b.Helper()
	if hits, misses := verify.Lookups(verifier); hits > misses/100 {
		b.Errorf("%d tokens were known and %d were not", hits, misses)
	}
}

// BenchmarkUnary guards calls whose token was seen before, and calls with a new one each. The floors are the handler alone
// and the check of one signature.
func BenchmarkUnary(b *testing.B) {
	private := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	signer := must.Get(token.NewSigner(jwks.ES256, private))
	raw := mint(signer)
	seen := carrying(raw)
	b.Run("seen/grantor", func(b *testing.B) {
		repeat(b, unaryInterceptor(b, newVerifier(signer)), seen)
	})
	b.Run("seen/floor", func(b *testing.B) {
		repeat(b, func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return handler(ctx, request)
		}, seen)
	})
	b.Run("seen/measured", func(b *testing.B) {
		repeat(b, unaryInterceptor(b, newVerifier(signer, measure(b).option)), seen)
	})
	b.Run("new/grantor", func(b *testing.B) {
		verifier := newVerifier(signer, forgetful)
		repeat(b, unaryInterceptor(b, verifier), many(signer)...)
		expectNew(b, verifier)
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

// BenchmarkRevocations guards calls while so many revocations are live, none of them of the tokens that come. These are
// many in the calls whose token was seen before as well: what a look into the list costs depends on where it falls.
func BenchmarkRevocations(b *testing.B) {
	signer := newSigner()
	calls := many(signer)
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
				must.Get(intercept(call, nil, guarded, nothing))
			}
			repeat(b, intercept, calls...)
		})
		b.Run(fmt.Sprintf("new/n=%d", n), func(b *testing.B) {
			verifier := newVerifier(signer, denied(), forgetful)
			repeat(b, unaryInterceptor(b, verifier), calls...)
			expectNew(b, verifier)
		})
	}
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
