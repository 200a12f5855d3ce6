package attach_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/grantorhq/grantor/interceptors/attach"
)

func TestManyColdCallersCauseOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour, slow: time.Second}
		source := attach.NewSource(i.fetch, 0)
		var group sync.WaitGroup
		for range 10_000 {
			group.Go(func() {
				if token, err := source.Token(); err != nil || token.AccessToken != "1" {
					t.Errorf("got %v, %v, want token 1", token, err)
				}
			})
		}
		group.Wait()
		wantRequests(t, i, 1)
	})
}

// Callers that find no token, but find one once they hold the lock, request none.
func TestTokenFoundUnderLock(t *testing.T) {
	const callers = 100
	i := &issuer{lifetime: time.Hour}
	storing, started := make(chan struct{}), make(chan struct{})
	source := attach.NewSourceWith(i.fetch, func() float64 {
		close(storing) // a second token panics here
		for range callers {
			<-started
		}
		return 0
	})
	var group sync.WaitGroup
	call := func() {
		if _, err := source.Token(); err != nil {
			t.Error(err)
		}
	}
	group.Go(call)
	<-storing
	for range callers {
		group.Go(func() {
			started <- struct{}{}
			call()
		})
	}
	group.Wait()
	wantRequests(t, i, 1)
}

func TestCallerGivesUpAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour, slow: 5 * time.Second}
		source := attach.NewSource(i.fetch, 0)
		got := make(chan string)
		go func() {
			token, err := source.Token()
			if err != nil {
				token = &oauth2.Token{AccessToken: err.Error()}
			}
			got <- token.AccessToken
		}()
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := source.TokenContext(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want the caller's deadline", err)
		}
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("waited %v, want 1s", waited)
		}
		if token := <-got; token != "1" {
			t.Errorf("the other caller got %q, want 1", token)
		}
		wantRequests(t, i, 1)
	})
}

func TestCallerThatIsGoneCausesNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		source := attach.NewSource(i.fetch, 0)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := source.TokenContext(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
		synctest.Wait()
		wantRequests(t, i, 0)
	})
}

func TestHangingIssuerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour, slow: time.Hour}
		source := attach.NewSource(i.fetch, 0)
		began := time.Now()
		if _, err := source.Token(); err == nil {
			t.Error("got a token from an issuer that hangs")
		}
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("waited %v, want 10s", waited)
		}
	})
}

func TestRenewsAheadWithinItsShare(t *testing.T) {
	for _, test := range []struct {
		name   string
		jitter float64
		at     time.Duration
	}{
		{"earliest", 0, 75 * time.Minute},
		{"middle", 0.5, 80 * time.Minute},
		{"latest", 0.999999, 85 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &issuer{lifetime: 100 * time.Minute}
				source := attach.NewSource(i.fetch, test.jitter)
				wantToken(t, source, "1")
				advance(test.at - time.Second)
				wantToken(t, source, "1")
				wantRequests(t, i, 1)

				i.slow = 5 * time.Second
				advance(time.Second)
				for range 100 {
					wantToken(t, source, "1") // at once: the clock does not advance
				}
				wantRequests(t, i, 2)
				advance(5 * time.Second)
				wantToken(t, source, "2")
				wantRequests(t, i, 2)
			})
		})
	}
}

// A call every 100 ms for a whole lifetime, while the issuer is down from the first token on.
func TestDeadIssuerCausesNoFailedCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		source := attach.NewSource(i.fetch, 0.5)
		wantToken(t, source, "1")
		i.set(errDown)
		for range 10*3600 - 2 {
			advance(100 * time.Millisecond)
			wantToken(t, source, "1")
		}
		// 12 minutes at 30 s, the doubling before them, and 10 s of margin at 100 ms and more.
		if got := i.requests(); got < 20 || got > 45 {
			t.Errorf("got %d token requests, want 20 to 45", got)
		}
		i.set(nil)
		advance(10 * time.Second)
		wantToken(t, source, "2")
	})
}

func TestRenewalAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour, down: errDown}
		source := attach.NewSource(i.fetch, 0.5) // no random variation
		i.set(nil)
		wantToken(t, source, "1")
		i.set(errDown)
		advance(48 * time.Minute)
		wantToken(t, source, "1")
		wantRequests(t, i, 2)
		for n, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			advance(pause*time.Second - 1)
			wantToken(t, source, "1")
			wantRequests(t, i, n+2)
			advance(1)
			wantToken(t, source, "1")
			wantRequests(t, i, n+3)
		}
		i.set(nil)
		advance(30 * time.Second)
		wantToken(t, source, "1")
		wantToken(t, source, "2")
	})
}

// The wait after a failure ends when the token is no longer sent: the first call that has to wait makes a request at
// once.
func TestBackOffEndsWithTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: 10 * time.Second} // renewed at 8 s, usable till 9 s
		source := attach.NewSource(i.fetch, 0.5)
		wantToken(t, source, "1")
		i.set(errDown)
		advance(8500 * time.Millisecond)
		wantToken(t, source, "1")
		wantRequests(t, i, 2)
		i.set(nil)
		advance(500 * time.Millisecond)
		wantToken(t, source, "2")
		wantRequests(t, i, 3)
	})
}

func TestFailuresWithoutAToken(t *testing.T) {
	refused := attach.Refusal("invalid_client", "The client is unknown or its secret is wrong.", "")
	for _, test := range []struct {
		name string
		down error
		max  int // requests in a minute with a call every 10 ms
	}{
		{"unreachable", errDown, 20},
		{"refused", refused, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &issuer{lifetime: time.Hour, down: test.down}
				source := attach.NewSource(i.fetch, 0)
				for range 6000 {
					began := time.Now()
					if _, err := source.TokenContext(t.Context()); !errors.Is(err, test.down) {
						t.Fatalf("got error %v, want %v", err, test.down)
					}
					if waited := time.Since(began); waited != 0 {
						t.Fatalf("waited %v for an error", waited)
					}
					advance(10 * time.Millisecond)
				}
				if got := i.requests(); got < 3 || got > test.max {
					t.Errorf("got %d requests in a minute, want 3 to %d", got, test.max)
				}
				i.set(nil)
				advance(40 * time.Second)
				wantToken(t, source, "1")
			})
		})
	}
}

func TestExpired(t *testing.T) {
	for _, test := range []struct {
		name            string
		lifetime, until time.Duration
	}{
		{"margin of ten seconds", time.Hour, time.Hour - 10*time.Second},
		{"margin of a tenth", 20 * time.Second, 18 * time.Second},
		{"lifetime not stated", 0, 54 * time.Second},
		{"longer than a day", 90 * 24 * time.Hour, 24*time.Hour - 10*time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &issuer{lifetime: test.lifetime}
				source := attach.NewSource(i.fetch, 0)
				wantToken(t, source, "1")
				i.slow = time.Second
				advance(test.until)
				wantToken(t, source, "2") // waits for the request
				wantRequests(t, i, 2)
			})
		})
	}
}

func TestExpiryIsTheTokensEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour, slow: 3 * time.Second}
		asked := time.Now()
		token, err := attach.NewSource(i.fetch, 0).Token()
		if err != nil {
			t.Fatal(err)
		}
		if want := asked.Add(time.Hour); !token.Expiry.Equal(want) {
			t.Errorf("got expiry %v, want an hour from the request: %v", token.Expiry, want)
		}
	})
}

func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		source := attach.NewSource(i.fetch, 0.5)
		source.Drop("1") // nothing is cached
		wantToken(t, source, "1")
		source.Drop("0")
		wantToken(t, source, "1")
		source.Drop("1")
		wantToken(t, source, "2")
		source.Drop("1") // a late refusal
		wantToken(t, source, "2")
		wantRequests(t, i, 2)
	})
}

func TestDropWhileTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		source := attach.NewSource(i.fetch, 0.5)
		wantToken(t, source, "1")
		i.set(errDown)
		source.Drop("1")
		wantToken(t, source, "1") // another server may accept it
		wantRequests(t, i, 2)
		advance(time.Hour)
		if _, err := source.TokenContext(t.Context()); !errors.Is(err, errDown) {
			t.Errorf("after the token's end: got error %v, want %v", err, errDown)
		}
	})
}

// A server that refuses every token, 100 times a second for an hour.
func TestRefusalStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: 24 * time.Hour}
		source := attach.NewSource(i.fetch, 0.5)
		for range 3600 * 100 {
			token, err := source.TokenContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			source.Drop(token.AccessToken)
			<-time.After(10 * time.Millisecond)
		}
		if got := i.requests(); got < 100 || got > 130 {
			t.Errorf("got %d token requests in an hour, want about one in 30 s", got)
		}
		// After a quiet period, a refusal takes effect at once again.
		advance(2 * time.Minute)
		source.Drop(accessToken(t, source))
		before := i.requests()
		accessToken(t, source)
		wantRequests(t, i, before+1)
		advance(1100 * time.Millisecond)
		source.Drop(accessToken(t, source))
		accessToken(t, source)
		wantRequests(t, i, before+2)
	})
}

func TestConcurrentUse(t *testing.T) {
	var issued atomic.Int64
	source := attach.NewSource(func(context.Context) (string, time.Duration, error) {
		return fmt.Sprint(issued.Add(1)), time.Hour, nil
	}, 0.5)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 1000 {
				token, err := source.Token()
				if err != nil {
					t.Error(err)
					return
				}
				source.Drop(token.AccessToken)
			}
		})
	}
	group.Wait()
}
