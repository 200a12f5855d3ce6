// Package admin has the gRPC servers of the administrative services: clients with their secrets, resources, and signing
// keys. Each translates a message for the domain, calls it, and translates the answer back, after the manner of Google's
// API improvement proposals 131 to 135 (standard methods), 154 (etags), 158 (pages) and 161 (field masks).
//
// Who may call a method says the rule in its proto; the interceptors/verify package keeps to it before a server is reached.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
)

// Ring is what the servers need of the key ring.
type Ring interface {
	// List gives the keys in the order in which they sign.
	List() []keys.Info
	// Rotate makes a successor for the algorithm, or for each where it is empty, unless there is one already.
	Rotate(ctx context.Context, algorithm jwks.Algorithm) error
	// Retire takes a key out of use.
	Retire(ctx context.Context, id string) error
	// Compromise removes a key at once, and revokes its tokens.
	Compromise(ctx context.Context, id string) error
}

// Config is what the servers work on. Every field is required.
type Config struct {
	// Editor changes clients and resources. Each call does so with the authority of its caller.
	Editor *registry.Editor
	Usage  registry.UsageStore
	// Directory has the clients as they are now.
	Directory interface {
		Client(ctx context.Context, id oauth.ClientID) (*registry.Client, error)
	}
	Ring Ring
	// RevokeTokens revokes the tokens of a client that were issued up to now.
	RevokeTokens func(context.Context, *registry.Client) error
	// Fresh reports why what this replica knows is too old to judge a token by; nil when it is not.
	Fresh func() error
	// CatchUp waits until every change made before the call is in force on this replica.
	CatchUp func(context.Context) error
	Events  *telemetry.Recorder
	Log     *slog.Logger
	// PageKey is the key under which page tokens are made, the same on all replicas.
	PageKey []byte
}

// Register adds the services to a server.
func Register(server grpc.ServiceRegistrar, c Config) {
	grantorv1.RegisterClientServiceServer(server, &clientServer{Config: c})
	grantorv1.RegisterResourceServiceServer(server, &resourceServer{Config: c})
	grantorv1.RegisterKeyServiceServer(server, &keyServer{Config: c})
}

// errNoCaller cannot happen while every method of the services has a rule of scopes.
var errNoCaller = errors.New("an administrative method was reached without a caller")

// errAudience refuses a token that is for others too.
var errAudience = oauth.Refuse(oauth.InvalidRequest, "The access token must be for the administration alone.")

// administrator is who makes a call.
type administrator struct {
	telemetry.Administrator
	// editor has the caller's authority.
	editor *registry.Editor
	// changes are those of the editor's last attempt to write.
	changes []registry.FieldChange
}

// admit gives the one who calls, and tools that have no more rights than they.
func (c *Config) admit(ctx context.Context) (*administrator, error) {
	caller, ok := verify.CallerFrom(ctx)
	if !ok {
		return nil, errNoCaller
	}
	if len(caller.Claims.Audience) > 1 {
		// None is issued. Whoever else it is for could have sent it.
		return nil, errAudience
	}
	if err := c.Fresh(); err != nil {
		return nil, err
	}
	if err := c.holds(ctx, caller); err != nil {
		return nil, err
	}
	a := &administrator{Administrator: telemetry.Administrator{ClientID: caller.ClientID, Peer: peerOf(ctx)}}
	a.editor = c.Editor.As(registry.AuthorityOf(caller.Scopes)).Observe(func(changes []registry.FieldChange) { a.changes = changes })
	return a, nil
}

// holds reports as a [registry.ForbiddenError] what a token has that its client has no longer. A right that was taken from
// an administrator ends at once, and not with the token: by that the right could be taken back.
func (c *Config) holds(ctx context.Context, caller verify.Caller) error {
	id, err := oauth.ParseClientID(caller.ClientID)
	if err != nil {
		return err
	}
	client, err := c.Directory.Client(ctx, id)
	if errors.Is(err, registry.ErrNotFound) || (err == nil && client.Disabled) {
		client, err = &registry.Client{ID: id}, nil
	}
	if err != nil {
		return err
	}
	if source := sourceOf(ctx); !client.AllowsFrom(source) {
		return fmt.Errorf("from %s: %w", source, &registry.ForbiddenError{ID: id, Scope: caller.Scopes[0]})
	}
	for _, scope := range caller.Scopes {
		if !client.Scopes.Has(scope) {
			return &registry.ForbiddenError{ID: id, Scope: scope}
		}
	}
	return nil
}

// made reports whether a change was made: also one that too few replicas of the store have yet.
func made(err error) bool { return err == nil || errors.Is(err, revocation.ErrNotReplicated) }

// changesOf makes the attribute of an audit event that tells what is different.
func changesOf(differences []registry.FieldChange) slog.Attr {
	changes := make([]telemetry.Change, len(differences))
	for i, d := range differences {
		changes[i] = telemetry.Change(d)
	}
	return telemetry.ChangesOf(changes)
}

// Applied writes the audit event of what applying a manifest did; none for what it left.
func Applied(ctx context.Context, events *telemetry.Recorder, by telemetry.Administrator, c registry.Change) {
	if event, ok := eventOf[c.Kind+" "+string(c.Action)]; ok {
		events.Changed(ctx, event, by, slog.String("id", c.ID), changesOf(c.Differences))
	}
}

// eventOf has kind and action → event.
var eventOf = map[string]string{
	"client created":   telemetry.EventClientCreated,
	"client changed":   telemetry.EventClientChanged,
	"client removed":   telemetry.EventClientDeleted,
	"resource created": telemetry.EventResourceCreated,
	"resource changed": telemetry.EventResourceChanged,
	"resource removed": telemetry.EventResourceDeleted,
}

// inForce waits a moment until a change is in force on this replica. It is made already, so that waiting in vain is no
// failure of the call.
func (c *Config) inForce(ctx context.Context) {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = c.CatchUp(ctx)
}

// sourceOf is the address that a call comes from; the zero address where that is not known.
func sourceOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	return remoteaddr.Parse(p.Addr)
}

func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
