// Package admin implements the gRPC servers of the administrative services: clients with their secrets, resources, trusted
// issuers and workloads, and signing keys. Each method translates its request for the domain, calls it, and translates the
// result back. The methods follow Google's API improvement proposals 131 to 135 (standard methods), 154 (etags), 158
// (pagination) and 161 (field masks).
//
// The rule in the proto of a method says which scopes it requires. Package interceptors/verify enforces it before the
// server is called.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
	"github.com/grantorhq/grantor/service/trust"
)

// Ring is the part of the key ring that the servers use.
type Ring interface {
	// List returns the keys in the order in which they sign.
	List() []keys.Info
	// Rotate creates a successor for the key of the algorithm unless there is one. The empty algorithm stands for all.
	Rotate(ctx context.Context, algorithm jwks.Algorithm) error
	// Retire retires a key.
	Retire(ctx context.Context, id string) error
	// Compromise removes a key at once and revokes its tokens.
	Compromise(ctx context.Context, id string) error
}

// Config configures the servers. Every field is required.
type Config struct {
	// Editor changes clients, resources, trusted issuers and workloads. Each call does so with the authority of its caller.
	Editor *registry.Editor
	Usage  registry.UsageStore
	// Directory returns clients in their current state.
	Directory interface {
		Lookup(ctx context.Context, id oauth.ClientID) (*registry.Client, error)
	}
	Ring Ring
	// RevokeTokens revokes the tokens of a client that were issued up to now.
	RevokeTokens func(context.Context, *registry.Client) error
	// Fresh returns an error if what this replica knows is too old to judge a token by.
	Fresh func() error
	// CatchUp waits until every change made before the call is in effect on this replica.
	CatchUp func(context.Context) error
	Events  *telemetry.Recorder
	Log     *slog.Logger
	// PageKey is the key that authenticates page tokens. It is the same on all replicas.
	PageKey []byte
}

// Register registers the services with a server.
func Register(server grpc.ServiceRegistrar, c Config) {
	grantorv1.RegisterClientServiceServer(server, &clientServer{config: c})
	grantorv1.RegisterResourceServiceServer(server, &resourceServer{config: c})
	grantorv1.RegisterTrustServiceServer(server, &trustServer{config: c})
	grantorv1.RegisterKeyServiceServer(server, &keyServer{config: c})
}

// errNoCaller is unreachable while every method of the services has a rule that requires scopes.
var errNoCaller = errors.New("an administrative method was reached without a caller")

// errAudience refuses a token that has other audiences as well.
var errAudience = oauth.Refuse(oauth.InvalidRequest, "The access token must be for the administration alone.")

// administrator is the caller of a method.
type administrator struct {
	telemetry.Administrator
	// scopes are those of the caller's token.
	scopes oauth.Scopes
	// editor has the authority of the caller.
	editor *registry.Editor
	// changes are the field changes of the editor's last attempt to write.
	changes []registry.FieldChange
}

// admit authorizes the caller, and returns it with an editor that has no more rights than the caller.
func (c *Config) admit(ctx context.Context) (*administrator, error) {
	caller, ok := verify.CallerFrom(ctx)
	if !ok {
		return nil, errNoCaller
	}
	if len(caller.Claims.Audience) > 1 {
		// The issuer issues no such token. Any other server in its audience could have replayed it.
		return nil, errAudience
	}
	if err := c.Fresh(); err != nil {
		return nil, err
	}
	if err := c.checkRights(ctx, caller); err != nil {
		return nil, err
	}
	a := &administrator{
		Administrator: telemetry.Administrator{ClientID: caller.ClientID, Peer: remoteaddr.FromContext(ctx).String()},
		scopes:        caller.Scopes,
	}
	a.editor = c.Editor.As(registry.AuthorityOf(caller.Scopes)).Observe(func(changes []registry.FieldChange) { a.changes = changes })
	return a, nil
}

// may reports whether the caller's token has the scope. The response to a change contains only what the caller may read.
func (a *administrator) may(scope string) bool {
	return slices.ContainsFunc(a.scopes, func(s oauth.Scope) bool { return s.String() == scope })
}

// checkRights returns a [registry.ForbiddenError] if the client of a token no longer has all scopes of the token, is
// disabled, or may not call from this address. A right that is taken from an administrator ends at once and not with
// its token, because the administrator could use the token to restore the right.
func (c *Config) checkRights(ctx context.Context, caller verify.Caller) error {
	id, err := oauth.ParseClientID(caller.ClientID)
	if err != nil {
		return err
	}
	client, err := c.Directory.Lookup(ctx, id)
	if errors.Is(err, registry.ErrNotFound) || (err == nil && client.Disabled) {
		client, err = &registry.Client{ID: id}, nil
	}
	if err != nil {
		return err
	}
	if source := remoteaddr.FromContext(ctx).IP(); !client.AllowsFrom(source) {
		return fmt.Errorf("from %s: %w", source, &registry.ForbiddenError{Kind: "client", ID: id.String(), Scope: caller.Scopes[0]})
	}
	for _, scope := range caller.Scopes {
		if !client.Scopes.Has(scope) {
			return &registry.ForbiddenError{Kind: "client", ID: id.String(), Scope: scope}
		}
	}
	return nil
}

// made reports whether a change was made. A change that too few replicas of the store have acknowledged yet was made.
func made(err error) bool { return err == nil || errors.Is(err, revocation.ErrNotReplicated) }

// changesOf returns the attribute "changes" of an audit event.
func changesOf(differences []registry.FieldChange) slog.Attr {
	changes := make([]telemetry.Change, len(differences))
	for i, d := range differences {
		changes[i] = telemetry.Change(d)
	}
	return telemetry.ChangesOf(changes)
}

// Applied writes the audit event of a change that a manifest made. It writes none if c is not a change.
func Applied(ctx context.Context, events *telemetry.Recorder, by telemetry.Administrator, c registry.Change) {
	if event, ok := eventOf[c.Kind+" "+string(c.Action)]; ok {
		events.Changed(ctx, event, by, slog.String("id", c.ID), changesOf(c.Differences))
	}
}

// eventOf is keyed by "kind action".
var eventOf = map[string]string{
	"client created":   telemetry.EventClientCreated,
	"client changed":   telemetry.EventClientChanged,
	"client removed":   telemetry.EventClientDeleted,
	"resource created": telemetry.EventResourceCreated,
	"resource changed": telemetry.EventResourceChanged,
	"resource removed": telemetry.EventResourceDeleted,

	trust.KindIssuer + " created":   telemetry.EventIssuerCreated,
	trust.KindIssuer + " changed":   telemetry.EventIssuerChanged,
	trust.KindIssuer + " removed":   telemetry.EventIssuerDeleted,
	trust.KindWorkload + " created": telemetry.EventWorkloadCreated,
	trust.KindWorkload + " changed": telemetry.EventWorkloadChanged,
	trust.KindWorkload + " removed": telemetry.EventWorkloadDeleted,
}

// awaitApplied waits briefly for the change to reach this replica. Timing out is not an error: the change is committed.
func (c *Config) awaitApplied(ctx context.Context) {
	const timeout = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_ = c.CatchUp(ctx)
}
