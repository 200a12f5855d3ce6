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

// clientReport collects what is found among the clients: texts that begin with the client's ID, keyed by the IDs of
// checks.
type clientReport struct {
	now      time.Time
	found    map[string][]string
	disabled int
}

// The ages at which a secret is reported.
const (
	maxUnused = 30 * 24 * time.Hour
	unusedFor = 90 * 24 * time.Hour
	chosenFor = 90 * 24 * time.Hour
)

// clientChecks are the checks of a clientReport.
var clientChecks = []string{
	"record.altered", "record.unreadable", "client.expiring", "client.locked-out", "client.secretless", "client.never-used",
	"client.unused", "client.chosen", "client.administrators",
}

// checkRecords checks the records of resources, trusted issuers and clients, which the open ring authenticates.
func (d *doctor) checkRecords(ctx context.Context) error {
	if d.ring == nil {
		return nil
	}
	d.store.Authenticate(keys.RecordKey(d.ring.Pepper))
	c := &clientReport{now: d.now(), found: make(map[string][]string)}
	if _, err := d.store.Resources(ctx); err != nil {
		c.broken("the resources", err)
	}
	d.checkTrust(ctx, c)
	more, err := d.visit(ctx, c)
	if err != nil {
		return err
	}
	for _, id := range clientChecks {
		d.named(id, c.found[id])
	}
	d.checkf("client.disabled", c.disabled > 0, "%s", plural(c.disabled, "client"))
	d.checkf("client.many", more, "only the first %s were checked", plural(d.clients, "client"))
	return nil
}

// visit checks the clients page by page, and reports whether there are more than it may check.
func (d *doctor) visit(ctx context.Context, c *clientReport) (more bool, err error) {
	after := ""
	for left := d.clients; ; {
		page, err := d.store.List(ctx, after, min(cli.PageSize, left+1))
		if err != nil {
			return false, err
		}
		uses, err := d.store.LastUses(ctx, clientIDs(page))
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

func clientIDs(page []redisstore.Listed) []oauth.ClientID {
	var ids []oauth.ClientID
	for _, entry := range page {
		if entry.Client != nil {
			ids = append(ids, entry.Client.ID)
		}
	}
	return ids
}

// broken reports a record that cannot be used.
func (c *clientReport) broken(what string, err error) {
	if errors.Is(err, registry.ErrAltered) {
		c.found["record.altered"] = append(c.found["record.altered"], what)
		return
	}
	c.found["record.unreadable"] = append(c.found["record.unreadable"], fmt.Sprintf("%s: %.200v", what, err))
}

// add checks a client.
func (c *clientReport) add(client *registry.Client, uses map[string]time.Time) {
	report := func(id, format string, args ...any) {
		c.found[id] = append(c.found[id], client.ID.String()+fmt.Sprintf(format, args...))
	}
	if client.Disabled {
		c.disabled++
		return
	}
	for _, scope := range client.Scopes {
		if strings.HasPrefix(scope.String(), "grantor:") {
			report("client.administrators", "")
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
		if secret.Expired(c.now.Add(expiryWarning)) {
			soon++
			if secret.ExpiresAt.After(last) {
				last = secret.ExpiresAt
			}
		}
		c.addSecret(secret, secret.LastUse(uses), report)
	}
	switch {
	case len(client.Secrets) == 0:
		if !client.Workload && len(client.Federation) == 0 && client.Keys.String() == "" && client.KeysURI == "" {
			report("client.secretless", "")
		}
	case valid == 0:
		report("client.locked-out", "")
	case soon == valid:
		report("client.expiring", " at %s", formatTime(last))
	}
}

// addSecret checks a secret that has not expired.
func (c *clientReport) addSecret(secret *clientsecret.Secret, used time.Time, report func(id, format string, args ...any)) {
	age := c.now.Sub(secret.CreatedAt)
	switch {
	case used.IsZero() && age > maxUnused:
		report("client.never-used", " (secret %s, created %s)", secret.ID, formatTime(secret.CreatedAt))
	case !used.IsZero() && c.now.Sub(used) > unusedFor:
		report("client.unused", " (secret %s, last used %s)", secret.ID, formatTime(used))
	}
	if secret.Hash.Kind() == clientsecret.KindChosen && age > chosenFor {
		report("client.chosen", " (secret %s, created %s)", secret.ID, formatTime(secret.CreatedAt))
	}
}
