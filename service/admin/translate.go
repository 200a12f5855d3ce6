package admin

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
)

// invalid returns the error that reports which field of a request is not valid, and why.
func invalid(field, problem string) error {
	return &registry.FieldError{Field: field, Problem: problem}
}

// toManifest returns the manifest of a request. Unlike an operator with access to the store, an administrator may choose
// only secrets of some strength.
func toManifest(m *grantorv1.ApplyManifestRequest) (*registry.Manifest, error) {
	manifest, err := registrypb.ToManifest(m)
	if err != nil {
		return nil, err
	}
	for i := range manifest.Clients {
		spec := &manifest.Clients[i]
		if spec.Secret == "" {
			continue
		}
		if err := registry.CheckSecret(spec.Secret); err != nil {
			return nil, &registry.ManifestError{ID: spec.ID, Err: err}
		}
	}
	return manifest, nil
}

// toTime returns a time in whole seconds, as records have them. An absent time is the zero time, which no time that is sent
// may be.
func toTime(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if t.CheckValid() != nil || t.AsTime().Unix() <= 0 {
		return time.Time{}, invalid(field, "is not a time")
	}
	return t.AsTime().Truncate(time.Second), nil
}
