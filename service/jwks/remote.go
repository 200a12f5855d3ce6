package jwks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/recovery"
)

// Fetch gets an issuer's current keys, and how long they are fresh. A Fetch that panics, or ends its goroutine, counts as
// one that fails.
type Fetch func(ctx context.Context) (*Set, time.Duration, error)

const (
	fetchTimeout = 10 * time.Second
	// How long a fetched set is fresh if the issuer does not say, and the bounds on what it says.
	defaultMaxAge = 5 * time.Minute
	minMaxAge     = time.Minute
	maxMaxAge     = 24 * time.Hour
)

// HTTP returns a Fetch that reads the keys of issuer over HTTP. It finds them in the issuer's metadata (RFC 8414). If
// client is nil, [http.DefaultClient] is used.
func HTTP(client *http.Client, issuer string) Fetch {
	return Discovered(oauth.Discovery{Client: client}, issuer)
}

// Discovered returns a Fetch that reads the keys of issuer over HTTP as discovery says.
func Discovered(discovery oauth.Discovery, issuer string) Fetch {
	if discovery.Client == nil {
		discovery.Client = http.DefaultClient
	}
	return func(ctx context.Context) (*Set, time.Duration, error) {
		found, err := discovery.Metadata(ctx, issuer)
		if err != nil {
			return nil, 0, err
		}
		if found.JWKSURI == "" {
			return nil, 0, errors.New("the issuer's metadata has no jwks_uri")
		}
		return At(discovery, found.JWKSURI, MaxDocument)(ctx)
	}
}

// At returns a Fetch that reads the keys at a URL, in a document of at most limit bytes, as discovery says.
func At(discovery oauth.Discovery, url string, limit int64) Fetch {
	return func(ctx context.Context) (*Set, time.Duration, error) {
		body, header, err := discovery.Get(ctx, url, limit)
		if err != nil {
			return nil, 0, err
		}
		set, err := Parse(body)
		return set, maxAge(header), err
	}
}

// maxAge returns the max-age of Cache-Control (RFC 9111 §5.2.2.1), or its default.
func maxAge(header http.Header) time.Duration {
	for directive := range strings.SplitSeq(header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.Trim(directive, " \t"), "=")
		seconds, err := strconv.ParseInt(value, 10, 32)
		if oauth.EqualFold(name, "max-age") && err == nil {
			return time.Duration(seconds) * time.Second
		}
	}
	return defaultMaxAge
}

// RemoteConfig configures a [Remote]. The zero value of each field selects its default.
type RemoteConfig struct {
	// MinInterval is the minimum time between two fetches that callers cause, by an unknown key id or while there are
	// no keys. The default is 5 s.
	MinInterval time.Duration
	// MaxStale is how long the last set is used after its max-age while the issuer cannot be reached. The default is
	// 24 h.
	MaxStale time.Duration
	// Now returns the current time. The default is time.Now.
	Now func() time.Time
}

// Remote is the key set that an issuer publishes. It is fetched once for all callers, and again when its max-age
// (1 minute to 24 hours) has passed; until that succeeds, the last set is used. It is safe for concurrent use by
// multiple goroutines.
type Remote struct {
	fetch  Fetch
	config RemoteConfig

	cached atomic.Pointer[cachedSet]
	group  singleflight.Group

	mu        sync.Mutex
	fetching  bool
	lastFetch time.Time // start of the last fetch
	lastErr   error     // result of the last completed fetch
}

// cachedSet is a fetched set with its times.
type cachedSet struct {
	set         *Set
	fetchedAt   time.Time
	freshUntil  time.Time
	usableUntil time.Time
}

// NewRemote returns a key set that is filled by fetch when it is first used.
func NewRemote(fetch Fetch, config RemoteConfig) *Remote {
	if config.MinInterval == 0 {
		config.MinInterval = 5 * time.Second
	}
	if config.MaxStale == 0 {
		config.MaxStale = 24 * time.Hour
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Remote{fetch: fetch, config: config}
}

// Find returns the first key with the id, as [Set.Find] does. A known key is returned without delay. An unknown id
// causes a fetch, joined with any in flight, unless one was made less than [RemoteConfig.MinInterval] ago; so a flood
// of invented ids costs the issuer one request per interval. The error wraps [ErrUnknownKey] if the set that was
// fetched last does not contain the id, and says when that was; any other error means that the keys could not be
// fetched.
func (r *Remote) Find(ctx context.Context, id string) (Key, error) {
	return r.find(ctx, func(set *Set) (Key, error) { return set.Find(ctx, id) })
}

// FindThumbprint is [Remote.Find] for the first key with the RFC 7638 thumbprint.
func (r *Remote) FindThumbprint(ctx context.Context, thumbprint string) (Key, error) {
	return r.find(ctx, func(set *Set) (Key, error) { return set.FindThumbprint(thumbprint) })
}

// find returns the key that lookUp finds in the set.
func (r *Remote) find(ctx context.Context, lookUp func(*Set) (Key, error)) (Key, error) {
	if set := r.current(); set != nil {
		if k, err := lookUp(set); err == nil {
			return k, nil
		}
	}
	if err := r.Refresh(ctx); err != nil {
		return Key{}, err
	}
	set := r.current()
	if set == nil {
		return Key{}, errors.New("the issuer's keys are too old to be used")
	}
	k, err := lookUp(set)
	if fetched := r.cached.Load(); err != nil && fetched != nil {
		err = fmt.Errorf("%w, which was fetched at %s", err, fetched.fetchedAt.UTC().Format(time.RFC3339))
	}
	return k, err
}

// Trusts reports whether the set that was fetched last contains k and may still be used. Unlike [Remote.Find], it neither
// causes a fetch for an unknown key nor waits for one.
func (r *Remote) Trusts(k Key) bool {
	set := r.current()
	return set != nil && set.Trusts(k)
}

// Ready returns nil if there is a set that may be used now. If there is none, it fetches one, as Refresh does.
func (r *Remote) Ready(ctx context.Context) error {
	if r.current() != nil {
		return nil
	}
	if err := r.Refresh(ctx); err != nil {
		return err
	}
	if r.current() == nil {
		return errors.New("the keys are too old to be used")
	}
	return nil
}

// Refresh fetches the set, joining a fetch in flight, and returns the error of the fetch. If the last fetch began less
// than [RemoteConfig.MinInterval] ago, Refresh makes no other and returns the error of that one, nil if it succeeded.
// The context bounds this caller's wait; the fetch goes on for other callers.
func (r *Remote) Refresh(ctx context.Context) error {
	done := r.startFetch(r.config.Now())
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// current returns the set that may be used now, or nil, and starts renewing an old one in the background.
func (r *Remote) current() *Set {
	k := r.cached.Load()
	if k == nil {
		return nil
	}
	now := r.config.Now()
	// A set with a future time was fetched before the clock was set back. It would count as fresh for too long.
	if now.Before(k.freshUntil) && !now.Before(k.fetchedAt) {
		return k.set
	}
	if r.due(now) {
		r.startFetch(now)
	}
	if now.Before(k.usableUntil) {
		return k.set
	}
	return nil
}

// due reports whether a fetch may start. While one hangs, none may: each caller would join it, and the waiters of the
// singleflight group would pile up.
func (r *Remote) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dueLocked(now)
}

// dueLocked implements due. r.mu must be held.
func (r *Remote) dueLocked(now time.Time) bool {
	if r.fetching {
		return false
	}
	// A clock that was set back must not prevent fetching.
	return r.lastFetch.IsZero() || now.Sub(r.lastFetch) >= r.config.MinInterval || now.Before(r.lastFetch)
}

// startFetch starts fetchOnce, or joins the one in flight.
func (r *Remote) startFetch(now time.Time) <-chan singleflight.Result {
	return r.group.DoChan("", func() (any, error) { return nil, r.fetchOnce(now) })
}

// fetchOnce fetches the set if that is due. The group runs it at most once at a time. It serves every waiting caller,
// so it does not end with the context of any of them. It neither panics nor ends its goroutine, whatever the fetch does:
// the group would panic where the program cannot recover, or leave its callers waiting.
func (r *Remote) fetchOnce(now time.Time) error {
	r.mu.Lock()
	if !r.dueLocked(now) {
		defer r.mu.Unlock()
		return r.lastErr
	}
	r.fetching, r.lastFetch = true, now
	r.mu.Unlock()

	fetched, err := recovery.Await("fetching the keys", r.fetchSet)
	if err == nil {
		fresh := now.Add(min(max(fetched.maxAge, minMaxAge), maxMaxAge))
		r.cached.Store(&cachedSet{fetched.set, now, fresh, fresh.Add(r.config.MaxStale)})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetching, r.lastErr = false, err
	return err
}

// fetchedSet is the result of a Fetch.
type fetchedSet struct {
	set    *Set
	maxAge time.Duration
}

// fetchSet calls the Fetch.
func (r *Remote) fetchSet() (fetchedSet, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	set, age, err := r.fetch(ctx)
	if set == nil && err == nil {
		err = errors.New("fetching the keys returned no set and no error")
	}
	return fetchedSet{set, age}, err
}
