package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// Trust returns the stored table of trusted issuers and workloads.
func (e *Editor) Trust(ctx context.Context) (*trust.Table, error) { return e.config.Trust.Trust(ctx) }

// CreateIssuer stores a new trusted issuer.
func (e *Editor) CreateIssuer(ctx context.Context, issuer trust.Issuer) error {
	return createEntry(ctx, e, &issuers, issuer)
}

// UpdateIssuer calls change with a copy of the trusted issuer with the ID ([trust.Issuer.ID]) and stores the result.
// The issuer must be in the state that the etag identifies; an empty etag means any. UpdateIssuer may call change
// several times. What identifies the issuer stays as it is.
func (e *Editor) UpdateIssuer(ctx context.Context, id, etag string, change func(*trust.Issuer) error) (*trust.Issuer, error) {
	return updateEntry(ctx, e, &issuers, entryTarget{id, etag}, change)
}

// DeleteIssuer deletes the trusted issuer with the ID, if it is in the state that the etag identifies; an empty etag
// means any. An issuer that a workload names cannot be deleted.
func (e *Editor) DeleteIssuer(ctx context.Context, id, etag string) error {
	err := deleteEntry(ctx, e, &issuers, entryTarget{id, etag})
	if orphan, ok := errors.AsType[*trust.EntryError](err); ok && orphan.Kind == trust.KindWorkload {
		problem := fmt.Sprintf("the workload %s names it; remove that first", orphan.ID)
		return &trust.EntryError{Kind: trust.KindIssuer, ID: id, Err: &FieldError{Field: "issuer", Problem: problem}}
	}
	return err
}

// CreateWorkload stores a new workload.
func (e *Editor) CreateWorkload(ctx context.Context, w trust.Workload) error {
	return createEntry(ctx, e, &workloads, w)
}

// UpdateWorkload calls change with a copy of the workload whose client_id is the given pattern and stores the result, as
// UpdateIssuer does.
func (e *Editor) UpdateWorkload(ctx context.Context, id, etag string, change func(*trust.Workload) error) (*trust.Workload, error) {
	return updateEntry(ctx, e, &workloads, entryTarget{id, etag}, change)
}

// DeleteWorkload deletes the workload whose client_id is the given pattern, if it is in the state that the etag
// identifies; an empty etag means any.
func (e *Editor) DeleteWorkload(ctx context.Context, id, etag string) error {
	return deleteEntry(ctx, e, &workloads, entryTarget{id, etag})
}

// lists are the entries of a [trust.Table] that is being changed.
type lists struct {
	issuers   []trust.Issuer
	workloads []trust.Workload
}

// entryKind describes one kind of entry of a [trust.Table].
type entryKind[T any] struct {
	// name is one of the kinds of package trust, and identifier the field that identifies an entry.
	name, identifier string

	fields []Field[T]
	// id returns what identifies an entry, and etag its state.
	id, etag func(*T) string
	// in returns the list of the entries.
	in func(*lists) *[]T
	// keep gives an entry the identity of another one.
	keep func(next, stored *T)
	// allowed returns a [ForbiddenError] if the authority does not cover an entry.
	allowed func(Authority, *T) error
	// check, if not nil, returns what is wrong with an entry given the resources, beyond what [trust.NewTable] checks.
	check func(e *Editor, next, stored *T, resources *Resources) error
}

var issuers = entryKind[trust.Issuer]{
	name: trust.KindIssuer, identifier: "issuer", fields: issuerFields, id: (*trust.Issuer).ID, etag: (*trust.Issuer).ETag, allowed: Authority.CheckIssuer,
	in:    func(l *lists) *[]trust.Issuer { return &l.issuers },
	keep:  func(next, stored *trust.Issuer) { next.Issuer, next.TrustDomain = stored.Issuer, stored.TrustDomain },
	check: (*Editor).checkIssuer,
}

var workloads = entryKind[trust.Workload]{
	name: trust.KindWorkload, identifier: "client_id", fields: workloadFields, etag: (*trust.Workload).ETag, allowed: Authority.CheckWorkload,
	id:    func(w *trust.Workload) string { return w.ClientID.String() },
	in:    func(l *lists) *[]trust.Workload { return &l.workloads },
	keep:  func(next, stored *trust.Workload) { next.ClientID = stored.ClientID },
	check: (*Editor).checkWorkload,
}

// invalid returns the [trust.EntryError] for what is wrong with an entry.
func (k *entryKind[T]) invalid(entry *T, err error) error {
	if err == nil {
		return nil
	}
	return &trust.EntryError{Kind: k.name, ID: k.id(entry), Err: err}
}

// approve returns an error if the authority of the Editor does not cover an entry before or after a change, or if the
// entry is not valid.
func (k *entryKind[T]) approve(e *Editor, next, stored *T, resources *Resources) error {
	if err := cmp.Or(k.allowed(e.authority, stored), k.allowed(e.authority, next)); err != nil || k.check == nil {
		return err
	}
	return k.invalid(next, k.check(e, next, stored, resources))
}

// unique returns an error if two entries of a list are the same one.
func (k *entryKind[T]) unique(list []T) error {
	seen := make(map[string]bool, len(list))
	for i := range list {
		id := k.id(&list[i])
		if seen[id] {
			return k.invalid(&list[i], &FieldError{Field: k.identifier, Problem: duplicateError(id).Error()})
		}
		seen[id] = true
	}
	return nil
}

// clone returns a copy of an entry that can be changed.
func (k *entryKind[T]) clone(entry *T) T {
	next := *entry
	for i := range k.fields {
		k.fields[i].copy(&next, entry)
	}
	return next
}

// checkIssuer returns what is wrong with a trusted issuer, as a [FieldError].
func (e *Editor) checkIssuer(next, stored *trust.Issuer, _ *Resources) error {
	if err := next.Check(); err != nil || e.config.TrustDirectories == nil {
		return err
	}
	return next.CheckDirectories(*e.config.TrustDirectories, stored)
}

// checkWorkload returns what is wrong with the clients of a workload, as a [FieldError].
func (e *Editor) checkWorkload(next, stored *trust.Workload, resources *Resources) error {
	id, err := oauth.ParseClientID(next.ClientID.String())
	if err != nil {
		return &FieldError{Field: "client_id", Problem: err.Error()}
	}
	client, before := WorkloadClient(next, id, nil), WorkloadClient(stored, id, nil)
	return cmp.Or(
		fieldError("scopes", checkScopes(client, before, resources)),
		fieldError("default_scopes", checkDefaultScopes(client, before, resources)),
		fieldError("access_token_lifetime", checkLifetime(client.AccessTokenLifetime)),
		e.checkTokenSize(client, resources),
	)
}

// entryTarget identifies an entry, and the state in which a change requires it to be.
type entryTarget struct{ id, etag string }

// find returns the index of the target in a list.
func (k *entryKind[T]) find(list []T, t entryTarget) (int, error) {
	i := slices.IndexFunc(list, func(entry T) bool { return k.id(&entry) == t.id })
	switch {
	case i < 0:
		return 0, ErrNotFound
	case t.etag != "" && t.etag != k.etag(&list[i]):
		return 0, errOtherState
	}
	return i, nil
}

func createEntry[T any](ctx context.Context, e *Editor, k *entryKind[T], entry T) error {
	return e.editTrust(ctx, func(l *lists, resources *Resources) error {
		list := k.in(l)
		if _, err := k.find(*list, entryTarget{id: k.id(&entry)}); err == nil {
			return ErrExists
		}
		if err := k.approve(e, &entry, new(T), resources); err != nil {
			return err
		}
		e.observed(changes(k.fields, new(T), &entry))
		*list = append(*list, entry)
		return nil
	})
}

func updateEntry[T any](ctx context.Context, e *Editor, k *entryKind[T], t entryTarget, change func(*T) error) (*T, error) {
	var next T
	err := e.editTrust(ctx, func(l *lists, resources *Resources) error {
		list := k.in(l)
		i, err := k.find(*list, t)
		if err != nil {
			return err
		}
		stored := &(*list)[i]
		next = k.clone(stored)
		if err := change(&next); err != nil {
			return err
		}
		k.keep(&next, stored)
		if err := k.approve(e, &next, stored, resources); err != nil {
			return err
		}
		changed := changes(k.fields, stored, &next)
		e.observed(changed)
		if len(changed) == 0 {
			return errUnchanged
		}
		// It moves to the end: of two entries that conflict, NewTable reports the later.
		*list = append(slices.Delete(*list, i, i+1), next)
		return nil
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return nil, err
	}
	return &next, nil
}

func deleteEntry[T any](ctx context.Context, e *Editor, k *entryKind[T], t entryTarget) error {
	return e.editTrust(ctx, func(l *lists, _ *Resources) error {
		list := k.in(l)
		i, err := k.find(*list, t)
		if err != nil {
			return err
		}
		if err := k.allowed(e.authority, &(*list)[i]); err != nil {
			return err
		}
		e.observed(changes(k.fields, &(*list)[i], new(T)))
		*list = slices.Delete(*list, i, i+1)
		return nil
	})
}

// editTrust stores what edit makes of a copy of the lists. After a conflict it calls edit again.
func (e *Editor) editTrust(ctx context.Context, edit func(*lists, *Resources) error) error {
	return retry(func() error {
		stored, err := e.config.Trust.Trust(ctx)
		if err != nil {
			return err
		}
		resources, err := e.config.Resources.Resources(ctx)
		if err != nil {
			return err
		}
		l := &lists{slices.Clone(stored.Issuers()), slices.Clone(stored.Workloads())}
		if err := edit(l, resources); err != nil {
			return err
		}
		table, err := trust.NewTable(stored.Version(), l.issuers, l.workloads)
		if err != nil {
			return err
		}
		return e.config.Trust.SaveTrust(ctx, table)
	})
}
