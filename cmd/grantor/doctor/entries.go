package doctor

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/telemetry"
)

// entryChecks maps kinds of [telemetry.UnreadableRecord] to the checks that report them.
var entryChecks = map[string]string{
	"feed": "feed.unreadable", "uses": "uses.unreadable", "counts": "counts.unreadable", "replica": "replica.unreadable",
	"audit": "audit.unreadable",
}

// checkEntries checks what replicas read piece by piece: the entries of the feed and of the audit trail, the uses of
// secrets, the counts of limits, and the reports of replicas.
func (d *doctor) checkEntries(ctx context.Context) error {
	found, count := make(map[string][]string), make(map[string]int)
	err := d.store.Inspect(ctx, func(u telemetry.UnreadableRecord) {
		id := entryChecks[u.Record]
		if count[id]++; count[id] <= maxNamed {
			found[id] = append(found[id], fmt.Sprintf("%s %.100q: %.200v", u.Key, u.ID, u.Err))
		}
	})
	if redis.HasErrorPrefix(err, "NOPERM") {
		d.hide(ctx, true, "the entries of the feed, of the audit trail and of the limits")
		err = nil
	}
	if err != nil {
		return err
	}
	for _, id := range entryChecks {
		d.some(id, found[id], count[id])
	}
	return nil
}
