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
	// MaxSecrets is the maximum number of secrets of one client: a wrong secret is compared with each.
	MaxSecrets = 10
	// MaxGrace is the maximum time for which the old secrets stay valid after a rotation.
	MaxGrace = 366 * 24 * time.Hour
	// minSecret is the minimum length of a secret that a person chooses, in bytes.
	minSecret = 12
)

// CheckSecret returns a [FieldError] if a person may not choose the secret. The error does not quote it.
func CheckSecret(secret string) error {
	switch {
	case len(secret) < minSecret || len(secret) > oauth.MaxSecret:
		return &FieldError{Field: "client_secret", Problem: fmt.Sprintf("has not %d to %d bytes", minSecret, oauth.MaxSecret)}
	case strings.ContainsFunc(secret, unicode.IsControl):
		return &FieldError{Field: "client_secret", Problem: "has a control character"}
	}
	return nil
}

// AddSecret adds a secret to the client: value, or a generated one if value is empty. The secret expires at expires, which
// must be in the future; never, if that is zero.
func (e *Editor) AddSecret(ctx context.Context, t Target, value string, expires time.Time) (*Issued, error) {
	added, err := e.newSecret(value, expires)
	if err != nil {
		return nil, err
	}
	return e.issue(ctx, t, added, func(*clientsecret.Secret) {})
}

// RotateSecret adds a generated secret to the client, and makes every other one expire after the grace period, unless it
// expires earlier.
func (e *Editor) RotateSecret(ctx context.Context, t Target, grace time.Duration, expires time.Time) (*Issued, error) {
	if grace < 0 || grace > MaxGrace {
		return nil, &FieldError{Field: "grace_period", Problem: fmt.Sprintf("%s is not between 0 and %s", grace, MaxGrace)}
	}
	added, err := e.newSecret("", expires)
	if err != nil {
		return nil, err
	}
	end := added.CreatedAt.Add(grace).Truncate(time.Second)
	return e.issue(ctx, t, added, func(old *clientsecret.Secret) {
		if old.ExpiresAt.IsZero() || old.ExpiresAt.After(end) {
			old.ExpiresAt = end
		}
	})
}

// issue calls each with every secret of the client, and adds one.
func (e *Editor) issue(ctx context.Context, t Target, added newSecret, each func(old *clientsecret.Secret)) (*Issued, error) {
	c, err := e.change(ctx, t, func(next, _ *Client) (err error) {
		if next.Workload {
			return &FieldError{Field: "workload", Problem: "a client that a workload makes cannot have a secret"}
		}
		// The client has the secret already if the store took the first attempt and its reply was lost.
		next.Secrets = slices.DeleteFunc(next.Secrets, func(s clientsecret.Secret) bool { return s.ID == added.ID })
		for i := range next.Secrets {
			each(&next.Secrets[i])
		}
		secret := added.Secret
		secret.Hash = e.config.Hasher.Hash(added.value, next.Secrets...)
		next.Secrets, err = addSecret(next.Secrets, secret, added.CreatedAt)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Issued{c, added.ID, added.generated}, nil
}

// ExpireSecret sets when a secret expires: at once, if expires is in the past; never, if it is zero.
func (e *Editor) ExpireSecret(ctx context.Context, t Target, secretID string, expires time.Time) (*Client, error) {
	if now := e.now(); !expires.IsZero() {
		// The time must not precede now, because the beginning of 1970 would be stored as never.
		if expires = expires.Truncate(time.Second); expires.Before(now) {
			expires = now
		}
	}
	return e.change(ctx, t, func(next, _ *Client) error {
		i := slices.IndexFunc(next.Secrets, func(s clientsecret.Secret) bool { return s.ID == secretID })
		if i < 0 {
			return ErrNotFound
		}
		next.Secrets[i].ExpiresAt = expires
		return nil
	})
}

// RemoveSecret removes a secret. Applying a manifest that still contains the secret adds it again; after
// [Editor.ExpireSecret] it does not.
func (e *Editor) RemoveSecret(ctx context.Context, t Target, secretID string) (*Client, error) {
	return e.change(ctx, t, func(next, _ *Client) error {
		remaining := slices.DeleteFunc(next.Secrets, func(s clientsecret.Secret) bool { return s.ID == secretID })
		if len(remaining) == len(next.Secrets) {
			return ErrNotFound
		}
		next.Secrets = remaining
		return nil
	})
}

// newSecret is a secret to be stored, as yet without its hash, and its value.
type newSecret struct {
	clientsecret.Secret
	// generated is value if it was generated; otherwise empty.
	value, generated string
}

// newSecret returns a secret with the value, or with a generated one if value is empty.
func (e *Editor) newSecret(value string, expires time.Time) (newSecret, error) {
	s := newSecret{
		Secret: clientsecret.Secret{ID: clientsecret.NewID(), CreatedAt: e.now(), ExpiresAt: expires.Truncate(time.Second)},
		value:  value,
	}
	if !expires.IsZero() && !s.ExpiresAt.After(s.CreatedAt) {
		return newSecret{}, &FieldError{Field: "expire_time", Problem: "is not yet to come"}
	}
	if value == "" {
		s.value = clientsecret.New()
		s.generated = s.value
	} else if err := CheckSecret(value); err != nil {
		return newSecret{}, err
	}
	return s, nil
}

// addSecret appends a secret to those of a client. If there is no room, expired ones are removed, the oldest first. Those
// of a manifest are removed last: while they are stored, applying the unchanged manifest again does not add them again.
func addSecret(secrets []clientsecret.Secret, added clientsecret.Secret, now time.Time) ([]clientsecret.Secret, error) {
	secrets = slices.Clone(secrets)
	for len(secrets) >= MaxSecrets {
		i := slices.IndexFunc(secrets, func(s clientsecret.Secret) bool { return s.Expired(now) && !s.FromFile })
		if i < 0 {
			i = slices.IndexFunc(secrets, func(s clientsecret.Secret) bool { return s.Expired(now) })
		}
		if i < 0 {
			return nil, &FieldError{Field: "secrets", Problem: fmt.Sprintf("the client has %d already; take one away first", len(secrets))}
		}
		secrets = slices.Delete(secrets, i, i+1)
	}
	return append(secrets, added), nil
}
