package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// A token that was used before, and is therefore cached, is refused from the moment its revocation arrives. A repeated
// revocation changes nothing.
func TestFeedRevokes(t *testing.T) {
	first, other := token.NewID().String(), token.NewID().String()
	signer := newSigner()
	start := time.Now().Truncate(time.Second)
	changed := func(change func(*token.Claims)) string {
		return must.Get(signer.Sign(claims(testIssuer, "", func(c *token.Claims) { c.ID, c.IssuedAt = other, start; change(c) })))
	}
	of := func(client string, issued time.Time) string {
		return changed(func(c *token.Claims) { c.ClientID, c.IssuedAt = client, issued })
	}
	tests := map[string]struct {
		answer *grantorv1.WatchRevocationsResponse
		token  string
		want   int
	}{
		"the token":        {&grantorv1.WatchRevocationsResponse{Tokens: revoked(first)}, changed(func(c *token.Claims) { c.ID = first }), 401},
		"another token":    {&grantorv1.WatchRevocationsResponse{Tokens: revoked(first)}, changed(func(*token.Claims) {}), 200},
		"client, before":   {&grantorv1.WatchRevocationsResponse{Clients: []*grantorv1.RevokedClient{{ClientId: "billing", Until: start.Unix()}}}, of("billing", start.Add(-time.Second)), 401},
		"client, then":     {&grantorv1.WatchRevocationsResponse{Clients: []*grantorv1.RevokedClient{{ClientId: "billing", Until: start.Unix()}}}, of("billing", start), 401},
		"client, after":    {&grantorv1.WatchRevocationsResponse{Clients: []*grantorv1.RevokedClient{{ClientId: "billing", Until: start.Unix()}}}, of("billing", start.Add(time.Second)), 200},
		"another client":   {&grantorv1.WatchRevocationsResponse{Clients: []*grantorv1.RevokedClient{{ClientId: "billing", Until: start.Unix()}}}, of("stock", start), 200},
		"the key":          {&grantorv1.WatchRevocationsResponse{Keys: []*grantorv1.RevokedKey{{Kid: signer.Public().ID(), At: start.Unix()}}}, of("billing", start), 401},
		"another key":      {&grantorv1.WatchRevocationsResponse{Keys: []*grantorv1.RevokedKey{{Kid: "other", At: start.Unix()}}}, of("billing", start), 200},
		"an id of others'": {&grantorv1.WatchRevocationsResponse{Tokens: revoked("")}, changed(func(*token.Claims) {}), 200},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			send := make(chan *grantorv1.WatchRevocationsResponse)
			feed := &feedServer{watch: func(_ string, stream grpc.ServerStreamingServer[grantorv1.WatchRevocationsResponse]) error {
				if err := stream.Send(complete); err != nil {
					return err
				}
				for {
					select {
					case answer := <-send:
						if err := stream.Send(answer); err != nil {
							return err
						}
					case <-stream.Context().Done():
						return nil
					}
				}
			}}
			feed.start(t)
			verifier := startVerifier(t.Context(), t, testIssuer,
				verify.Keys(jwks.NewSet(signer.Public())), verify.OverGRPC(feed.dial(t)))
			if got := statusFor(verifier, test.token); got != http.StatusOK {
				t.Fatalf("before the revocation: got %d, want 200", got)
			}
			test.answer.Complete = true
			for range 2 {
				send <- test.answer
			}
			// The third answer is received only after the first two were applied.
			send <- complete
			live := verifier.Feed().Live
			must.Eventually(t, "the revocation is in effect", func() bool { live = verifier.Feed().Live; return live == 1 || name == "an id of others'" })
			if got := statusFor(verifier, test.token); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
			feed.stop()
			verifier.Close()
			if got := statusFor(verifier, test.token); got != test.want {
				t.Errorf("without a network: got %d, want %d", got, test.want)
			}
			if live > 1 {
				t.Errorf("%d live revocations, want 1", live)
			}
		})
	}
}

// New returns when all earlier revocations are known, and after 5 s in any case.
func TestNewWaitsForTheFeed(t *testing.T) {
	id := token.NewID().String()
	for name, test := range map[string]struct {
		watch func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error
		waits time.Duration
		want  verify.FeedStatus
	}{
		"in parts": {func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
			send(&grantorv1.WatchRevocationsResponse{Tokens: revoked(id)})
			<-time.After(2 * time.Second)
			return sendEverySecond(ctx, send, &grantorv1.WatchRevocationsResponse{Tokens: revoked(token.NewID().String()), Complete: true}, forever)
		}, 2 * time.Second, verify.FeedStatus{Followed: true, Complete: true, Live: 2}},
		"never complete": {func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
			return sendEverySecond(ctx, send, &grantorv1.WatchRevocationsResponse{Tokens: revoked(id)}, forever)
		}, 5 * time.Second, verify.FeedStatus{Followed: true, Age: 5 * time.Second, Live: 1}},
		"silent": {func(ctx context.Context, _ int, _ func(*grantorv1.WatchRevocationsResponse)) error {
			<-ctx.Done()
			return ctx.Err()
		}, 5 * time.Second, verify.FeedStatus{Followed: true, Age: 5 * time.Second}},
		"away": {func(context.Context, int, func(*grantorv1.WatchRevocationsResponse)) error {
			return status.Error(codes.Unavailable, "")
		}, 5 * time.Second, verify.FeedStatus{Followed: true, Age: 5 * time.Second}},
		"unimplemented": {func(context.Context, int, func(*grantorv1.WatchRevocationsResponse)) error {
			return status.Error(codes.Unimplemented, "")
		}, 5 * time.Second, verify.FeedStatus{Followed: true, Age: 5 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			signer := newSigner()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				verifier := must.Get(verify.New(t.Context(), testIssuer, verify.Audience(orders),
					verify.Keys(jwks.NewSet(signer.Public())), verify.OverGRPC(&scriptedFeed{watch: test.watch})))
				if got := time.Since(began); got != test.waits {
					t.Errorf("New took %s, want %s", got, test.waits)
				}
				if got := verifier.Feed(); got != test.want {
					t.Errorf("got %+v, want %+v", got, test.want)
				}
				verifier.Close()
			})
		})
	}
}

// A feed that is silent for 5 s is given up, even if the server accepts the call, and followed again from the cursor.
func TestFeedWatchdog(t *testing.T) {
	first, second := token.NewID().String(), token.NewID().String()
	s := &scriptedFeed{watch: func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error {
		switch attempt {
		case 1:
			send(&grantorv1.WatchRevocationsResponse{Tokens: revoked(first), Cursor: "1", Complete: true})
			<-ctx.Done()
			return ctx.Err()
		case 2:
			<-ctx.Done() // no answer
			return ctx.Err()
		default:
			return sendEverySecond(ctx, send, &grantorv1.WatchRevocationsResponse{Tokens: revoked(second), Cursor: "2", Complete: true}, forever)
		}
	}}
	runInBubble(t, s, func(t *testing.T, verifier *verify.Verifier, _ *token.Signer) {
		advance(10*time.Second + 400*time.Millisecond)
		cursors, times := s.attempts()
		if strings.Join(cursors, ",") != ",1,1" {
			t.Fatalf("got cursors %q, want the empty one and twice 1", cursors)
		}
		for i := range 2 {
			if gap := times[i+1].Sub(times[i]); gap < 5*time.Second || gap > 5*time.Second+200*time.Millisecond {
				t.Errorf("attempt %d came after %s, want soon after 5 s", i+2, gap)
			}
		}
		if got := verifier.Feed().Live; got != 2 {
			t.Errorf("%d live revocations, want 2", got)
		}
	})
}

// An issuer in trouble does not get requests without end: the waits double up to 5 s, each shortened at random. An
// answer before each failure does not change that.
func TestFeedBackoff(t *testing.T) {
	for name, answers := range map[string]bool{"refuses": false, "answers and breaks off": true} {
		t.Run(name, func(t *testing.T) {
			s := &scriptedFeed{watch: func(_ context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
				if answers {
					send(complete)
				}
				return status.Error(codes.Unavailable, "down")
			}}
			runInBubble(t, s, func(t *testing.T, _ *verify.Verifier, _ *token.Signer) {
				advance(2 * time.Minute)
				_, times := s.attempts()
				shares := map[int]bool{}
				wait := 100 * time.Millisecond
				for i := 1; i < len(times); i++ {
					gap := times[i].Sub(times[i-1])
					if gap < wait/2 || gap > wait {
						t.Errorf("wait %d: got %s, want %s to %s", i, gap, wait/2, wait)
					}
					shares[int(100*gap/wait)] = true
					wait = min(2*wait, 5*time.Second)
				}
				if len(times) < 24 || len(shares) < 5 {
					t.Errorf("%d attempts with %d different waits, want more of both", len(times), len(shares))
				}
			})
		})
	}
}

// captureLog captures the default logger's output. The returned function counts the warnings about the feed.
func captureLog(t *testing.T) func() int {
	t.Helper()
	var mu sync.Mutex
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}), nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(log.String(), "cannot be reached")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// While the feed cannot be reached for longer than MaxStaleness, calls are counted and one line is logged per outage.
// The option decides whether the calls are admitted, and they are admitted again after the outage.
func TestStaleness(t *testing.T) {
	for name, test := range map[string]struct {
		options []verify.Option
		stale   int
	}{
		"by default": {nil, http.StatusOK},
		"refusing":   {[]verify.Option{verify.RefuseWhenStale()}, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			lines := captureLog(t)
			s := &scriptedFeed{watch: func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error {
				if attempt == 1 || attempt == 10 {
					return sendEverySecond(ctx, send, complete, 10*time.Second)
				}
				if attempt == 20 {
					return sendEverySecond(ctx, send, complete, forever)
				}
				<-ctx.Done()
				return ctx.Err()
			}}
			var reasons []error
			options := slices.Concat(test.options, []verify.Option{
				verify.MaxStaleness(20 * time.Second),
				verify.OnRefusal(func(_ context.Context, _ string, err error) { reasons = append(reasons, err) }),
			})
			runInBubble(t, s, func(t *testing.T, verifier *verify.Verifier, signer *token.Signer) {
				raw := must.Get(signer.Sign(claims(testIssuer, "")))
				calls := uint64(0)
				for second := range 200 {
					status := verifier.Feed()
					stale := status.Age > 20*time.Second
					want := http.StatusOK
					if stale {
						want = test.stale
						calls++
					}
					if got := statusFor(verifier, raw); got != want {
						t.Errorf("second %d, age %s: got %d, want %d", second, status.Age, got, want)
					}
					advance(time.Second)
				}
				status := verifier.Feed()
				if calls < 40 || status.StaleCalls != calls || status.Age > 2*time.Second || !status.Complete {
					t.Errorf("got %+v after %d stale calls, want these counted and the feed current", status, calls)
				}
				if got := lines(); got != 2 {
					t.Errorf("%d lines logged, want one per outage", got)
				}
				for _, reason := range reasons {
					if !errors.Is(reason, verify.ErrStale) {
						t.Errorf("OnRefusal: got %v, want %v", reason, verify.ErrStale)
					}
				}
			}, options...)
		})
	}
}

// The age of a replica's own knowledge is added, and logged once. Values that are not an age are harmless.
func TestFeedAge(t *testing.T) {
	for name, test := range map[string]struct {
		age  int64
		want time.Duration
	}{
		"fresh":        {0, 0},
		"old":          {45_000, 45 * time.Second},
		"the future":   {-1 << 62, 0},
		"out of range": {math.MaxInt64, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			lines := captureLog(t)
			s := &scriptedFeed{watch: func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
				return sendEverySecond(ctx, send, &grantorv1.WatchRevocationsResponse{Complete: true, AgeMs: test.age}, forever)
			}}
			runInBubble(t, s, func(t *testing.T, verifier *verify.Verifier, signer *token.Signer) {
				raw := must.Get(signer.Sign(claims(testIssuer, "")))
				for range 10 {
					if got := verifier.Feed(); got.Age != test.want || !got.Complete {
						t.Errorf("got %+v, want the age %s", got, test.want)
					}
					statusFor(verifier, raw)
					advance(time.Second)
				}
				wantCalls, wantLines := uint64(0), 0
				if test.want > 30*time.Second {
					wantCalls, wantLines = 10, 1
				}
				if got := verifier.Feed().StaleCalls; got != wantCalls || lines() != wantLines {
					t.Errorf("%d stale calls and %d lines, want %d and %d", got, lines(), wantCalls, wantLines)
				}
			})
		})
	}
}

// Continuing at a replica that lags behind does not make the knowledge older.
func TestFeedFromAnOlderReplica(t *testing.T) {
	s := &scriptedFeed{watch: func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error {
		if attempt == 1 {
			send(complete)
			return io.EOF
		}
		return sendEverySecond(ctx, send, &grantorv1.WatchRevocationsResponse{Complete: true, AgeMs: 20_000}, forever)
	}}
	runInBubble(t, s, func(t *testing.T, verifier *verify.Verifier, _ *token.Signer) {
		advance(10 * time.Second)
		if got := verifier.Feed().Age; got != 10*time.Second {
			t.Errorf("age: got %s, want 10 s", got)
		}
	})
}

// An issuer that had a feed and then answers UNIMPLEMENTED is in trouble.
func TestFeedLost(t *testing.T) {
	s := &scriptedFeed{watch: func(_ context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error {
		if attempt == 1 {
			send(complete)
		}
		return status.Error(codes.Unimplemented, "")
	}}
	runInBubble(t, s, func(t *testing.T, verifier *verify.Verifier, signer *token.Signer) {
		advance(time.Minute)
		if got := verifier.Feed(); !got.Followed || got.Age != time.Minute {
			t.Errorf("got %+v, want a feed that is a minute old", got)
		}
		if got := statusFor(verifier, must.Get(signer.Sign(claims(testIssuer, "")))); got != http.StatusServiceUnavailable {
			t.Errorf("got %d, want 503", got)
		}
	}, verify.RefuseWhenStale())
}
