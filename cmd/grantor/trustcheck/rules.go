package trustcheck

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
	"github.com/grantorhq/grantor/service/trust"
)

// rules are the trusted issuers, and all by which an identity can be a client.
type rules struct {
	table *trust.Table
	// clients are those with rules or a SPIFFE ID, and those that restrict a client of a workload.
	clients []registry.Client
	// position returns file:line of a field of an item; nil if there is no file.
	position func(item, field string) string
}

// rules returns those of the file, or those of the running issuer.
func (s *options) rules(cmd *cobra.Command) (*rules, error) {
	if s.file == "" {
		r, err := s.remoteRules(cmd)
		if err != nil && cli.ExitCode(err) == cli.ExitUsage {
			err = cli.WithExit(cli.ExitUsage, fmt.Errorf("%w; or give the rules in the file of --file, which needs no client", err))
		}
		return r, err
	}
	data, err := cli.ReadFile(s.file, yamldoc.MaxSize)
	if err != nil {
		return nil, cli.InputError(err)
	}
	file, err := manifest.ParseWithoutSecrets(s.file, data)
	if err == nil {
		err = file.Check()
	}
	if err != nil {
		return nil, cli.InputError(err)
	}
	table, err := trust.NewTable(0, file.Issuers, file.Workloads)
	if err != nil {
		return nil, cli.InputError(err)
	}
	r := &rules{table: table, position: file.Position}
	for i := range file.Clients {
		r.add(&file.Clients[i].Client)
	}
	return r, nil
}

// add adds a client.
func (r *rules) add(c *registry.Client) {
	if _, made := r.table.Workload(c.ID); made || len(c.Federation) > 0 || c.SPIFFEID != "" {
		r.clients = append(r.clients, *c)
	}
}

// remoteRules reads the rules of the running issuer.
func (s *options) remoteRules(cmd *cobra.Command) (*rules, error) {
	r := &rules{}
	scopes := registry.ScopeTrustRead + " " + registry.ScopeClientsRead
	return r, s.Administer(cmd, remote.Timeout, scopes, func(ctx context.Context, a *remote.Admin) error {
		var err error
		if r.table, err = readTable(ctx, a); err != nil {
			return err
		}
		return pages(func(token string) (string, error) {
			page, err := a.Clients.ListClients(ctx, &grantorv1.ListClientsRequest{PageSize: cli.PageSize, PageToken: token})
			for _, sent := range page.GetClients() {
				client, err := registrypb.ToClient(sent)
				if err != nil {
					return "", fmt.Errorf("client %s: %w", cli.Printable(sent.GetClientId()), err)
				}
				r.add(client)
			}
			return page.GetNextPageToken(), err
		})
	})
}

// readTable reads the trusted issuers and the workloads.
func readTable(ctx context.Context, a *remote.Admin) (*trust.Table, error) {
	var issuers []trust.Issuer
	var workloads []trust.Workload
	err := pages(func(token string) (string, error) {
		page, err := a.Trust.ListTrustedIssuers(ctx, &grantorv1.ListTrustedIssuersRequest{PageSize: cli.PageSize, PageToken: token})
		for _, sent := range page.GetTrustedIssuers() {
			issuer, err := registrypb.ToIssuer(sent)
			if err != nil {
				return "", err
			}
			issuers = append(issuers, *issuer)
		}
		return page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	err = pages(func(token string) (string, error) {
		page, err := a.Trust.ListWorkloads(ctx, &grantorv1.ListWorkloadsRequest{PageSize: cli.PageSize, PageToken: token})
		for _, sent := range page.GetWorkloads() {
			workload, err := registrypb.ToWorkload(sent)
			if err != nil {
				return "", err
			}
			workloads = append(workloads, *workload)
		}
		return page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	return trust.NewTable(0, issuers, workloads)
}

// pages calls next for each page of a list. next returns the token of the following one.
func pages(next func(token string) (string, error)) error {
	for token, more := "", true; more; more = token != "" {
		var err error
		if token, err = next(token); err != nil {
			return err
		}
	}
	return nil
}

// place returns file:line of a field of an item; "" if there is no file.
func (r *rules) place(item, field string) string {
	if r.position == nil {
		return ""
	}
	return r.position(item, field)
}
