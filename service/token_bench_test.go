package service_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/tap"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// echo always returns the same answers, after work that no implementation could do without.
type echo struct {
	grantorv1.UnimplementedTokenServiceServer
	issued       *grantorv1.IssueTokenResponse
	introspected *grantorv1.IntrospectTokenResponse
	work         func() error
}

func (e *echo) IssueToken(context.Context, *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	return e.issued, e.work()
}

func (e *echo) IntrospectToken(context.Context, *grantorv1.IntrospectTokenRequest) (*grantorv1.IntrospectTokenResponse, error) {
	return e.introspected, e.work()
}

// serve runs the echo on a server with as many workers as an issuer's.
func (e *echo) serve(b *testing.B) grantorv1.TokenServiceClient {
	b.Helper()
	server := grpc.NewServer(grpc.NumStreamWorkers(64))
	grantorv1.RegisterTokenServiceServer(server, e)
	return serveOverLoopback(b, server)
}

// serveOverLoopback runs the server until the benchmark ends, and returns a client of it.
func serveOverLoopback(b *testing.B, server *grpc.Server, options ...grpc.DialOption) grantorv1.TokenServiceClient {
	b.Helper()
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn := must.Get(grpc.NewClient(listener.Addr().String(), options...))
	b.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		running.Wait()
	})
	return grantorv1.NewTokenServiceClient(conn)
}

// newBenchReplica starts a replica that discards its log.
func newBenchReplica(b *testing.B) *replica {
	b.Helper()
	c := newCluster(b)
	c.log = io.Discard // the audit events are written, as in production, but not kept
	r := c.start(b)
	r.apply(b, manifest())
	return r
}

// callInParallel has many callers make a call repeatedly.
func callInParallel(b *testing.B, call func() error) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer() // preparing the call does not count
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(); err != nil {
				b.Errorf("got %v", err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// bare is ES256 by the standard library alone, over as many bytes as a token signs.
type bare struct {
	private           *ecdsa.PrivateKey
	signed, signature []byte
}

func newBare(token string) *bare {
	s := &bare{private: must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), signed: []byte(token[:strings.LastIndexByte(token, '.')])}
	hash := sha256.Sum256(s.signed)
	s.signature = must.Get(ecdsa.SignASN1(rand.Reader, s.private, hash[:]))
	return s
}

func (s *bare) sign() error {
	hash := sha256.Sum256(s.signed)
	_, err := ecdsa.SignASN1(rand.Reader, s.private, hash[:])
	return err
}

func (s *bare) verify() error {
	hash := sha256.Sum256(s.signed)
	if !ecdsa.VerifyASN1(&s.private.PublicKey, hash[:], s.signature) {
		return errors.New("the signature is wrong")
	}
	return nil
}

// request returns a request for a token.
func request() *grantorv1.IssueTokenRequest {
	return &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: secret}
}

// issuance returns a function that requests a token.
func issuance(ctx context.Context, of grantorv1.TokenServiceClient) func() error {
	return func() error {
		_, err := of.IssueToken(ctx, request())
		return err
	}
}

// BenchmarkIssueToken issues tokens through a whole replica, for many callers on one connection over loopback. The floor
// makes one signature and exchanges the same messages.
func BenchmarkIssueToken(b *testing.B) {
	r := newBenchReplica(b)
	answer, err := r.tokens.IssueToken(b.Context(), request())
	must.Succeed(b, err)
	floor := (&echo{issued: answer, work: newBare(answer.GetAccessToken()).sign}).serve(b)
	for _, s := range []struct {
		name string
		of   grantorv1.TokenServiceClient
	}{{"grantor", r.tokens}, {"floor", floor}} {
		b.Run(s.name, func(b *testing.B) { callInParallel(b, issuance(b.Context(), s.of)) })
	}
}

// introspection returns a function that introspects the tokens in turn.
func introspection(ctx context.Context, of grantorv1.TokenServiceClient, tokens ...string) func() error {
	var turn atomic.Uint64
	return func() error {
		answer, err := of.IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{
			ClientId: "res1", ClientSecret: secret, Token: tokens[turn.Add(1)%uint64(len(tokens))],
		})
		if err == nil && !answer.GetActive() {
			err = errors.New("the token is not active")
		}
		return err
	}
}

// BenchmarkIntrospectToken introspects at a whole replica a token that it has in memory, and tokens that it has not, for
// many callers on one connection over loopback. The floor exchanges the same messages; it does nothing else in the first
// case, and verifies one signature in the second.
func BenchmarkIntrospectToken(b *testing.B) {
	r := newBenchReplica(b)
	raw := r.token(b)
	answer, err := r.ask(b.Context(), raw)
	must.Succeed(b, err)
	b.Run("seen/grantor", func(b *testing.B) { callInParallel(b, introspection(b.Context(), r.tokens, raw)) })
	b.Run("seen/floor", func(b *testing.B) {
		floor := (&echo{introspected: answer, work: func() error { return nil }}).serve(b)
		callInParallel(b, introspection(b.Context(), floor, raw))
	})
	many := sync.OnceValue(func() []string {
		tokens := make([]string, 10_000) // a hundred times as many as a replica of the tests keeps in memory
		for i := range tokens {
			tokens[i] = r.token(b)
		}
		return tokens
	})
	b.Run("new/grantor", func(b *testing.B) { callInParallel(b, introspection(b.Context(), r.tokens, many()...)) })
	b.Run("new/floor", func(b *testing.B) {
		floor := (&echo{introspected: answer, work: newBare(raw).verify}).serve(b)
		callInParallel(b, introspection(b.Context(), floor, many()...))
	})
}

// BenchmarkServerOptions calls one issuer on servers that differ from the shipped one by one option each. The two take
// turns, so that a busy moment affects both. Durations are reported in percent of the shipped one.
func BenchmarkServerOptions(b *testing.B) {
	r := newBenchReplica(b)
	raw := r.token(b)
	shipped := func(more ...grpc.ServerOption) []grpc.ServerOption { return append(r.ServerOptions(), more...) }
	for _, v := range []struct {
		name   string
		server []grpc.ServerOption
		client []grpc.DialOption
	}{
		{"as-shipped", shipped(), nil},
		{"workers=0", shipped(grpc.NumStreamWorkers(0)), nil},
		{"workers=16", shipped(grpc.NumStreamWorkers(16)), nil},
		{"read-buffer=32KiB", shipped(grpc.ReadBufferSize(32 << 10)), nil},
		{"write-buffer=0", shipped(grpc.WriteBufferSize(0)), nil},
		{"write-buffer=8KiB", shipped(grpc.WriteBufferSize(8 << 10)), nil},
		{"write-buffer=shared", shipped(grpc.SharedWriteBuffer(true)), nil},
		{"windows=static", shipped(grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(1<<20)), nil},
		{"tap=none", withoutTap(r.ServerOptions()), nil},
		{"gzip", shipped(), []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))}},
	} {
		b.Run(v.name, func(b *testing.B) {
			server := grpc.NewServer(v.server...)
			r.Register(server)
			other := serveOverLoopback(b, server, v.client...)
			b.Run("issue", func(b *testing.B) {
				inTurns(b, issuance(b.Context(), other), issuance(b.Context(), r.tokens))
			})
			b.Run("introspect", func(b *testing.B) {
				inTurns(b, introspection(b.Context(), other, raw), introspection(b.Context(), r.tokens, raw))
			})
		})
	}
}

// inTurns reports what a call costs in percent of the shipped one, as the median of the turns.
func inTurns(b *testing.B, other, shipped func() error) {
	b.Helper()
	var percent []float64
	var total time.Duration
	for b.Loop() {
		took, usual := turn(b, other), turn(b, shipped)
		// The order makes a difference too.
		usual += turn(b, shipped)
		took += turn(b, other)
		percent = append(percent, 100*took.Seconds()/usual.Seconds())
		total += took
	}
	slices.Sort(percent)
	b.ReportMetric(percent[len(percent)/2], "%as-shipped")
	b.ReportMetric(float64(total.Nanoseconds())/float64(2*callsPerTurn*b.N), "ns/call")
	b.ReportMetric(0, "ns/op") // which would be that of four turns
}

const (
	turnCallers  = 64
	callsPerTurn = 4 * turnCallers
)

// turn has many callers make their calls, and returns how long that took.
func turn(b *testing.B, call func() error) time.Duration {
	b.Helper()
	start := time.Now()
	var group sync.WaitGroup
	for range turnCallers {
		group.Go(func() {
			for range callsPerTurn / turnCallers {
				if err := call(); err != nil {
					b.Errorf("got %v", err)
				}
			}
		})
	}
	group.Wait()
	return time.Since(start)
}

// withoutTap removes the tap handle, which it recognizes because gRPC accepts only one.
func withoutTap(options []grpc.ServerOption) []grpc.ServerOption {
	pass := func(ctx context.Context, _ *tap.Info) (context.Context, error) { return ctx, nil }
	for i := range options {
		rest := slices.Delete(slices.Clone(options), i, i+1)
		if accepted(append(slices.Clone(rest), grpc.InTapHandle(pass))) {
			return rest
		}
	}
	panic("there is no tap handle")
}

// accepted reports whether a server can have the options.
func accepted(options []grpc.ServerOption) (ok bool) {
	defer func() { ok = recover() == nil }()
	grpc.NewServer(options...).Stop()
	return true
}
