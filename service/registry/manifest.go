package registry

import (
	"cmp"
	"fmt"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// Manifest lists the clients, resources, trusted issuers and workloads that should be registered.
type Manifest struct {
	Resources []Resource
	Issuers   []trust.Issuer
	Workloads []trust.Workload
	Clients   []ClientSpec
}

// ClientSpec specifies what a client should be. Its Secrets and times are ignored. If it has no AllowedNetworks, the stored
// ones stay, so that no manifest lifts by accident a restriction that was made in an emergency.
type ClientSpec struct {
	Client
	// Secret is a secret in the clear; empty if the manifest contains none. [Editor.Apply] specifies what becomes of the
	// stored secrets.
	Secret string
	// LeaveDisabled means that the manifest does not specify Disabled, so that the stored value stays. Otherwise the next
	// replica that applies its file would enable a client that was disabled in an emergency.
	LeaveDisabled bool
	// Hashes are hashes of secrets that the client brings from another server. Each is salted, and added once.
	Hashes []clientsecret.Hash
}

// ManifestError reports which client of a manifest is not valid, and why.
type ManifestError struct {
	ID  oauth.ClientID
	Err error
}

func (e *ManifestError) Error() string { return fmt.Sprintf("client %s: %v", e.ID, e.Err) }

// Unwrap returns the [FieldError].
func (e *ManifestError) Unwrap() error { return e.Err }

// Check rejects a manifest that specifies one thing in two ways, so that applying it again would not be a no-op, and one in which
// an identity may be two clients.
func (m *Manifest) Check() error {
	if _, err := NewResources(0, m.Resources); err != nil {
		return err
	}
	if err := cmp.Or(issuers.unique(m.Issuers), workloads.unique(m.Workloads)); err != nil {
		return err
	}
	seen := make(map[oauth.ClientID]bool, len(m.Clients))
	for i := range m.Clients {
		id := m.Clients[i].ID
		if seen[id] {
			return &ManifestError{id, &FieldError{Field: "client_id", Problem: fmt.Sprintf("duplicate %q", id)}}
		}
		seen[id] = true
		if n := len(m.Clients[i].Hashes); n > MaxSecrets || (n == MaxSecrets && m.Clients[i].Secret != "") {
			return &ManifestError{id, &FieldError{Field: "client_secret", Problem: fmt.Sprintf("there are more than %d", MaxSecrets)}}
		}
	}
	return m.checkIdentities()
}

// Action is what applying a manifest did, or would do, to one client, resource,
// trusted issuer or workload.
type Action string

// The actions.
const (
	Created   Action = "created"
	Changed   Action = "changed"
	Unchanged Action = "unchanged"
	Removed   Action = "removed"
)

// Change is what applying a manifest did, or would do, to one client, resource,
// trusted issuer or workload.
type Change struct {
	Action Action
	// Kind is "client", "resource", [trust.KindIssuer] or [trust.KindWorkload].
	Kind string
	ID   string
	// Differences are the changes of fields: all from empty if the action is [Created], all to empty if it is [Removed].
	Differences []FieldChange
}

// Fields returns the names of the fields that changed, as on the wire; nil unless the action is [Changed].
func (c *Change) Fields() []string {
	if c.Action != Changed {
		return nil
	}
	names := make([]string, len(c.Differences))
	for i, d := range c.Differences {
		names[i] = d.Field
	}
	return names
}
