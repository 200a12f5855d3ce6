package poll_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/gcerrors"
	"gocloud.dev/runtimevar"

	"github.com/grantorhq/grantor/interceptors/secretvar/poll"
	"github.com/grantorhq/grantor/service/must"
)

// fakeStore is a store whose answers the test determines. It records when it was read.
type fakeStore struct {
	mu     sync.Mutex
	read   func(ctx context.Context) ([]byte, error)
	reads  []time.Time
	closed bool
}

func (s *fakeStore) Read(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	s.reads = append(s.reads, time.Now())
	read := s.read
	s.mu.Unlock()
	return read(ctx)
}

// answer changes what the store answers.
func (s *fakeStore) answer(read func(context.Context) ([]byte, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = read
}

func (s *fakeStore) Close() { s.closed = true }

// pauses returns the times between the reads.
func (s *fakeStore) pauses() (list []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 1; i < len(s.reads); i++ {
		list = append(list, s.reads[i].Sub(s.reads[i-1]))
	}
	return list
}

func value(text string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(text), nil }
}

func failure(code gcerrors.ErrorCode) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return nil, &poll.Error{Text: "no", Code: code} }
}

// follow runs a test with a variable that follows the store, in a bubble whose time passes at once.
func follow(t *testing.T, s *fakeStore, query string, test func(t *testing.T, v *runtimevar.Variable)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		options, err := poll.ParseOptions(t.Context(), must.Get(url.ParseQuery(query)))
		if err != nil {
			t.Fatal(err)
		}
		v := poll.New(s, options)
		test(t, v)
		if err := v.Close(); err != nil || !s.closed {
			t.Errorf("Close: got %v, and the store is closed: %t", err, s.closed)
		}
	})
}

func TestPauses(t *testing.T) {
	const s = time.Second
	for name, test := range map[string]struct {
		query string
		read  func(context.Context) ([]byte, error)
		want  []time.Duration
	}{
		"default":                  {"", value("a"), []time.Duration{30 * s, 30 * s, 30 * s}},
		"interval":                 {"wait=5m", value("a"), []time.Duration{300 * s, 300 * s, 300 * s}},
		"failures":                 {"", failure(gcerrors.Unknown), []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s}},
		"failures, long interval":  {"wait=1m", failure(gcerrors.NotFound), []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s}},
		"failures, short interval": {"wait=500ms", failure(gcerrors.Internal), []time.Duration{s / 2, s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s}},
		"throttled":                {"wait=10s", failure(gcerrors.ResourceExhausted), []time.Duration{10 * s, 20 * s, 30 * s, 30 * s}},
	} {
		t.Run(name, func(t *testing.T) {
			store := &fakeStore{read: test.read}
			follow(t, store, test.query, func(t *testing.T, _ *runtimevar.Variable) {
				var total time.Duration
				for _, pause := range test.want {
					total += pause
				}
				time.Sleep(total + time.Millisecond)
				synctest.Wait()
				got := store.pauses()
				if len(got) < len(test.want) {
					t.Fatalf("got %v, want about %v", got, test.want)
				}
				for i, want := range test.want {
					if got[i] > want || got[i] < want*4/5 {
						t.Errorf("pause %d: got %v, want up to a fifth less than %v", i, got[i], want)
					}
				}
			})
		})
	}
}

// TestChange follows a secret through a change and an outage. Each is seen within the interval.
func TestChange(t *testing.T) {
	store := &fakeStore{read: value("1")}
	follow(t, store, "decoder=string", func(t *testing.T, v *runtimevar.Variable) {
		expect := func(want string) {
			t.Helper()
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if got, err := v.Latest(t.Context()); err != nil || got.Value != want {
				t.Errorf("got %v, %v, want %q", got.Value, err, want)
			}
		}
		expect("1")
		store.answer(value("2"))
		expect("2")
		store.answer(failure(gcerrors.PermissionDenied))
		for range 100 {
			expect("2")
		}
		store.answer(value("2"))
		expect("2")
		store.answer(value("3"))
		expect("3")
		if err := v.CheckHealth(); err != nil {
			t.Error(err)
		}
	})
}

func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		query, want string
		read        func(context.Context) ([]byte, error)
		code        gcerrors.ErrorCode
	}{
		"refused":          {"", "(code=PermissionDenied): no", failure(gcerrors.PermissionDenied), gcerrors.PermissionDenied},
		"unknown":          {"", "(code=Unknown): EOF", func(context.Context) ([]byte, error) { return nil, errors.New("EOF") }, gcerrors.Unknown},
		"panics":           {"", "the server's answer cannot be understood", func(context.Context) ([]byte, error) { panic("s3cret") }, gcerrors.Unknown},
		"large":            {"", "the secret has more than 65536 bytes", value(strings.Repeat("s3cret", 20_000)), gcerrors.FailedPrecondition},
		"cannot be parsed": {"decoder=jsonmap", "the secret cannot be decoded", value("s3cret"), gcerrors.FailedPrecondition},
		"hangs": {"", "no answer within 20s", func(ctx context.Context) ([]byte, error) {
			<-ctx.Done()
			return nil, poll.Unreachable(ctx.Err())
		}, gcerrors.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			follow(t, &fakeStore{read: test.read}, test.query, func(t *testing.T, v *runtimevar.Variable) {
				_, err := v.Watch(t.Context())
				var own *poll.Error
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") || gcerrors.Code(err) != test.code {
					t.Errorf("got %v, want %q", err, test.want)
				}
				if got, want := v.ErrorAs(err, &own), name != "unknown"; got != want {
					t.Errorf("ErrorAs: got %t, want %t", got, want)
				}
			})
		})
	}
}
