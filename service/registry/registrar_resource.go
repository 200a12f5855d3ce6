package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/grantorhq/grantor/service/oauth"
)

// CreateResource stores a new resource.
func (r *Registrar) CreateResource(ctx context.Context, resource Resource) error {
	return r.editResources(ctx, func(list []Resource) ([]Resource, error) {
		if slices.ContainsFunc(list, func(one Resource) bool { return one.ID == resource.ID }) {
			return nil, ErrExists
		}
		if err := resource.check(r.Algorithms); err != nil {
			return nil, &ResourceError{resource.ID, err}
		}
		r.plan(new(Resource).differences(&resource))
		return append(list, resource), nil
	})
}

// UpdateResource makes a change of a copy of the resource and stores that. The resource must be in the state that the
// etag names; none means whichever there is. The change may be asked for several times; it cannot touch the identifier.
func (r *Registrar) UpdateResource(ctx context.Context, id oauth.Resource, etag string, change func(*Resource) error) (*Resource, error) {
	var next Resource
	err := r.editResources(ctx, func(list []Resource) ([]Resource, error) {
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
		if err := next.check(r.Algorithms); err != nil {
			return nil, &ResourceError{id, err}
		}
		r.plan(list[i].differences(&next))
		// It goes to the end: of two that want one scope the later is blamed.
		return append(slices.Delete(list, i, i+1), next), nil
	})
	if err != nil {
		return nil, err
	}
	return &next, nil
}

// DeleteResource removes the resource with its scopes, if it is in the state that the etag names; none means whichever
// there is.
func (r *Registrar) DeleteResource(ctx context.Context, id oauth.Resource, etag string) error {
	return r.editResources(ctx, func(list []Resource) ([]Resource, error) {
		i, err := findResource(list, id, etag)
		if err != nil {
			return nil, err
		}
		r.plan(list[i].differences(&Resource{}))
		return slices.Delete(list, i, i+1), nil
	})
}

// findResource gives the place of the resource in the list.
func findResource(list []Resource, id oauth.Resource, etag string) (int, error) {
	if id == admin.ID {
		return 0, &ResourceError{id, &FieldError{"resource", fmt.Sprintf("%q is the issuer's own", id)}}
	}
	i := slices.IndexFunc(list, func(one Resource) bool { return one.ID == id })
	switch {
	case i < 0:
		return 0, ErrNotFound
	case etag != "" && etag != list[i].ETag():
		return 0, ErrConflict
	}
	return i, nil
}

// editResources saves what edit makes of a copy of the list, and has it made anew where somebody else was quicker.
func (r *Registrar) editResources(ctx context.Context, edit func([]Resource) ([]Resource, error)) error {
	for range attempts {
		stored, err := r.Resources.Resources(ctx)
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
		if err := r.Resources.SaveResources(ctx, table); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}
