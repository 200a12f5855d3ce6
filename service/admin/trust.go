package admin

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/trust"
)

// trustServer implements grantor.v1.TrustService.
type trustServer struct {
	grantorv1.UnimplementedTrustServiceServer

	config Config
}

// table authorizes the caller, and returns the trusted issuers and workloads.
func (s *trustServer) table(ctx context.Context) (*trust.Table, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	return a.editor.Trust(ctx)
}

// pageOf returns the page of a list that a request is for, in byte order of the ids, and the token of the next page.
func pageOf[T any](c *Config, name string, p page, entries []T, id func(*T) string) (list []T, next string, err error) {
	after, size, err := c.start(name, p)
	if err != nil {
		return nil, "", err
	}
	for i := range entries {
		if id(&entries[i]) > after {
			list = append(list, entries[i])
		}
	}
	slices.SortFunc(list, func(x, y T) int { return strings.Compare(id(&x), id(&y)) })
	if len(list) > size {
		list = list[:size]
		next = c.pageToken(name, id(&list[size-1]))
	}
	return list, next, nil
}

// changed audits a change of a trusted issuer or a workload and waits for it to reach this replica.
func (s *trustServer) changed(ctx context.Context, a *administrator, event, id string) {
	s.config.Events.Changed(ctx, event, a.Administrator, slog.String("id", id), changesOf(a.changes))
	s.config.awaitApplied(ctx)
}
