package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/grantorhq/grantor/service/oauth"
)

// CreateResource stores a new resource.
func (e *Editor) CreateResource(ctx context.Context, resource Resource) error {
	return e.editResources(ctx, func(list []Resource) ([]Resource, error) {
		if slices.ContainsFunc(list, func(r Resource) bool { return r.ID == resource.ID }) {
			return nil, ErrExists
		}
		if err := resource.check(e.config.Algorithms); err != nil {
			return nil, &ResourceError{resource.ID, err}
		}
		e.observed(new(Resource).changes(&resource))
		return append(list, resource), nil
	})
}

// UpdateResource calls change with a copy of the stored resource and stores the result. The resource must be in the state
// that the etag identifies; an empty etag means any. UpdateResource may call change several times. The identifier of the
// resource stays as it is.
func (e *Editor) UpdateResource(ctx context.Context, id oauth.Resource, etag string, change func(*Resource) error) (*Resource, error) {
	var next Resource
	err := e.editResources(ctx, func(list []Resource) ([]Resource, error) {
		i, err := findResource(list, id, etag)
		if err != nil {
			return nil, err
		}
		next = list[i]
		next.Scopes = slices.Clone(next.Scopes)
		if err := change(&next); err != nil {
			return nil, err
		}
		next.ID = id
		if err := next.check(e.config.Algorithms); err != nil {
			return nil, &ResourceError{id, err}
		}
		changed := list[i].changes(&next)
		e.observed(changed)
		if len(changed) == 0 {
			return nil, errUnchanged
		}
		// It moves to the end: of two resources with the same scope, NewResources reports the later.
		return append(slices.Delete(list, i, i+1), next), nil
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return nil, err
	}
	return &next, nil
}

// errUnchanged ends an edit that has nothing to store.
var errUnchanged = errors.New("unchanged")

// DeleteResource deletes the resource with its scopes, if it is in the state that the etag identifies; an empty etag means
// any.
func (e *Editor) DeleteResource(ctx context.Context, id oauth.Resource, etag string) error {
	return e.editResources(ctx, func(list []Resource) ([]Resource, error) {
		i, err := findResource(list, id, etag)
		if err != nil {
			return nil, err
		}
		e.observed(list[i].changes(&Resource{}))
		return slices.Delete(list, i, i+1), nil
	})
}

// findResource returns the index of the resource in the list.
func findResource(list []Resource, id oauth.Resource, etag string) (int, error) {
	if id == admin.ID {
		return 0, &ResourceError{id, &FieldError{Field: "resource", Problem: fmt.Sprintf("%q is the issuer's own", id)}}
	}
	i := slices.IndexFunc(list, func(r Resource) bool { return r.ID == id })
	switch {
	case i < 0:
		return 0, ErrNotFound
	case etag != "" && etag != list[i].ETag():
		return 0, errOtherState
	}
	return i, nil
}

// editResources stores what edit returns for a copy of the list. After a conflict it calls edit again.
func (e *Editor) editResources(ctx context.Context, edit func([]Resource) ([]Resource, error)) error {
	return retry(func() error {
		stored, err := e.config.Resources.Resources(ctx)
		if err != nil {
			return err
		}
		list, err := edit(slices.Clone(stored.List()))
		if err != nil {
			return err
		}
		table, err := NewResources(stored.Version(), list)
		if err != nil {
			return err
		}
		return e.config.Resources.SaveResources(ctx, table)
	})
}
