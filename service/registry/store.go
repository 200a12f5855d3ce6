package registry

import (
	"context"
	"errors"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// Errors of a store or an [Editor]. Any other error means that the store did not answer.
var (
	// ErrNotFound means that there is no such client, secret, resource, trusted issuer or workload.
	ErrNotFound = errors.New("not found")
	// ErrExists means that the identifier is taken.
	ErrExists = errors.New("already exists")
	// ErrConflict means that another change was made since the version on which a change was based.
	ErrConflict = errors.New("changed concurrently")
	// ErrAltered means that a record is not as it was saved: it was altered in the store by other means. It is never used.
	ErrAltered = errors.New("altered by other means than Grantor's")
	// ErrNewer means that a newer release wrote a record, in a format that this release does not know. The record is neither
	// used nor overwritten.
	ErrNewer = errors.New("written by a newer release of Grantor")
)

// ClientStore stores the clients. Every change is published to all replicas atomically with the write, so that no replica
// misses one. A ClientStore is safe for concurrent use by multiple goroutines.
type ClientStore interface {
	// Client returns the client with the id as last saved, or [ErrNotFound].
	Client(ctx context.Context, id oauth.ClientID) (*Client, error)
	// Clients returns at most limit clients whose ids follow after, in byte order of their ids; fewer than limit means that
	// there are no more. The zero id precedes all. A client whose record cannot be read is in the list with its id alone
	// ([Client.Err]), so that it does not hide the others.
	Clients(ctx context.Context, after oauth.ClientID, limit int) ([]*Client, error)
	// SaveClient writes the client if the stored version is still c.Version, where zero stands for a client that does not
	// exist; otherwise it returns [ErrConflict] and changes nothing. Saving a disabled client revokes its tokens.
	SaveClient(ctx context.Context, c *Client) error
	// DeleteClient deletes the client and revokes its tokens if the stored version is still the given one; otherwise it
	// returns [ErrConflict] and changes nothing.
	DeleteClient(ctx context.Context, id oauth.ClientID, version uint64) error
}

// ResourceStore stores the resources. Every change is published to all replicas atomically with the write. A ResourceStore
// is safe for concurrent use by multiple goroutines.
type ResourceStore interface {
	// Resources returns the table as last saved; an empty one if none was.
	Resources(ctx context.Context) (*Resources, error)
	// SaveResources replaces the table if the stored version is still that of r; otherwise it returns [ErrConflict].
	SaveResources(ctx context.Context, r *Resources) error
}

// TrustStore stores the trusted issuers and the workloads. Every change is published to all replicas atomically with the write.
// A TrustStore is safe for concurrent use by multiple goroutines.
type TrustStore interface {
	// Trust returns the table as last saved; an empty one if none was.
	Trust(ctx context.Context) (*trust.Table, error)
	// SaveTrust replaces the table if the stored version is still that of t; otherwise it returns [ErrConflict].
	SaveTrust(ctx context.Context, t *trust.Table) error
}

// Store stores everything that is registered, and when secrets were used.
type Store interface {
	ClientStore
	ResourceStore
	TrustStore
	UsageStore
}
