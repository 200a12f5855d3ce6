package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
)

// census is what is found among the clients, by the checks' ids: in words, each with the client's name.
type census struct {
	now      time.Time
	found    map[string][]string
	disabled int
}

// The ages at which a secret is told of.
const (
	neverUsedFor = 30 * 24 * time.Hour
	unusedFor    = 90 * 24 * time.Hour
	chosenFor    = 90 * 24 * time.Hour
)

// ofClients are the checks that a census makes.
var ofClients = []string{
	"record.altered", "record.unreadable", "client.expiring", "client.locked-out", "client.secretless", "client.never-used",
	"client.unused", "client.chosen", "client.administrators",
}

// lookAtRecords looks at the records of resources and clients, which the open ring authenticates.
func (d *doctor) lookAtRecords(ctx context.Context) error {
	if d.ring == nil {
		return nil
	}
	d.store.Authenticate(keys.RecordKey(d.ring.Pepper))
	c := &census{now: d.now(), found: make(map[string][]string)}
	if _, err := d.store.Resources(ctx); err != nil {
		c.broken("the resources", err)
	}
	more, err := d.visit(ctx, c)
	if err != nil {
		return err
	}
	for _, id := range ofClients {
		d.named(id, c.found[id])
	}
	d.checkf("client.disabled", c.disabled > 0, "%s", plural(c.disabled, "client"))
	d.checkf("client.many", more, "the first %s were looked at", plural(d.clients, "client"))
	return nil
}

// visit looks at the clients page by page, and reports whether there are more than it may look at.
func (d *doctor) visit(ctx context.Context, c *census) (more bool, err error) {
	after := ""
	for left := d.clients; ; {
		page, err := d.store.List(ctx, after, min(cli.PageSize, left+1))
		if err != nil {
			return false, err
		}
		uses, err := d.store.LastUses(ctx, idsOf(page))
		if err != nil {
			return false, err
		}
		for _, entry := range page {
			if left == 0 {
				return true, nil
			}
			left--
			after = entry.ID
			if entry.Err != nil {
				c.broken("client "+entry.ID, entry.Err)
				continue
			}
			c.add(entry.Client, uses[entry.Client.ID])
		}
		if len(page) == 0 {
			return false, nil
		}
	}
}

func idsOf(page []redisstore.Listed) []oauth.ClientID {
	var ids []oauth.ClientID
	for _, entry := range page {
		if entry.Client != nil {
			ids = append(ids, entry.Client.ID)
		}
	}
	return ids
}

// broken notes a record that is of no use.
func (c *census) broken(what string, err error) {
	if errors.Is(err, registry.ErrAltered) {
		c.found["record.altered"] = append(c.found["record.altered"], what)
		return
	}
	c.found["record.unreadable"] = append(c.found["record.unreadable"], fmt.Sprintf("%s: %.200v", what, err))
}

// add looks at a client.
func (c *census) add(client *registry.Client, uses map[string]time.Time) {
	tell := func(id, format string, args ...any) {
		c.found[id] = append(c.found[id], client.ID.String()+fmt.Sprintf(format, args...))
	}
	if client.Disabled {
		c.disabled++
		return
	}
	for _, scope := range client.Scopes {
		if strings.HasPrefix(scope.String(), "grantor:") {
			tell("client.administrators", "")
			break
		}
	}
	valid, soon, last := 0, 0, time.Time{}
	for i := range client.Secrets {
		secret := &client.Secrets[i]
		if secret.Expired(c.now) {
			continue
		}
		valid++
		if secret.Expired(c.now.Add(soonEnds)) {
			soon++
			if secret.ExpiresAt.After(last) {
				last = secret.ExpiresAt
			}
		}
		c.addSecret(secret, secret.LastUse(uses), tell)
	}
	switch {
	case len(client.Secrets) == 0:
		tell("client.secretless", "")
	case valid == 0:
		tell("client.locked-out", "")
	case soon == valid:
		tell("client.expiring", " at %s", instant(last))
	}
}

// addSecret looks at a secret that counts.
func (c *census) addSecret(secret *clientsecret.Secret, used time.Time, tell func(id, format string, args ...any)) {
	age := c.now.Sub(secret.CreatedAt)
	switch {
	case used.IsZero() && age > neverUsedFor:
		tell("client.never-used", " (secret %s, made %s)", secret.ID, instant(secret.CreatedAt))
	case !used.IsZero() && c.now.Sub(used) > unusedFor:
		tell("client.unused", " (secret %s, last used %s)", secret.ID, instant(used))
	}
	if secret.Hash.Kind() == clientsecret.KindChosen && age > chosenFor {
		tell("client.chosen", " (secret %s, made %s)", secret.ID, instant(secret.CreatedAt))
	}
}
