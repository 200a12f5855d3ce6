package admin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
	"github.com/grantorhq/grantor/service/telemetry"
)

// clientServer implements grantor.v1.ClientService.
type clientServer struct {
	grantorv1.UnimplementedClientServiceServer

	config Config
}

// GetClient returns a client.
func (s *clientServer) GetClient(ctx context.Context, m *grantorv1.GetClientRequest) (*grantorv1.GetClientResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	id, err := oauth.ParseClientID(m.GetClientId())
	if err != nil {
		return nil, err
	}
	client, err := a.editor.Client(ctx, id)
	if err != nil {
		return nil, err
	}
	shown, err := s.show(ctx, client)
	return &grantorv1.GetClientResponse{Client: shown}, err
}

// ListClients returns a page of clients.
func (s *clientServer) ListClients(ctx context.Context, m *grantorv1.ListClientsRequest) (*grantorv1.ListClientsResponse, error) {
	const list = "clients"
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	last, size, err := s.config.start(list, m)
	if err != nil {
		return nil, err
	}
	var after oauth.ClientID
	if last != "" {
		if after, err = oauth.ParseClientID(last); err != nil {
			return nil, errPageToken
		}
	}
	clients, err := a.editor.Clients(ctx, after, size)
	if err != nil {
		return nil, err
	}
	answer := &grantorv1.ListClientsResponse{}
	if len(clients) == size {
		answer.NextPageToken = s.config.pageToken(list, clients[size-1].ID.String())
	}
	answer.Clients, err = s.showAll(ctx, s.readable(ctx, clients))
	return answer, err
}

// readable removes the clients whose records cannot be read, and logs them.
func (s *clientServer) readable(ctx context.Context, clients []*registry.Client) []*registry.Client {
	return slices.DeleteFunc(clients, func(c *registry.Client) bool {
		if c.Err != nil {
			s.config.Log.WarnContext(ctx, "a client is left out of the list", "client_id", c.ID.String(), "reason", c.Err)
		}
		return c.Err != nil
	})
}

// CreateClient registers a client.
func (s *clientServer) CreateClient(ctx context.Context, m *grantorv1.CreateClientRequest) (*grantorv1.CreateClientResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := registrypb.ToClient(m.GetClient())
	if err != nil {
		return nil, err
	}
	issued, err := a.editor.CreateClient(ctx, *wanted, m.GetClientSecret(), m.GetWithoutSecret())
	if err != nil {
		return nil, err
	}
	s.changed(ctx, a, telemetry.EventClientCreated, issued.Client.ID)
	return &grantorv1.CreateClientResponse{Client: s.after(ctx, a, issued.Client), ClientSecret: issued.Secret}, nil
}

// UpdateClient changes a client.
func (s *clientServer) UpdateClient(ctx context.Context, m *grantorv1.UpdateClientRequest) (*grantorv1.UpdateClientResponse, error) {
	a, target, err := s.target(ctx, m.GetClient())
	if err != nil {
		return nil, err
	}
	fields, err := masked(m.GetClient(), m.GetUpdateMask(), fieldNames(registry.ClientFields()))
	if err != nil {
		return nil, err
	}
	wanted, err := registrypb.ToClient(m.GetClient())
	if err != nil {
		return nil, err
	}
	client, err := a.editor.UpdateClient(ctx, target, func(c *registry.Client) error {
		c.CopyFields(wanted, fields)
		return nil
	})
	if made(err) && (len(a.changes) > 0 || client == nil || client.Disabled) {
		s.changed(ctx, a, telemetry.EventClientChanged, target.ID)
	}
	if err != nil {
		return nil, err
	}
	return &grantorv1.UpdateClientResponse{Client: s.after(ctx, a, client)}, nil
}

// DeleteClient removes a client.
func (s *clientServer) DeleteClient(ctx context.Context, m *grantorv1.DeleteClientRequest) (*grantorv1.DeleteClientResponse, error) {
	a, target, err := s.target(ctx, m)
	if err != nil {
		return nil, err
	}
	err = a.editor.DeleteClient(ctx, target)
	if made(err) {
		s.changed(ctx, a, telemetry.EventClientDeleted, target.ID)
	}
	if errors.Is(err, registry.ErrNotFound) {
		// This may be a retry of a deletion that the replicas had not acknowledged.
		err = cmp.Or(s.config.Editor.Confirm(ctx, target.ID), err)
	}
	if err != nil {
		return nil, err
	}
	return &grantorv1.DeleteClientResponse{}, nil
}

// RevokeTokens revokes the tokens of a client.
func (s *clientServer) RevokeTokens(ctx context.Context, m *grantorv1.RevokeTokensRequest) (*grantorv1.RevokeTokensResponse, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, err
	}
	id, err := oauth.ParseClientID(m.GetClientId())
	if err != nil {
		return nil, err
	}
	client, err := a.editor.Client(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := a.editor.Authorize(ctx, client); err != nil {
		return nil, err
	}
	if err := s.config.RevokeTokens(ctx, client); err != nil {
		return nil, err
	}
	s.config.Events.Changed(ctx, telemetry.EventClientRevoked, a.Administrator, slog.String("id", id.String()))
	s.config.awaitApplied(ctx)
	return &grantorv1.RevokeTokensResponse{}, nil
}

// targeted is a request that names a client and optionally its state.
type targeted interface {
	GetClientId() string
	GetEtag() string
}

// target authorizes the caller, and returns it with the client and the state that m names.
func (s *clientServer) target(ctx context.Context, m targeted) (*administrator, registry.Target, error) {
	a, err := s.config.admit(ctx)
	if err != nil {
		return nil, registry.Target{}, err
	}
	id, err := oauth.ParseClientID(m.GetClientId())
	if err != nil {
		return nil, registry.Target{}, err
	}
	version, err := registry.ParseETag(m.GetEtag())
	return a, registry.Target{ID: id, Version: version}, err
}

// changed audits a change of a client and waits for it to reach this replica.
func (s *clientServer) changed(ctx context.Context, a *administrator, event string, id oauth.ClientID, details ...slog.Attr) {
	what := append([]slog.Attr{slog.String("id", id.String())}, details...)
	s.config.Events.Changed(ctx, event, a.Administrator, append(what, changesOf(a.changes))...)
	s.config.awaitApplied(ctx)
}

// after returns a client that was changed, and only its ID and etag if the caller may not read clients. If the uses of its
// secrets cannot be read, it omits them instead of failing: the change is made, and its response may contain a secret that
// cannot be read again.
func (s *clientServer) after(ctx context.Context, a *administrator, client *registry.Client) *grantorv1.Client {
	if !a.may(registry.ScopeClientsRead) {
		return &grantorv1.Client{ClientId: client.ID.String(), Etag: client.ETag()}
	}
	shown, err := s.show(ctx, client)
	if err != nil {
		return registrypb.FromClient(client, nil)
	}
	return shown
}

// show is showAll for one client.
func (s *clientServer) show(ctx context.Context, client *registry.Client) (*grantorv1.Client, error) {
	shown, err := s.showAll(ctx, []*registry.Client{client})
	if err != nil {
		return nil, err
	}
	return shown[0], nil
}

// showAll returns clients with the last use of each secret.
func (s *clientServer) showAll(ctx context.Context, clients []*registry.Client) ([]*grantorv1.Client, error) {
	ids := make([]oauth.ClientID, len(clients))
	for i, c := range clients {
		ids[i] = c.ID
	}
	uses, err := s.config.Usage.LastUses(ctx, ids)
	if err != nil {
		return nil, err
	}
	shown := make([]*grantorv1.Client, len(clients))
	for i, c := range clients {
		shown[i] = registrypb.FromClient(c, uses[c.ID])
	}
	return shown, nil
}
