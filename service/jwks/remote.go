package jwks

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/grantorhq/grantor/service/oauth"
)

// Fetch gets an issuer's current keys and how long they may be kept.
type Fetch func(ctx context.Context) (*Set, time.Duration, error)

const (
	fetchTimeout = 10 * time.Second
	// How long a fetched set counts as fresh when the issuer does not say, and the bounds on what it says.
	defaultMaxAge = 5 * time.Minute
	leastMaxAge   = time.Minute
	mostMaxAge    = 24 * time.Hour
)

// HTTP makes a Fetch that finds the keys of issuer by its description (RFC 8414) and reads them over HTTP.
func HTTP(client *http.Client, issuer string) Fetch {
	return func(ctx context.Context) (*Set, time.Duration, error) {
		found, err := oauth.Discover(ctx, client, issuer)
		if err != nil {
			return nil, 0, err
		}
		if found.JWKSURI == "" {
			return nil, 0, errors.New("the issuer's description has no jwks_uri")
		}
		body, header, err := oauth.Get(ctx, client, found.JWKSURI, MaxDocument)
		if err != nil {
			return nil, 0, err
		}
		set, err := Parse(body)
		return set, maxAge(header), err
	}
}

// maxAge reads the max-age of Cache-Control (RFC 9111 §5.2.2.1).
func maxAge(header http.Header) time.Duration {
	for directive := range strings.SplitSeq(header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		seconds, err := strconv.ParseInt(value, 10, 32)
		if strings.EqualFold(name, "max-age") && err == nil {
			return time.Duration(seconds) * time.Second
		}
	}
	return defaultMaxAge
}

// RemoteConfig says how a [Remote] behaves; the zero of each field means its default.
type RemoteConfig struct {
	// MinInterval is the least time between two fetches that callers cause, by a key id that is not known or while
	// there are no keys. Default 5 s.
	MinInterval time.Duration
	// MaxStale is how long the last good set is used while the issuer cannot be reached. Default 24 h.
	MaxStale time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Remote is the key set of an issuer elsewhere. It is fetched once for all callers and again when its max-age is over;
// meanwhile, and while the issuer cannot be reached, the last good set answers. It may be used by several goroutines.
type Remote struct {
	fetch  Fetch
	config RemoteConfig

	kept  atomic.Pointer[kept]
	group singleflight.Group

	mu       sync.Mutex
	fetching bool
	tried    time.Time // when the last fetch began
	failure  error     // how the last one that ended did; nil where it did not fail
}

// kept is a set that was fetched.
type kept struct {
	set        *Set
	fetched    time.Time
	freshUntil time.Time
	usableTill time.Time
}

// NewRemote makes a key set that fetch fills when it is first asked.
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

// Find gives the key with the id. A key that is known is never delayed. An id that is not known causes a fetch, joined
// with any under way, unless one was made a moment ago; so a flood of invented ids costs the issuer one request each
// [RemoteConfig.MinInterval]. [ErrUnknownKey] says that a set fetched since then does not have it.
func (r *Remote) Find(ctx context.Context, id string) (Key, error) {
	if set := r.current(); set != nil {
		if k, err := set.Find(ctx, id); err == nil {
			return k, nil
		}
	}
	if err := r.Refresh(ctx); err != nil {
		return Key{}, err
	}
	set := r.current()
	if set == nil {
		return Key{}, errors.New("the issuer's keys are older than may be")
	}
	return set.Find(ctx, id)
}

// Trusts reports whether the current set has the key.
func (r *Remote) Trusts(k Key) bool {
	set := r.current()
	return set != nil && set.Trusts(k)
}

// Refresh fetches the set now, unless that was done within [RemoteConfig.MinInterval]; it then gives that fetch's error.
func (r *Remote) Refresh(ctx context.Context) error {
	done := r.group.DoChan("", r.fetchOnce)
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// current gives the set that may be used now, or nil, and sees to it that an old one is renewed in the background.
func (r *Remote) current() *Set {
	k := r.kept.Load()
	if k == nil {
		return nil
	}
	now := r.config.Now()
	// A set from the future was fetched before the clock was set back: it would count as fresh for too long.
	if now.Before(k.freshUntil) && !now.Before(k.fetched) {
		return k.set
	}
	if r.due(now) {
		r.group.DoChan("", r.fetchOnce)
	}
	if now.Before(k.usableTill) {
		return k.set
	}
	return nil
}

// due reports whether a fetch may begin. While one hangs it may not: each caller who came by would join it, and their
// places in its queue would pile up.
func (r *Remote) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dueLocked(now)
}

func (r *Remote) dueLocked(now time.Time) bool {
	if r.fetching {
		return false
	}
	// A clock that was set back must not stop fetching.
	return r.tried.IsZero() || now.Sub(r.tried) >= r.config.MinInterval || now.Before(r.tried)
}

// fetchOnce runs at most once at a time. It serves all who wait and so does not end with any one caller's context.
func (r *Remote) fetchOnce() (any, error) {
	now := r.config.Now()
	r.mu.Lock()
	if !r.dueLocked(now) {
		defer r.mu.Unlock()
		return nil, r.failure
	}
	r.fetching, r.tried = true, now
	r.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	set, age, err := r.fetch(ctx)
	if err == nil {
		fresh := now.Add(min(max(age, leastMaxAge), mostMaxAge))
		r.kept.Store(&kept{set, now, fresh, fresh.Add(r.config.MaxStale)})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetching, r.failure = false, err
	return nil, err
}
