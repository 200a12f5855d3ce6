package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
)

const (
	// batchTimeout bounds one call. Each secret in it that a person chose costs the issuer a slow hash.
	batchTimeout = 10 * time.Minute
	// batchClients and batchBytes bound the content of one call. The issuer accepts 500 clients and 1 MiB.
	batchClients = 500
	batchBytes   = 900 << 10
)

// remoteApplier applies a manifest through the administrative services of a running issuer.
type remoteApplier struct {
	*remote.Admin

	cmd           *cobra.Command
	wanted        *manifest.File
	dryRun, prune bool
	report        func(registry.Change)
}

// applyRemotely applies a manifest through the issuer of the settings.
func (s *options) applyRemotely(cmd *cobra.Command, wanted *manifest.File, report func(registry.Change)) error {
	if s.prune && !slices.ContainsFunc(wanted.Clients, func(c registry.ClientSpec) bool { return c.ID.String() == s.ClientID }) {
		return cli.SettingError("prune", fmt.Errorf("the file does not list %s, the client that makes the calls, which would remove itself", cli.Printable(s.ClientID)))
	}
	return s.Administer(cmd, batchTimeout, remote.AllScopes, func(ctx context.Context, a *remote.Admin) error {
		for i := range wanted.Clients {
			a.Hide(wanted.Clients[i].Secret)
			for _, hash := range wanted.Clients[i].Hashes {
				a.Hide(string(hash))
			}
		}
		r := &remoteApplier{Admin: a, cmd: cmd, wanted: wanted, dryRun: s.dryRun, prune: s.prune, report: report}
		return r.apply(ctx)
	})
}

// apply has the issuer check the whole manifest before it writes any of it.
func (r *remoteApplier) apply(ctx context.Context) error {
	batches := r.batches()
	if err := r.send(ctx, batches, true); err != nil {
		return err
	}
	if !r.dryRun {
		if err := r.send(ctx, batches, false); err != nil {
			return err
		}
	}
	if r.prune {
		return r.pruneClients(ctx)
	}
	return nil
}

// batches divides the manifest into requests. Each has all resources, trusted issuers and workloads, so that what its clients
// refer to is known.
func (r *remoteApplier) batches() []*grantorv1.ApplyManifestRequest {
	common := r.common()
	begin := func() (*grantorv1.ApplyManifestRequest, int) {
		batch := &grantorv1.ApplyManifestRequest{
			Resources: common.GetResources(), TrustedIssuers: common.GetTrustedIssuers(), Workloads: common.GetWorkloads(),
			PruneResources: common.GetPruneResources(), PruneTrust: common.GetPruneTrust(),
		}
		return batch, proto.Size(batch)
	}
	batch, size := begin()
	batches := []*grantorv1.ApplyManifestRequest{batch}
	for i := range r.wanted.Clients {
		client := registrypb.FromSpec(&r.wanted.Clients[i])
		const overhead = 8 // bytes of an embedded message
		added := proto.Size(client) + overhead
		if n := len(batch.GetClients()); n == batchClients || (n > 0 && size+added > batchBytes) {
			batch, size = begin()
			batches = append(batches, batch)
		}
		batch.Clients = append(batch.Clients, client)
		size += added
	}
	return batches
}

// common returns a request without clients. The first batch removes what the file does not list: applied to Redis directly,
// it is removed before any client changes, too.
func (r *remoteApplier) common() *grantorv1.ApplyManifestRequest {
	request := &grantorv1.ApplyManifestRequest{PruneResources: r.prune, PruneTrust: r.prune}
	for i := range r.wanted.Resources {
		request.Resources = append(request.Resources, registrypb.FromResource(&r.wanted.Resources[i]))
	}
	for i := range r.wanted.Issuers {
		request.TrustedIssuers = append(request.TrustedIssuers, registrypb.FromIssuer(&r.wanted.Issuers[i]))
	}
	for i := range r.wanted.Workloads {
		request.Workloads = append(request.Workloads, registrypb.FromWorkload(&r.wanted.Workloads[i]))
	}
	return request
}

// send sends all batches, to be checked or to be applied. It reports the changes of the pass that the command is for:
// applying, or checking in a dry run.
func (r *remoteApplier) send(ctx context.Context, batches []*grantorv1.ApplyManifestRequest, check bool) error {
	progress := cli.NewProgress(r.cmd)
	defer progress.End()
	verb, sent := "applied", 0
	if check {
		verb = "checked"
	}
	for i, batch := range batches {
		batch.ValidateOnly = check
		answer, err := r.Resources.ApplyManifest(ctx, batch)
		if err != nil {
			return r.locate(err)
		}
		for _, change := range answer.GetChanges() {
			// What is not a client is in each batch, and applied with the first.
			if check == r.dryRun && (i == 0 || change.GetKind() == "client") {
				r.report(readChange(change))
			}
		}
		sent += len(batch.GetClients())
		progress.Showf("%s %d of %d clients", verb, sent, len(r.wanted.Clients))
	}
	return nil
}

// locate adds file and line to the issuer's error about an item of the file.
func (r *remoteApplier) locate(err error) error {
	call, ok := errors.AsType[*remote.CallError](err)
	if !ok {
		return err
	}
	// The message begins with "kind ID: ", and no valid ID has a space.
	item, _, _ := strings.Cut(call.Message, ": ")
	position := r.wanted.Position(item, call.Field)
	if position == "" {
		return err
	}
	return &remote.CallError{Code: call.Code, Text: position + ": " + r.Clean(call.Message)}
}

// pruneClients removes the clients that the manifest does not list.
func (r *remoteApplier) pruneClients(ctx context.Context) error {
	listed := make(map[string]bool, len(r.wanted.Clients))
	for i := range r.wanted.Clients {
		listed[r.wanted.Clients[i].ID.String()] = true
	}
	for token, more := "", true; more; more = token != "" {
		page, err := r.Clients.ListClients(ctx, &grantorv1.ListClientsRequest{PageSize: cli.PageSize, PageToken: token})
		if err != nil {
			return err
		}
		for _, client := range page.GetClients() {
			if listed[client.GetClientId()] {
				continue
			}
			if err := r.remove(ctx, client.GetClientId()); err != nil {
				return err
			}
		}
		token = page.GetNextPageToken()
	}
	return nil
}

func (r *remoteApplier) remove(ctx context.Context, id string) error {
	if !r.dryRun {
		_, err := r.Clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: id})
		// Another administrator may have removed it concurrently.
		if call, ok := errors.AsType[*remote.CallError](err); err != nil && (!ok || call.Code != codes.NotFound) {
			return cli.About("client", id, err)
		}
	}
	r.report(registry.Change{Action: registry.Removed, Kind: "client", ID: cli.Printable(id)})
	return nil
}

func readChange(c *grantorv1.AppliedChange) registry.Change {
	change := registry.Change{Action: registry.Action(cli.Printable(c.GetAction())), Kind: cli.Printable(c.GetKind()), ID: cli.Printable(c.GetId())}
	for _, field := range c.GetFields() {
		change.Differences = append(change.Differences, registry.FieldChange{Field: cli.Printable(field)})
	}
	return change
}
