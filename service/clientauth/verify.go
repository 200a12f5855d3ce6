package clientauth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/registry"
)

// maxProven is the maximum number of proven chosen secrets in memory.
const maxProven = 100_000

// secrets verifies client secrets. A generated secret costs one HMAC. A chosen one costs Argon2id the first time; its
// success is then remembered, so that whether a person chose the secret makes no difference to a client's speed.
type secrets struct {
	// find is [clientsecret.Hasher.Match].
	find     func(secrets []clientsecret.Secret, secret string, now time.Time) int
	failures Failures
	// key hides the secrets in proven from a reader of the process memory. It exists only in this process.
	key []byte
	// proven maps HMAC(id, secret) to what the secret matched. A client whose secret was changed no longer has the matched
	// hash, so that no entry needs to be invalidated.
	proven  *otter.Cache[[sha256.Size]byte, match]
	flights flights
	queue   *queue
	// onSlow, if not nil, is [Config.Slow].
	onSlow func(context.Context) func()
	counters
}

// match is the stored secret that a presented one matches. The zero value is no match.
type match struct {
	id   string
	hash clientsecret.Hash
	// outdated reports whether the hash is to be replaced.
	outdated bool
}

func (m match) found() bool { return m.hash != "" }

func newSecrets(config Config) *secrets {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails (crypto/rand)
	return &secrets{
		find:     config.Hasher.Match,
		failures: config.Failures,
		key:      key,
		proven:   otter.Must(&otter.Options[[sha256.Size]byte, match]{MaximumSize: maxProven}),
		flights:  flights{current: make(map[[sha256.Size]byte]chan struct{})},
		queue:    newQueue(),
		onSlow:   config.Slow,
	}
}

// attempt is the check of one secret.
type attempt struct {
	proof

	// client is the claimed client, without secrets if there is none of that ID.
	client *registry.Client
	// usable reports whether the right secret authenticates the client, which may be disabled or restricted to other
	// methods or networks.
	usable bool
}

// verify returns the secret of the client that the attempt matches, or the zero match if there is none.
//
// After too many failures a chosen secret is not checked unless it is remembered. A generated secret is always checked:
// it cannot be guessed, so that the sender of the right one is the client, and a wrong one costs next to nothing.
func (s *secrets) verify(ctx context.Context, a attempt) (match, error) {
	if clientsecret.Generated(a.secret) {
		found := s.compare(&a)
		s.generated.count(found)
		return found, nil
	}
	fingerprint := s.fingerprint(a.id, a.secret)
	if known, ok := s.remembered(&a, fingerprint); ok {
		return known, nil
	}
	if err := s.throttle(&a); err != nil {
		return match{}, err
	}
	return s.verifySlowly(ctx, a, fingerprint)
}

// verifySlowly verifies a chosen secret that is not remembered, with one slow hash.
func (s *secrets) verifySlowly(ctx context.Context, a attempt, fingerprint [sha256.Size]byte) (found match, err error) {
	defer s.flights.enter(ctx, fingerprint)()
	if known, ok := s.remembered(&a, fingerprint); ok {
		return known, nil
	}
	err = s.queue.do(ctx, a.source, s.failures.Suspect(a.source), func() error {
		// While this attempt waited, another one may have proved the secret, and those ahead may all have guessed wrong.
		var ok bool
		if found, ok = s.remembered(&a, fingerprint); ok {
			return nil
		}
		if err := s.throttle(&a); err != nil {
			return err
		}
		if s.onSlow != nil {
			defer s.onSlow(ctx)()
		}
		found = s.compare(&a)
		s.chosen.count(found)
		if found.found() && a.usable {
			s.proven.Set(fingerprint, found)
		}
		return nil
	})
	return found, err
}

// remembered returns what the secret matched when it was last proven, if the client still has that secret. It reports
// nothing for an attempt that is not usable: there the right secret must take as long as a wrong one.
func (s *secrets) remembered(a *attempt, fingerprint [sha256.Size]byte) (match, bool) {
	known, ok := s.proven.GetIfPresent(fingerprint)
	if !ok || !a.usable || !known.valid(a.client, a.at) {
		return match{}, false
	}
	s.recalled.Add(1)
	return known, true
}

// throttle returns an error if too many authentications of the claimed client or from the source have failed.
func (s *secrets) throttle(a *attempt) error {
	if wait := s.failures.RetryAfter(a.id, a.source); wait > 0 {
		return tooMany(wait, nil)
	}
	return nil
}

// compare compares the secret with all those of the client, however many it has.
func (s *secrets) compare(a *attempt) match {
	i := s.find(a.client.Secrets, a.secret, a.at)
	if i < 0 {
		return match{}
	}
	found := &a.client.Secrets[i]
	return match{found.ID, found.Hash, clientsecret.Outdated(a.client.Secrets, i)}
}

// valid reports whether the client still has the matched secret and it has not expired.
func (m match) valid(client *registry.Client, now time.Time) bool {
	for i := range client.Secrets {
		if s := &client.Secrets[i]; s.ID == m.id && s.Hash == m.hash && !s.Expired(now) {
			return true
		}
	}
	return false
}

// fingerprint returns the fingerprint of a client ID and a secret as they were sent. It does not depend on what is stored: if
// all unknown IDs had one fingerprint, the time that two concurrent requests take would reveal whether an ID is known.
func (s *secrets) fingerprint(id, secret string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, s.key)
	// The length keeps two pairs from having one fingerprint.
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(id))))
	mac.Write([]byte(id))
	mac.Write([]byte(secret))
	mac.Sum(sum[:0])
	return sum
}
