package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/grantorhq/grantor/service/recovery"
	"github.com/grantorhq/grantor/service/token"
)

// errIncomplete reports that revocations may exist that the verifier does not know.
var errIncomplete = errors.New("the issuer's revocations are not all known yet")

// Ready returns nil if the verifier can decide about tokens: the issuer's keys are known, and every live revocation is, if
// the issuer has a feed. With [RefuseWhenStale], that knowledge must also be current. If there are no keys, Ready tries to
// fetch them, at most once in 5 s; ctx bounds how long it waits.
//
// Ready is for the readiness probe of a server. Calls that arrive earlier are refused with UNAVAILABLE if they need the
// keys.
func (v *Verifier) Ready(ctx context.Context) error {
	switch {
	case v == nil:
		return errNotMade
	case v.members != nil:
		var errs []error
		for _, member := range v.members {
			errs = append(errs, member.Ready(ctx))
		}
		return errors.Join(errs...)
	case v.tokens == nil:
		return errNotMade
	}
	if err := v.readyKeys(ctx); err != nil {
		return fmt.Errorf("%w: %w", token.ErrNoKeys, err)
	}
	if v.follower == nil || v.follower.absent.Load() {
		return nil
	}
	switch age, complete := v.follower.age(); {
	case !complete:
		return errIncomplete
	case v.refuseStale && age > v.follower.maxStale:
		return ErrStale
	}
	return nil
}

// readyKeys returns why there are no keys, or nil. A source of [Keys] that does not say whether it has any counts as
// ready.
func (v *Verifier) readyKeys(ctx context.Context) error {
	source, ok := v.keys.(interface {
		Ready(ctx context.Context) error
	})
	if !ok {
		return nil
	}
	_, err := recovery.Call("the source of keys", func() (struct{}, error) { return struct{}{}, source.Ready(ctx) })
	return err
}
