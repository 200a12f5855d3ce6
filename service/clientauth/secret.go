package clientauth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/semaphore"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// secret picks the one id and secret that the evidence holds, and names the method: client_secret_basic or
// client_secret_post (RFC 6749 §2.3.1).
func (e *Evidence) secret() (method, id, secret string, err error) {
	if err := e.assertion(); err != nil {
		return "", "", "", err
	}
	scheme, credentials := e.Authorization, ""
	if end := strings.IndexAny(scheme, " \t"); end >= 0 {
		scheme, credentials = scheme[:end], scheme[end:]
	}
	if !strings.EqualFold(scheme, "Basic") {
		switch {
		case e.ClientID == "":
			return "", "", "", oauth.Refuse(oauth.InvalidRequest, "client_id is missing.")
		case e.ClientSecret == "":
			return "", "", "", oauth.Refuse(oauth.InvalidRequest, "client_secret is missing.")
		}
		return oauth.ClientSecretPost, e.ClientID, e.ClientSecret, bound(e.ClientID, e.ClientSecret)
	}
	method = oauth.ClientSecretBasic
	if e.ClientSecret != "" {
		return method, "", "", oauth.Refuse(oauth.InvalidRequest, "Basic and client_secret were both sent; send one.")
	}
	id, secret, ok := ParseBasic(credentials)
	switch {
	case !ok:
		return method, "", "", refused(oauth.MalformedCredentials, "malformed Basic credentials")
	case id == "" || secret == "":
		return method, "", "", oauth.Refuse(oauth.InvalidRequest, "The Basic credentials lack the client id or the secret.")
	case e.ClientID != "" && e.ClientID != id:
		return method, "", "", oauth.Refuse(oauth.InvalidRequest, "client_id differs from the client of the Basic credentials.")
	}
	return method, id, secret, bound(id, secret)
}

// assertion refuses what is sent as an assertion: with a secret it is evidence of two kinds, half of it is malformed, and
// alone it proves nothing, since no client has a key (RFC 7521 §4.2).
func (e *Evidence) assertion() error {
	switch {
	case e.Assertion == "" && e.AssertionType == "":
		return nil
	case e.Assertion == "" || e.AssertionType == "":
		return oauth.Refuse(oauth.InvalidRequest, "client_assertion and client_assertion_type go together.")
	case e.ClientSecret != "" || len(e.Authorization) >= len("Basic") && strings.EqualFold(e.Authorization[:len("Basic")], "Basic"):
		return oauth.Refuse(oauth.InvalidRequest, "An assertion and a secret were both sent; send one.")
	}
	return refused(oauth.AssertionNotOffered, "client assertions are not offered")
}

func bound(id, secret string) error {
	switch {
	case len(id) > oauth.MaxID:
		return oauth.Refuse(oauth.InvalidRequest, "client_id has more than 255 characters.")
	case len(secret) > oauth.MaxSecret:
		return oauth.Refuse(oauth.InvalidRequest, "client_secret has more than 512 characters.")
	}
	return nil
}

// ParseBasic reads the credentials of the Basic scheme: base64 of the id, a colon and the secret, where both are
// form-encoded (RFC 7617 §2, RFC 6749 §2.3.1).
func ParseBasic(credentials string) (id, secret string, ok bool) {
	// Form encoding can make three bytes of one, base64 four of three.
	const most = (3*(oauth.MaxID+oauth.MaxSecret) + 1) * 4 / 3 * 2
	if len(credentials) > most {
		return "", "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(credentials))
	if err != nil {
		return "", "", false
	}
	id, secret, ok = strings.Cut(string(decoded), ":")
	if !ok {
		return "", "", false
	}
	if id, err = url.QueryUnescape(id); err != nil {
		return "", "", false
	}
	if secret, err = url.QueryUnescape(secret); err != nil {
		return "", "", false
	}
	return id, secret, true
}

const (
	// remembered bounds how many chosen secrets that proved right are remembered.
	remembered = 100_000
	// sourceShare bounds the requests of one source that wait for a slow hash, siteShare those of one IPv6 network of 48
	// bits, which is what one subscriber may have (RFC 6177 §2), so that neither can keep everybody else out.
	sourceShare = 32
	siteShare   = 2 * sourceShare
	siteBits    = 48
)

// queued bounds how many requests wait for a slow hash. A processor computes some 40 a second, so the last in a full
// queue waits some 3 s. suspectShare bounds those of all sources from which proofs have failed lately, so that the others
// find a place.
var (
	queued       = 128 * runtime.GOMAXPROCS(0)
	suspectShare = queued / 2
)

// secrets checks secrets. A generated one costs an HMAC. A chosen one costs Argon2id the first time; that it was right is
// then remembered, so that who chose a secret makes no difference to a client's speed.
type secrets struct {
	// find is the hasher's Match.
	find func(secrets []clientsecret.Secret, secret string, now time.Time) int
	// slow bounds the slow hashes under way, waiting bounds those who wait for their turn.
	slow, waiting *semaphore.Weighted
	failures      Failures
	// sources and sites have source and site → how many of its requests wait; suspects is how many of suspect sources do.
	mu sync.Mutex
	// first has fingerprint → what closes when the one who is at it is done.
	first    map[[sha256.Size]byte]chan struct{}
	sources  map[netip.Addr]int
	sites    map[netip.Addr]int
	suspects int
	// key hides the secrets in proven from who reads the memory; it lives as long as the process.
	key []byte
	// proven has HMAC(id, secret) → what the secret matched. A client whose secret was changed no longer has that hash, so
	// nothing needs to be forgotten.
	proven *otter.Cache[[sha256.Size]byte, match]
	// watch is told of each slow hash.
	watch func(context.Context) func()
	counts
}

// match is what a presented secret turned out to be.
type match struct {
	// id and hash are those of the client's secret; no hash stands for none.
	id   string
	hash clientsecret.Hash
	// outdated says that the hash is one to be replaced.
	outdated bool
}

func newSecrets(config Config) *secrets {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails (crypto/rand)
	return &secrets{
		find:     config.Hasher.Match,
		slow:     semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		waiting:  semaphore.NewWeighted(int64(queued)),
		failures: config.Failures,
		sources:  make(map[netip.Addr]int),
		sites:    make(map[netip.Addr]int),
		first:    make(map[[sha256.Size]byte]chan struct{}),
		key:      key,
		proven:   otter.Must(&otter.Options[[sha256.Size]byte, match]{MaximumSize: remembered}),
		watch:    config.Slow,
	}
}

// match tells which of the client's secrets that count now the proof has. What was remembered is used only for a client
// that can get a token by it: for any other the right secret takes as long as a wrong one.
//
// Where too many proofs have failed, a chosen secret is not looked at any more, unless it is remembered. A generated one
// always is: nobody can guess it, so whoever has it is the client, and one that is wrong costs next to nothing.
func (s *secrets) match(ctx context.Context, client *registry.Client, usable bool, p proof) (match, error) {
	if clientsecret.Generated(p.secret) {
		found := s.compare(client, p)
		s.generated.count(found)
		return found, nil
	}
	fingerprint := s.fingerprint(client.ID, p.secret)
	remembered := func() (match, bool) {
		known, ok := s.proven.GetIfPresent(fingerprint)
		return known, ok && usable && known.holds(client, p.at)
	}
	if known, ok := remembered(); ok {
		s.remembered.Add(1)
		return known, nil
	}
	if wait := s.failures.RetryAfter(p.id, p.source); wait > 0 {
		return match{}, tooMany(wait, nil)
	}
	// Those who come with the same wait for the first of them, without a place: a client whose many processes start at
	// once, or meet a replica that has just started, needs one hash, not as many.
	if first := s.join(fingerprint); first != nil {
		select {
		case <-first:
		case <-ctx.Done():
		}
		if known, ok := remembered(); ok {
			s.remembered.Add(1)
			return known, nil
		}
	} else {
		defer s.part(fingerprint)
	}
	leave, ok := s.enter(p.source)
	if !ok {
		return match{}, &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Limited: true, RetryAfter: time.Second, Reason: oauth.TooManySecrets,
			Text: "Too many client secrets are being checked; try again.",
		}
	}
	defer leave()
	if err := s.slow.Acquire(ctx, 1); err != nil {
		return match{}, &oauth.Error{
			Code: oauth.TemporarilyUnavailable, Limited: true, RetryAfter: time.Second, Reason: oauth.TooManySecrets,
			Text: "The client secret was not checked in time; try again.", Cause: err,
		}
	}
	defer s.slow.Release(1)
	if known, ok := remembered(); ok {
		s.remembered.Add(1)
		return known, nil
	}
	// And those who came before may all have guessed wrong.
	if wait := s.failures.RetryAfter(p.id, p.source); wait > 0 {
		return match{}, tooMany(wait, nil)
	}
	found := s.compareSlowly(ctx, client, p)
	if found.hash != "" && usable {
		s.proven.Set(fingerprint, found)
	}
	return found, nil
}

// join gives what closes when the one who is at the same secret of the same client is done; nil where nobody is, and the
// caller is the first, who must part.
func (s *secrets) join(fingerprint [sha256.Size]byte) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, ok := s.first[fingerprint]; ok {
		return first
	}
	s.first[fingerprint] = make(chan struct{})
	return nil
}

func (s *secrets) part(fingerprint [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.first[fingerprint])
	delete(s.first, fingerprint)
}

// enter takes a place in the queue for slow hashes, if there is one and the source has not its share already. leave gives
// the place back.
func (s *secrets) enter(source netip.Addr) (leave func(), ok bool) {
	suspect := s.failures.Suspect(source)
	source = remoteaddr.RateLimitKey(source)
	s.mu.Lock()
	defer s.mu.Unlock()
	if (source.IsValid() && (s.sources[source] >= sourceShare || s.sites[siteOf(source)] >= siteShare)) || (suspect && s.suspects >= suspectShare) || !s.waiting.TryAcquire(1) {
		s.rejected.Add(1)
		return nil, false
	}
	s.queued.Add(1)
	s.sources[source]++
	s.sites[siteOf(source)]++
	if suspect {
		s.suspects++
	}
	return func() { s.leave(source, suspect) }, true
}

func (s *secrets) leave(source netip.Addr, suspect bool) {
	s.waiting.Release(1)
	s.queued.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if suspect {
		s.suspects--
	}
	if s.sources[source]--; s.sources[source] == 0 {
		delete(s.sources, source)
	}
	site := siteOf(source)
	if s.sites[site]--; s.sites[site] == 0 {
		delete(s.sites, site)
	}
}

// siteOf gives the network of siteBits that an IPv6 source is in, by its first address; any other source is its own site.
func siteOf(source netip.Addr) netip.Addr {
	if !source.Is6() {
		return source
	}
	site, _ := source.Prefix(siteBits) // it fails for none of 128 bits
	return site.Addr()
}

// compare compares the secret with those of the client, however many it has.
func (s *secrets) compare(client *registry.Client, p proof) match {
	i := s.find(client.Secrets, p.secret, p.at)
	if i < 0 {
		return match{}
	}
	found := &client.Secrets[i]
	return match{found.ID, found.Hash, clientsecret.Outdated(client.Secrets, i)}
}

// holds reports whether what matched is a secret of the client that counts now.
func (m match) holds(client *registry.Client, now time.Time) bool {
	for i := range client.Secrets {
		if s := &client.Secrets[i]; s.ID == m.id && s.Hash == m.hash && !s.Expired(now) {
			return true
		}
	}
	return false
}

func (s *secrets) fingerprint(id oauth.ClientID, secret string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(id.String()))
	mac.Write([]byte{0}) // no id has this byte, so no id and secret run into another pair
	mac.Write([]byte(secret))
	mac.Sum(sum[:0])
	return sum
}
