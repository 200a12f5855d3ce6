package registry

import (
	"context"
	"slices"

	"github.com/grantorhq/grantor/service/trust"
)

// applyTrust stores the table of trusted issuers and workloads in one write, if it differs.
func (a *application) applyTrust(ctx context.Context) ([]Change, error) {
	if a.leavesTrust() {
		return nil, nil
	}
	table, changes, err := a.mergeTrust(ctx, a.resources)
	if err != nil || a.options.DryRun || !slices.ContainsFunc(changes, func(c Change) bool { return c.Action != Unchanged }) {
		return changes, err
	}
	if err := a.config.Trust.SaveTrust(ctx, table); err != nil {
		return nil, err
	}
	return changes, nil
}

// checkTrust returns an error if the trusted issuers and workloads that the manifest leads to are not valid, given the
// resources that it leads to.
func (a *application) checkTrust(ctx context.Context, resources *Resources) error {
	if a.resources = resources; a.leavesTrust() {
		return nil
	}
	_, _, err := a.mergeTrust(ctx, resources)
	return err
}

// leavesTrust reports whether the manifest leaves the trusted issuers and the workloads unchanged.
func (a *application) leavesTrust() bool {
	return len(a.manifest.Issuers)+len(a.manifest.Workloads) == 0 && !a.prunesTrust()
}

// prunesTrust reports whether the trusted issuers and workloads that the manifest does not list are removed.
func (a *application) prunesTrust() bool { return a.options.Prune || a.options.PruneTrust }

// mergeTrust returns the table that should be stored, and how it differs from the one that is. The workloads are checked
// against the resources.
func (a *application) mergeTrust(ctx context.Context, resources *Resources) (*trust.Table, []Change, error) {
	stored, err := a.config.Trust.Trust(ctx)
	if err != nil {
		return nil, nil, err
	}
	l := lists{slices.Clone(stored.Issuers()), slices.Clone(stored.Workloads())}
	changes, err := mergeEntries(a, &issuers, &l, a.manifest.Issuers, resources)
	if err != nil {
		return nil, nil, err
	}
	more, err := mergeEntries(a, &workloads, &l, a.manifest.Workloads, resources)
	if err != nil {
		return nil, nil, err
	}
	table, err := trust.NewTable(stored.Version(), l.issuers, l.workloads)
	return table, append(changes, more...), err
}

// mergeEntries changes the list of one kind of entry to what it should be, and returns how it differs from what it was. The
// authority must cover what changes.
func mergeEntries[T any](a *application, k *entryKind[T], l *lists, specs []T, resources *Resources) ([]Change, error) {
	list := k.in(l)
	var made, removed []Change
	var kept []T
	for _, entry := range *list {
		if !a.prunesTrust() || slices.ContainsFunc(specs, func(spec T) bool { return k.id(&spec) == k.id(&entry) }) {
			kept = append(kept, entry)
			continue
		}
		if err := k.allowed(a.authority, &entry); err != nil {
			return nil, err
		}
		removed = append(removed, Change{Removed, k.name, k.id(&entry), changes(k.fields, &entry, new(T))})
	}
	for i := range specs {
		spec := &specs[i]
		stored, change := new(T), Change{Action: Created, Kind: k.name, ID: k.id(spec)}
		if i := slices.IndexFunc(kept, func(entry T) bool { return k.id(&entry) == k.id(spec) }); i >= 0 {
			*stored, kept[i] = kept[i], *spec
			change.Differences = changes(k.fields, stored, spec)
			change.Action = changedOrUnchanged(change.Differences)
		} else {
			kept = append(kept, *spec)
			change.Differences = changes(k.fields, stored, spec)
		}
		made = append(made, change)
		if change.Action == Unchanged {
			continue
		}
		if err := k.approve(a.Editor, spec, stored, resources); err != nil {
			return nil, err
		}
	}
	*list = kept
	return append(made, removed...), nil
}
