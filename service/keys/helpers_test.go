package keys_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	rotation  = 7 * 24 * time.Hour
	maxAge    = time.Hour
	retention = 24 * time.Hour
	// slack is the clock skew that the ring tolerates: a successor is published that much earlier.
	slack = time.Minute
)

var start = time.Unix(1_800_000_000, 0)

// memory is a store in memory.
type memory struct {
	// name is the name that the ring is sealed for.
	name     string
	mu       sync.Mutex
	document []byte
	version  uint64
	saves    int
	revoked  []string
	// err, if not nil, is the error of every call.
	err error
	// conflict makes every save fail with ErrConflict.
	conflict bool
}

func (m *memory) Name() string { return m.name }

func (m *memory) LoadRing(context.Context) ([]byte, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.document == nil {
		return nil, 0, m.err
	}
	return bytes.Clone(m.document), m.version, m.err
}

func (m *memory) SaveRing(_ context.Context, document []byte, version uint64, revoked ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	current := m.version
	if m.document == nil {
		current = 0
	}
	switch {
	case m.err != nil:
		return m.err
	case version != current || m.conflict:
		return keys.ErrConflict
	}
	m.document, m.version = bytes.Clone(document), m.version+1
	m.saves++
	m.revoked = append(m.revoked, revoked...)
	return nil
}

// setErr sets the error of every call.
func (m *memory) setErr(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// clock is a clock that the test advances.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: start} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var kek = keys.NewKEK()

// fast are the algorithms whose keys are generated quickly.
var fast = []jwks.Algorithm{jwks.ES256, jwks.EdDSA}

func config(store keys.Store, c *clock, algorithms ...jwks.Algorithm) keys.Config {
	return keys.Config{
		Store: store, Sealer: must.Get(keys.NewSealer(kek)), Algorithms: algorithms,
		Rotation: rotation, MaxAge: maxAge, Retention: retention, Now: c.Now,
	}
}

func open(t *testing.T, store keys.Store, c *clock, algorithms ...jwks.Algorithm) *keys.Ring {
	t.Helper()
	ring, err := keys.Open(t.Context(), config(store, c, algorithms...))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func maintain(t *testing.T, rings ...*keys.Ring) {
	t.Helper()
	for _, ring := range rings {
		if err := ring.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// ids returns the IDs of the published keys.
func ids(ring *keys.Ring) []string {
	var ids []string
	for _, key := range ring.Published() {
		ids = append(ids, key.ID())
	}
	return ids
}

// active returns the ID of the key that signs for the algorithm.
func active(t *testing.T, ring *keys.Ring, algorithm jwks.Algorithm) string {
	t.Helper()
	signer, err := ring.Signer(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	if got := signer.Public().Algorithm(); got != algorithm {
		t.Fatalf("got a signer for %s, want %s", got, algorithm)
	}
	return signer.Public().ID()
}

func expectSame(t *testing.T, rings ...*keys.Ring) {
	t.Helper()
	for _, ring := range rings[1:] {
		if got, want := ids(ring), ids(rings[0]); !slices.Equal(got, want) {
			t.Errorf("got the keys %q, want %q", got, want)
		}
		if !bytes.Equal(ring.Pepper(), rings[0].Pepper()) {
			t.Error("the rings have different peppers")
		}
	}
}

func expectError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
