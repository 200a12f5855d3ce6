// Package registry has the clients, their secrets and the resources, and the rules for changing them: by a manifest
// ([Applier]) or one by one ([Registrar]). It carries out RFC 7591 §2 (client metadata), RFC 8707 §2 (resources) and
// AIP-154 (etags).
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// Client is a service that may ask for tokens. A Client that a store or a [Directory] gave is shared and must not be
// changed.
type Client struct {
	ID   oauth.ClientID
	Name string
	// Secrets are alternatives: any one that has not expired proves the client.
	Secrets []clientsecret.Secret
	// AuthMethods lists how the client may prove who it is, as [oauth.ClientSecretBasic]; empty means by either way of
	// sending a secret.
	AuthMethods []string
	GrantTypes  []string
	// Scopes are all that the client may have.
	Scopes oauth.Scopes
	// DefaultScopes are what it gets when it asks for none; empty means Scopes.
	DefaultScopes oauth.Scopes
	// Resources are those that the client serves, as a resource server.
	Resources []oauth.Resource
	// AccessTokenLifetime bounds the life of its tokens; zero means no bound of the client's own.
	AccessTokenLifetime time.Duration
	// AllowedNetworks are those that the client may come from; empty means any.
	AllowedNetworks remoteaddr.Networks
	// Disabled keeps the client from proving who it is.
	Disabled bool
	// CreatedAt and ChangedAt are when the client was first and last stored.
	CreatedAt, ChangedAt time.Time

	// Version tells this state of the client from every other one; zero for a client that is not stored.
	Version uint64
	// Newer says, in a list, that a newer release wrote the client's record ([ErrNewer]). Only ID is set then.
	Newer bool
}

// Allows reports whether the client may prove who it is by method.
func (c *Client) Allows(method string) bool {
	if len(c.AuthMethods) == 0 {
		return method == oauth.ClientSecretBasic || method == oauth.ClientSecretPost
	}
	return slices.Contains(c.AuthMethods, method)
}

// AllowsFrom reports whether the client may come from the address; the zero address is one that is not known.
func (c *Client) AllowsFrom(source netip.Addr) bool {
	return len(c.AllowedNetworks) == 0 || c.AllowedNetworks.Contain(source)
}

// maxNetworks bounds the networks of a client.
const maxNetworks = 64

// ParseNetwork reads a network in CIDR notation (RFC 4632 §3.1), such as 10.0.0.0/8 or 2001:db8::/32. Bits beyond its
// length are refused: a network was meant that is another one than is written.
func ParseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%.100q is no network such as 10.0.0.0/8 or 2001:db8::/32", text)
	case network.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is IPv4 within IPv6; write it as IPv4", network)
	case network != network.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length; %s may be meant", network, network.Masked())
	}
	return network, nil
}

// clone gives a copy that can be changed.
func (c *Client) clone() *Client {
	next := *c
	next.Secrets = slices.Clone(c.Secrets)
	next.AuthMethods, next.GrantTypes = slices.Clone(c.AuthMethods), slices.Clone(c.GrantTypes)
	next.Scopes, next.DefaultScopes = slices.Clone(c.Scopes), slices.Clone(c.DefaultScopes)
	next.Resources, next.AllowedNetworks = slices.Clone(c.Resources), slices.Clone(c.AllowedNetworks)
	return &next
}

// ETag names the state of the client; empty where that is not known.
func (c *Client) ETag() string {
	if c.Version == 0 {
		return ""
	}
	return strconv.FormatUint(c.Version, 36)
}

// ParseETag gives the version of the client that [Client.ETag] wrote; zero for no etag. What it never writes names no
// state that a client can have, so it is an [ErrConflict].
func ParseETag(etag string) (uint64, error) {
	if etag == "" {
		return 0, nil
	}
	version, err := strconv.ParseUint(etag, 36, 64)
	if err != nil || version == 0 || strconv.FormatUint(version, 36) != etag {
		return 0, ErrConflict
	}
	return version, nil
}

// Check reports the first thing about the client that cannot be, given the resources there are.
func (c *Client) Check(resources *Resources) error { return c.check(resources, &Client{}) }

// check is Check for a client that is stored as before. A scope or resource that it had, and that was removed since,
// does not stand in the way of another change, such as disabling the client.
func (c *Client) check(resources *Resources, before *Client) error {
	for _, grant := range c.GrantTypes {
		if grant != oauth.GrantClientCredentials {
			return &FieldError{"grant_types", fmt.Sprintf("%q is not offered", grant)}
		}
	}
	for _, method := range c.AuthMethods {
		if method != oauth.ClientSecretBasic && method != oauth.ClientSecretPost {
			return &FieldError{"auth_methods", fmt.Sprintf("%q is not offered", method)}
		}
	}
	if len(c.Scopes) > oauth.MaxScopes {
		return &FieldError{"scopes", fmt.Sprintf("there are more than %d", oauth.MaxScopes)}
	}
	for _, scope := range c.Scopes {
		if _, ok := resources.Owner(scope); !ok && !before.Scopes.Has(scope) {
			return &FieldError{"scopes", fmt.Sprintf("%q belongs to no resource", scope)}
		}
	}
	for _, scope := range c.DefaultScopes {
		if !c.Scopes.Has(scope) {
			return &FieldError{"default_scopes", fmt.Sprintf("%q is not among the client's scopes", scope)}
		}
	}
	for _, served := range c.Resources {
		if served == admin.ID {
			// Who serves a resource is told about the tokens for it.
			return &FieldError{"resources", fmt.Sprintf("%q is served by the issuer alone", served)}
		}
		if _, ok := resources.Get(served); !ok && !slices.Contains(before.Resources, served) {
			return &FieldError{"resources", fmt.Sprintf("there is no resource %q", served)}
		}
	}
	if len(c.AllowedNetworks) > maxNetworks {
		return &FieldError{"allowed_networks", fmt.Sprintf("there are more than %d", maxNetworks)}
	}
	return cmp.Or(checkName("client_name", c.Name), checkLifetime(c.AccessTokenLifetime),
		checkOnce("grant_types", c.GrantTypes), checkOnce("auth_methods", c.AuthMethods), checkOnce("scopes", c.Scopes),
		checkOnce("default_scopes", c.DefaultScopes), checkOnce("resources", c.Resources),
		checkOnce("allowed_networks", c.AllowedNetworks))
}

// checkOnce reports what is in a list twice.
func checkOnce[T comparable](field string, list []T) error {
	seen := make(map[T]bool, len(list))
	for _, one := range list {
		if seen[one] {
			return &FieldError{field, fmt.Sprintf("%q is there twice", fmt.Sprint(one))}
		}
		seen[one] = true
	}
	return nil
}

// maxName bounds a name for people, in bytes.
const maxName = 255

func checkName(field, name string) error {
	if len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return &FieldError{field, fmt.Sprintf("is not UTF-8 of at most %d bytes without control characters", maxName)}
	}
	return nil
}

// FieldError says which field of a client or resource is wrong, by its name on the wire, and how.
type FieldError struct {
	Field, Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// MaxLifetime is the longest that an access token can live: so long keys and revocations must be kept after their use.
const MaxLifetime = 24 * time.Hour

func checkLifetime(d time.Duration) error {
	if d < 0 || d > MaxLifetime || d%time.Second != 0 {
		return &FieldError{"access_token_lifetime", fmt.Sprintf("%s is not between 1s and %s in whole seconds", d, MaxLifetime)}
	}
	return nil
}

// What a store or a [Registrar] answers besides a failure to answer.
var (
	// ErrNotFound says that there is no such client, secret or resource.
	ErrNotFound = errors.New("not found")
	// ErrExists says that there is one of the id already.
	ErrExists = errors.New("there already")
	// ErrConflict says that somebody else made a change since the version that a change was based on.
	ErrConflict = errors.New("changed by somebody else meanwhile")
	// ErrAltered says that a record is not as it was saved: somebody changed the store by other means. It is never used.
	ErrAltered = errors.New("altered by other means than Grantor's")
	// ErrNewer says that a newer release wrote a record, in a form that this one does not know. It is not used, and not
	// written over.
	ErrNewer = errors.New("written by a newer release of Grantor")
)

// ClientStore keeps the clients. Every change is announced to all replicas in the same step that makes it, so that no
// replica misses one. It may be used by several goroutines.
type ClientStore interface {
	// Client gives the client with the id as last saved, or [ErrNotFound].
	Client(ctx context.Context, id oauth.ClientID) (*Client, error)
	// Clients gives at most limit clients whose ids come after the one given, in byte order of their ids; fewer than
	// limit means that there are no more. The zero id comes before all. One whose record a newer release wrote is there by
	// its id alone ([Client.Newer]), so that it does not keep the others back.
	Clients(ctx context.Context, after oauth.ClientID, limit int) ([]*Client, error)
	// SaveClient writes the client if the stored version is still c.Version, where zero stands for a client that is not
	// there; else it gives [ErrConflict] and changes nothing. Saving a disabled client revokes its tokens.
	SaveClient(ctx context.Context, c *Client) error
	// DeleteClient removes the client and revokes its tokens if its version is still the one given, else it gives
	// [ErrConflict].
	DeleteClient(ctx context.Context, id oauth.ClientID, version uint64) error
}
