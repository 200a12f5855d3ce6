package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grantorhq/grantor/service/must"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/token"
)

// script is a feed without a network, so that it runs in a bubble's time. Each attempt to follow it runs watch, which
// sends what it likes and ends the attempt by returning.
type script struct {
	watch func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error

	mu      sync.Mutex
	cursors []string
	times   []time.Time
}

func (s *script) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return status.Error(codes.Unimplemented, "")
}

func (s *script) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &scripted{script: s, ctx: ctx, answers: make(chan *grantorv1.WatchRevocationsResponse), end: make(chan error, 1)}, nil
}

func (s *script) attempts() ([]string, []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursors, s.times
}

type scripted struct {
	grpc.ClientStream

	script  *script
	ctx     context.Context
	answers chan *grantorv1.WatchRevocationsResponse
	end     chan error
}

func (s *scripted) SendMsg(m any) error {
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	s.script.cursors = append(s.script.cursors, m.(*grantorv1.WatchRevocationsRequest).GetCursor())
	s.script.times = append(s.script.times, time.Now())
	attempt := len(s.script.cursors)
	go func() {
		s.end <- s.script.watch(s.ctx, attempt, func(answer *grantorv1.WatchRevocationsResponse) {
			select {
			case s.answers <- answer:
			case <-s.ctx.Done():
			}
		})
	}()
	return nil
}

func (s *scripted) CloseSend() error { return nil }

func (s *scripted) RecvMsg(m any) error {
	select {
	case answer := <-s.answers:
		proto.Merge(m.(proto.Message), answer)
		return nil
	case err := <-s.end:
		return err
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// beat answers once a second until the attempt ends, or for some time.
func beat(ctx context.Context, send func(*grantorv1.WatchRevocationsResponse), answer *grantorv1.WatchRevocationsResponse, d time.Duration) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	end := time.After(d)
	for {
		send(answer)
		select {
		case <-ticker.C:
		case <-end:
			return status.Error(codes.Unavailable, "gone")
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

const forever = math.MaxInt64

var complete = &grantorv1.WatchRevocationsResponse{Complete: true}

// bubble runs a test in a bubble, with a verifier of signer's tokens that follows the script.
func bubble(t *testing.T, s *script, test func(t *testing.T, verifier *verify.Verifier, signer *token.Signer), options ...verify.Option) {
	t.Helper()
	signer := newSigner()
	synctest.Test(t, func(t *testing.T) {
		options = append([]verify.Option{
			verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public())), verify.OverGRPC(s),
		}, options...)
		verifier := must.Get(verify.New(t.Context(), testIssuer, options...))
		defer verifier.Close()
		test(t, verifier, signer)
	})
}

// pass lets the bubble's time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// ask gives the HTTP status of a call with the token.
func ask(verifier *verify.Verifier, raw string) int {
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Authorization", "Bearer "+raw)
	return serve(verify.HTTP(verifier, verify.Authenticated())(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), request).StatusCode
}

func revoked(ids ...string) (tokens []*grantorv1.RevokedToken) {
	for _, id := range ids {
		tokens = append(tokens, &grantorv1.RevokedToken{Jti: id, Exp: time.Now().Add(time.Hour).Unix()})
	}
	return tokens
}

// A token that was used, and so is remembered as verified, is refused from the moment on that its revocation arrives. What
// is told twice changes nothing.
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
			if got := ask(verifier, test.token); got != http.StatusOK {
				t.Fatalf("before the revocation: got %d, want 200", got)
			}
			test.answer.Complete = true
			for range 2 {
				send <- test.answer
			}
			// The third is taken only after the two before were.
			send <- complete
			live := verifier.Feed().Live
			must.Eventually(t, "the revocation is in force", func() bool { live = verifier.Feed().Live; return live == 1 || name == "an id of others'" })
			if got := ask(verifier, test.token); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
			feed.stop()
			verifier.Close()
			if got := ask(verifier, test.token); got != test.want {
				t.Errorf("without a network: got %d, want %d", got, test.want)
			}
			if live > 1 {
				t.Errorf("%d live revocations, want 1", live)
			}
		})
	}
}

// New returns when what was revoked before is known, and after 5 s in any case.
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
			return beat(ctx, send, &grantorv1.WatchRevocationsResponse{Tokens: revoked(token.NewID().String()), Complete: true}, forever)
		}, 2 * time.Second, verify.FeedStatus{Followed: true, Complete: true, Live: 2}},
		"never complete": {func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
			return beat(ctx, send, &grantorv1.WatchRevocationsResponse{Tokens: revoked(id)}, forever)
		}, 5 * time.Second, verify.FeedStatus{Followed: true, Age: 5 * time.Second, Live: 1}},
		"silent": {func(ctx context.Context, _ int, _ func(*grantorv1.WatchRevocationsResponse)) error {
			<-ctx.Done()
			return ctx.Err()
		}, 5 * time.Second, verify.FeedStatus{Followed: true, Age: 5 * time.Second}},
		"away": {func(context.Context, int, func(*grantorv1.WatchRevocationsResponse)) error {
			return status.Error(codes.Unavailable, "")
		}, 5 * time.Second, verify.FeedStatus{Followed: true, Age: 5 * time.Second}},
		"none": {func(context.Context, int, func(*grantorv1.WatchRevocationsResponse)) error {
			return status.Error(codes.Unimplemented, "")
		}, 0, verify.FeedStatus{}},
	} {
		t.Run(name, func(t *testing.T) {
			signer := newSigner()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				verifier := must.Get(verify.New(t.Context(), testIssuer, verify.Audience(orders),
					verify.Keys(jwks.NewSet(signer.Public())), verify.OverGRPC(&script{watch: test.watch})))
				if got := time.Since(began); got != test.waits {
					t.Errorf("New took %s, want %s", got, test.waits)
				}
				if got := verifier.Feed(); got != test.want {
					t.Errorf("got %+v, want %+v", got, test.want)
				}
				if test.want.Followed { // else nothing must be running, or the bubble does not end
					verifier.Close()
				}
			})
		})
	}
}

// A server that accepts the call and says nothing more is left after 5 s, and the feed is taken up at the cursor.
func TestFeedWatchdog(t *testing.T) {
	first, second := token.NewID().String(), token.NewID().String()
	s := &script{watch: func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error {
		switch attempt {
		case 1:
			send(&grantorv1.WatchRevocationsResponse{Tokens: revoked(first), Cursor: "1", Complete: true})
			<-ctx.Done()
			return ctx.Err()
		case 2:
			<-ctx.Done() // not a word
			return ctx.Err()
		default:
			return beat(ctx, send, &grantorv1.WatchRevocationsResponse{Tokens: revoked(second), Cursor: "2", Complete: true}, forever)
		}
	}}
	bubble(t, s, func(t *testing.T, verifier *verify.Verifier, _ *token.Signer) {
		pass(10*time.Second + 400*time.Millisecond)
		cursors, times := s.attempts()
		if strings.Join(cursors, ",") != ",1,1" {
			t.Fatalf("taken up at %q, want the beginning and twice 1", cursors)
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

// An issuer in trouble is not asked without end: the pauses double up to 5 s, each shortened by chance. An answer before
// each break changes nothing about that.
func TestFeedBackoff(t *testing.T) {
	for name, answers := range map[string]bool{"refuses": false, "answers and breaks off": true} {
		t.Run(name, func(t *testing.T) {
			s := &script{watch: func(_ context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
				if answers {
					send(complete)
				}
				return status.Error(codes.Unavailable, "down")
			}}
			bubble(t, s, func(t *testing.T, _ *verify.Verifier, _ *token.Signer) {
				pass(2 * time.Minute)
				_, times := s.attempts()
				shares := map[int]bool{}
				pause := 100 * time.Millisecond
				for i := 1; i < len(times); i++ {
					gap := times[i].Sub(times[i-1])
					if gap < pause/2 || gap > pause {
						t.Errorf("pause %d: got %s, want %s to %s", i, gap, pause/2, pause)
					}
					shares[int(100*gap/pause)] = true
					pause = min(2*pause, 5*time.Second)
				}
				if len(times) < 24 || len(shares) < 5 {
					t.Errorf("%d attempts with %d different pauses, want more of both", len(times), len(shares))
				}
			})
		})
	}
}

// logged catches what the default logger writes.
func logged(t *testing.T) func() int {
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

// While the feed is out of reach for longer than MaxStaleness calls are counted and one line is logged, for each outage
// anew; whether they pass is the owner's choice, and they pass again by themselves.
func TestStaleness(t *testing.T) {
	for name, test := range map[string]struct {
		options []verify.Option
		stale   int
	}{
		"by default": {nil, http.StatusOK},
		"refusing":   {[]verify.Option{verify.RefuseWhenStale()}, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			lines := logged(t)
			s := &script{watch: func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error {
				if attempt == 1 || attempt == 10 {
					return beat(ctx, send, complete, 10*time.Second)
				}
				if attempt == 20 {
					return beat(ctx, send, complete, forever)
				}
				<-ctx.Done()
				return ctx.Err()
			}}
			var reasons []error
			options := slices.Concat(test.options, []verify.Option{
				verify.MaxStaleness(20 * time.Second),
				verify.OnRefusal(func(_ context.Context, _ string, err error) { reasons = append(reasons, err) }),
			})
			bubble(t, s, func(t *testing.T, verifier *verify.Verifier, signer *token.Signer) {
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
					if got := ask(verifier, raw); got != want {
						t.Errorf("second %d, age %s: got %d, want %d", second, status.Age, got, want)
					}
					pass(time.Second)
				}
				status := verifier.Feed()
				if calls < 40 || status.StaleCalls != calls || status.Age > 2*time.Second || !status.Complete {
					t.Errorf("got %+v after %d stale calls, want these counted and the feed back", status, calls)
				}
				if got := lines(); got != 2 {
					t.Errorf("%d lines logged, want one for each outage", got)
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

// How old a replica's own knowledge is counts too, and is logged once, however often it says so. What it cannot truly
// mean does harm to nobody.
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
			lines := logged(t)
			s := &script{watch: func(ctx context.Context, _ int, send func(*grantorv1.WatchRevocationsResponse)) error {
				return beat(ctx, send, &grantorv1.WatchRevocationsResponse{Complete: true, AgeMs: test.age}, forever)
			}}
			bubble(t, s, func(t *testing.T, verifier *verify.Verifier, signer *token.Signer) {
				raw := must.Get(signer.Sign(claims(testIssuer, "")))
				for range 10 {
					if got := verifier.Feed(); got.Age != test.want || !got.Complete {
						t.Errorf("got %+v, want the age %s", got, test.want)
					}
					ask(verifier, raw)
					pass(time.Second)
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

// Going on at a replica that is behind takes no knowledge away.
func TestFeedFromAnOlderReplica(t *testing.T) {
	s := &script{watch: func(ctx context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error {
		if attempt == 1 {
			send(complete)
			return io.EOF
		}
		return beat(ctx, send, &grantorv1.WatchRevocationsResponse{Complete: true, AgeMs: 20_000}, forever)
	}}
	bubble(t, s, func(t *testing.T, verifier *verify.Verifier, _ *token.Signer) {
		pass(10 * time.Second)
		if got := verifier.Feed().Age; got != 10*time.Second {
			t.Errorf("age: got %s, want 10 s", got)
		}
	})
}

// An issuer that had a feed and then says that it has none is one in trouble.
func TestFeedLost(t *testing.T) {
	s := &script{watch: func(_ context.Context, attempt int, send func(*grantorv1.WatchRevocationsResponse)) error {
		if attempt == 1 {
			send(complete)
		}
		return status.Error(codes.Unimplemented, "")
	}}
	bubble(t, s, func(t *testing.T, verifier *verify.Verifier, signer *token.Signer) {
		pass(time.Minute)
		if got := verifier.Feed(); !got.Followed || got.Age != time.Minute {
			t.Errorf("got %+v, want a feed that is a minute old", got)
		}
		if got := ask(verifier, must.Get(signer.Sign(claims(testIssuer, "")))); got != http.StatusServiceUnavailable {
			t.Errorf("got %d, want 503", got)
		}
	}, verify.RefuseWhenStale())
}
