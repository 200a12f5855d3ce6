package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/telemetry"
)

const (
	// maxInspectedFeed and maxInspectedAudit bound how many entries of the feed, and of each stream of the audit trail, are
	// inspected: the oldest of the feed, which are the first that a replica reads, and the newest of the others.
	maxInspectedFeed  = 1_000_000
	maxInspectedAudit = 100_000
	// maxScans bounds how many SCAN commands search the database for the windows of limits.
	maxScans = 1000
)

// Inspect reads the records that are read one by one, and calls report for each that cannot be read: the entries of the feed
// and of the audit trail, the uses of secrets, the counts of limits, and what replicas report. It changes nothing. Clients
// and resources are read by [Store.List] and [Store.Resources].
func (s *Store) Inspect(ctx context.Context, report func(telemetry.UnreadableRecord)) error {
	server, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	i := &inspection{s, server, report}
	for _, inspect := range []func(context.Context) error{i.feed, i.uses, i.counts, i.replicas, i.audit} {
		if err := inspect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// inspection is one call of [Store.Inspect].
type inspection struct {
	*Store

	server       *redis.Client
	onUnreadable func(telemetry.UnreadableRecord)
}

// check reports a record if err is why it cannot be read.
func (i *inspection) check(record, key, id string, err error) {
	if err != nil {
		i.onUnreadable(telemetry.UnreadableRecord{Record: record, Key: key, ID: id, Err: err})
	}
}

// wrongType returns whether err means that a key is of another type than it should be, and then reports the key.
func (i *inspection) wrongType(record, key string, err error) bool {
	wrong := redis.HasErrorPrefix(err, "WRONGTYPE")
	if wrong {
		i.check(record, key, "", errors.New("the key is of another type"))
	}
	return wrong
}

// feed reads with a fixed order of IDs rather than by [Store.Read], which reports gaps.
func (i *inspection) feed(ctx context.Context) error {
	key := i.key("feed")
	start := "-"
	for range maxInspectedFeed / maxRead {
		page, err := i.server.XRangeN(ctx, key, start, "+", maxRead).Result()
		if i.wrongType("feed", key, err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range page {
			_, err := changeFields(m.Values).decode()
			i.check("feed", key, m.ID, err)
		}
		if len(page) < maxRead {
			return nil
		}
		start = "(" + page[len(page)-1].ID
	}
	return nil
}

// hash reads a hash and checks each field by decode.
func (i *inspection) hash(ctx context.Context, record, key string, decode func(field, value string) error) error {
	fields, err := i.server.HGetAll(ctx, key).Result()
	if i.wrongType(record, key, err) {
		return nil
	}
	for field, value := range fields {
		i.check(record, key, field, decode(field, value))
	}
	return err
}

func (i *inspection) uses(ctx context.Context) error {
	return i.hash(ctx, "uses", i.key("used"), func(_, value string) error {
		_, err := decodeUses(value)
		return err
	})
}

func (i *inspection) replicas(ctx context.Context) error {
	return i.hash(ctx, "replica", i.key("replicas"), func(id, value string) error {
		_, err := decodeReplica(id, value)
		return err
	})
}

func (i *inspection) counts(ctx context.Context) error {
	const page = 1000
	var cursor uint64
	for range maxScans {
		// The prefix is compared here, because it may have characters with a meaning in patterns.
		names, next, err := i.server.Scan(ctx, cursor, "*limit:*", page).Result()
		if err != nil {
			return err
		}
		for _, key := range names {
			if !strings.HasPrefix(key, i.key("limit:")) {
				continue
			}
			err := i.hash(ctx, "counts", key, func(_, value string) error {
				if n, err := strconv.ParseInt(value, 10, 64); err != nil || n < 0 {
					return fmt.Errorf("its count is %.40q", value)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	return nil
}

func (i *inspection) audit(ctx context.Context) error {
	for _, stream := range telemetry.Streams {
		key := i.key("audit:" + string(stream))
		end := "+"
		for range maxInspectedAudit / maxRead {
			page, err := i.server.XRevRangeN(ctx, key, end, "-", maxRead).Result()
			if i.wrongType("audit", key, err) {
				break
			}
			if err != nil {
				return err
			}
			for _, m := range page {
				_, err := decodeAuditEntry(m)
				i.check("audit", key, m.ID, err)
			}
			if len(page) < maxRead {
				break
			}
			end = "(" + page[len(page)-1].ID
		}
	}
	return nil
}
