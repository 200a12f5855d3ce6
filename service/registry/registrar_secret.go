package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
)

const (
	// MaxSecrets bounds the secrets of one client: a wrong one is compared with each.
	MaxSecrets = 10
	// MaxGrace bounds how long the old secrets count after a new one was made.
	MaxGrace = 366 * 24 * time.Hour
	// minSecret is the least length of a secret that a person chooses, in bytes.
	minSecret = 12
)

// CheckSecret reports what keeps a secret from being one that a person may choose. The error does not quote it.
func CheckSecret(secret string) error {
	switch {
	case len(secret) < minSecret || len(secret) > oauth.MaxSecret:
		return &FieldError{"client_secret", fmt.Sprintf("has not %d to %d bytes", minSecret, oauth.MaxSecret)}
	case strings.ContainsFunc(secret, unicode.IsControl):
		return &FieldError{"client_secret", "has a control character"}
	}
	return nil
}

// AddSecret gives the client one more secret, which ends at a moment yet to come; never, if that is zero. An empty
// value means a generated one.
func (r *Registrar) AddSecret(ctx context.Context, t Target, value string, expires time.Time) (*Issued, error) {
	made, err := r.newSecret(value, expires)
	if err != nil {
		return nil, err
	}
	return r.issue(ctx, t, made, func(*clientsecret.Secret) {})
}

// RotateSecret gives the client a generated secret, and lets every other end after the grace, unless it ends earlier.
func (r *Registrar) RotateSecret(ctx context.Context, t Target, grace time.Duration, expires time.Time) (*Issued, error) {
	if grace < 0 || grace > MaxGrace {
		return nil, &FieldError{"grace_period", fmt.Sprintf("%s is not between 0 and %s", grace, MaxGrace)}
	}
	made, err := r.newSecret("", expires)
	if err != nil {
		return nil, err
	}
	end := made.CreatedAt.Add(grace).Truncate(time.Second)
	return r.issue(ctx, t, made, func(old *clientsecret.Secret) {
		if old.ExpiresAt.IsZero() || old.ExpiresAt.After(end) {
			old.ExpiresAt = end
		}
	})
}

// issue adds a secret to the client and does something to each other one.
func (r *Registrar) issue(ctx context.Context, t Target, made newSecret, each func(old *clientsecret.Secret)) (*Issued, error) {
	c, err := r.change(ctx, t, func(next, _ *Client) (err error) {
		// It is there already if the store took the first attempt and its answer was lost on the way.
		next.Secrets = slices.DeleteFunc(next.Secrets, func(s clientsecret.Secret) bool { return s.ID == made.ID })
		for i := range next.Secrets {
			each(&next.Secrets[i])
		}
		added := made.Secret
		added.Hash = r.Hasher.Hash(made.value, next.Secrets...)
		next.Secrets, err = addSecret(next.Secrets, added, made.CreatedAt)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Issued{c, made.ID, made.generated}, nil
}

// ExpireSecret lets a secret end at a moment: at once, if that has come; never, if it is zero.
func (r *Registrar) ExpireSecret(ctx context.Context, t Target, secretID string, expires time.Time) (*Client, error) {
	if now := r.now(); !expires.IsZero() {
		// Not before now, because the beginning of 1970 is stored as never.
		if expires = expires.Truncate(time.Second); expires.Before(now) {
			expires = now
		}
	}
	return r.change(ctx, t, func(next, _ *Client) error {
		i := slices.IndexFunc(next.Secrets, func(s clientsecret.Secret) bool { return s.ID == secretID })
		if i < 0 {
			return ErrNotFound
		}
		next.Secrets[i].ExpiresAt = expires
		return nil
	})
}

// RemoveSecret takes a secret away. A manifest that still names it gives it back when it is applied; one that was ended
// by [Registrar.ExpireSecret] it does not.
func (r *Registrar) RemoveSecret(ctx context.Context, t Target, secretID string) (*Client, error) {
	return r.change(ctx, t, func(next, _ *Client) error {
		kept := slices.DeleteFunc(next.Secrets, func(s clientsecret.Secret) bool { return s.ID == secretID })
		if len(kept) == len(next.Secrets) {
			return ErrNotFound
		}
		next.Secrets = kept
		return nil
	})
}

// newSecret is a secret to be stored, as yet without its hash, and its value; generated is that where it was generated.
type newSecret struct {
	clientsecret.Secret
	value, generated string
}

// newSecret makes a secret of a value; of a generated one, where that is empty.
func (r *Registrar) newSecret(value string, expires time.Time) (newSecret, error) {
	made := newSecret{Secret: clientsecret.Secret{ID: clientsecret.NewID(), CreatedAt: r.now(), ExpiresAt: expires.Truncate(time.Second)}, value: value}
	if !expires.IsZero() && !made.ExpiresAt.After(made.CreatedAt) {
		return newSecret{}, &FieldError{"expire_time", "is not yet to come"}
	}
	if value == "" {
		made.value = clientsecret.New()
		made.generated = made.value
	} else if err := CheckSecret(value); err != nil {
		return newSecret{}, err
	}
	return made, nil
}

// addSecret adds one to the secrets of a client. Where there is no room, those that have ended go, the oldest first.
// Those of a manifest go last: as long as they are known, a manifest that was not changed since does not give them
// back.
func addSecret(secrets []clientsecret.Secret, added clientsecret.Secret, now time.Time) ([]clientsecret.Secret, error) {
	secrets = slices.Clone(secrets)
	for len(secrets) >= MaxSecrets {
		i := slices.IndexFunc(secrets, func(s clientsecret.Secret) bool { return s.Expired(now) && !s.FromFile })
		if i < 0 {
			i = slices.IndexFunc(secrets, func(s clientsecret.Secret) bool { return s.Expired(now) })
		}
		if i < 0 {
			return nil, &FieldError{"secrets", fmt.Sprintf("the client has %d already; take one away first", len(secrets))}
		}
		secrets = slices.Delete(secrets, i, i+1)
	}
	return append(secrets, added), nil
}
