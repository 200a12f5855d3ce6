package redisstore

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
)

// A checkpoint repeats a part of the feed without the changes that only invalidate caches, which a replica that starts does
// not need. Its ID is the cursor of the last entry of that part, and p is the cursor of the last entry before it: that of
// the previous checkpoint, or 0-0. So checkpoints form a chain.
//
// A checkpoint is only a copy, and the feed stays the truth: any release may write to the feed, and checkpoints may be lost
// or deleted at any time. What makes the copy complete is that IDs in a stream only grow, so that nothing can be added to a
// part that has an entry behind it. Redis replicates, stores and restores writes in their order, so that whatever loses the
// end of that part also loses the checkpoint. Only a feed that was deleted by hand leaves its checkpoints; the last one then
// names an entry that the feed does not have.

// checkpointPage is the number of checkpoints that are read at once. One of a feed of revocations alone has 250 kB.
const checkpointPage = 8

// checkpoint is a checkpoint as it is stored.
type checkpoint struct {
	previous, end revocation.Cursor
	data          []byte
}

// checkpointVersion is what the MAC covers besides the key and the data.
func checkpointVersion(previous, end revocation.Cursor) string {
	return previous.String() + " " + end.String()
}

// verifyCheckpoint returns the checkpoint that a message has, if Grantor wrote it there.
func (s *Store) verifyCheckpoint(m redis.XMessage) (c checkpoint, err error) {
	mac, err := s.authenticator()
	if err != nil {
		return c, err
	}
	text := func(field string) string { value, _ := m.Values[field].(string); return value }
	c.data = []byte(text("d"))
	var errs [2]error
	c.end, errs[0] = revocation.ParseCursor(m.ID)
	c.previous, errs[1] = revocation.ParseCursor(text("p"))
	want := mac(s.key("checkpoints"), checkpointVersion(c.previous, c.end), c.data)
	if errors.Join(errs[:]...) != nil || !hmac.Equal([]byte(text("m")), want) {
		return c, fmt.Errorf("the checkpoint %s: %w", m.ID, registry.ErrAltered)
	}
	return c, nil
}

// newestCheckpoint returns the last checkpoint; nil if there is none that the feed continues.
func (s *Store) newestCheckpoint(ctx context.Context) (id string, newest *checkpoint, err error) {
	found, err := s.client.XRevRangeN(ctx, s.key("checkpoints"), "+", "-", 1).Result()
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		s.report("checkpoint", s.key("checkpoints"), "", errors.New("the key is of another type"))
		return "", nil, s.client.Del(ctx, s.key("checkpoints")).Err() // no decision depends on it
	}
	if err != nil || len(found) == 0 {
		return "", nil, err
	}
	id = found[0].ID
	c, err := s.verifyCheckpoint(found[0])
	if err != nil {
		s.report("checkpoint", s.key("checkpoints"), id, err)
		return id, nil, nil
	}
	continued, err := s.client.XRangeN(ctx, s.key("feed"), id, id, 1).Result()
	if err != nil || len(continued) == 0 {
		return id, nil, err
	}
	return id, &c, nil
}

// Skim implements [revocation.Log].
func (s *Store) Skim(ctx context.Context, after revocation.Cursor) (entries []revocation.Entry, next revocation.Cursor, err error) {
	if after == (revocation.Cursor{}) {
		if _, newest, err := s.newestCheckpoint(ctx); newest == nil {
			return nil, after, err
		}
	}
	found, err := s.client.XRangeN(ctx, s.key("checkpoints"), "("+after.String(), "+", checkpointPage).Result()
	if err != nil {
		return nil, after, err
	}
	next = after
	for i, m := range found {
		c, err := s.verifyCheckpoint(m)
		if err == nil && i == 0 && c.previous.Compare(after) > 0 {
			// The checkpoints before it are trimmed or lost, but perhaps not their entries in the feed.
			return s.skimFeed(ctx, after, c.previous)
		}
		if err == nil && c.previous != next {
			return entries, next, nil // one between them is lost, or another replica has begun a new chain
		}
		var more []revocation.Entry
		if err == nil {
			more, err = s.decodeCheckpoint(c)
		}
		if err != nil {
			s.report("checkpoint", s.key("checkpoints"), m.ID, err)
			if err := s.discardCheckpoints(ctx, err); err != nil {
				return nil, after, err
			}
			return entries, next, nil
		}
		entries, next = append(entries, more...), c.end
	}
	return entries, next, nil
}

// skimFeed returns the first entries of the feed after one cursor and up to another.
func (s *Store) skimFeed(ctx context.Context, after, end revocation.Cursor) ([]revocation.Entry, revocation.Cursor, error) {
	page, err := s.client.XRangeN(ctx, s.key("feed"), "("+after.String(), end.String(), maxRead).Result()
	if err != nil {
		return nil, after, err
	}
	entries, err := s.decodeEntries(page)
	if err == nil && len(page) == maxRead {
		end = entries[len(entries)-1].Cursor
	}
	return entries, end, err
}

// discardCheckpoints deletes the checkpoints because of one that cannot be read, so that replicas store them again. It keeps
// those that a newer release wrote.
func (s *Store) discardCheckpoints(ctx context.Context, cause error) error {
	if errors.Is(cause, registry.ErrNewer) {
		return nil
	}
	return s.client.Del(ctx, s.key("checkpoints")).Err()
}

// addCheckpoint adds a checkpoint, if the newest one is the expected one and the feed has both ends of the part. It begins
// a new chain if the part begins with the feed. Without further checkpoints the key expires, also after the last replica of
// a release that knows it.
//
// KEYS: feed, checkpoints
// ARGV: ID of the newest checkpoint (empty for none), the two ends of the part, cursor of the oldest checkpoint to keep, data,
// MAC, retention in milliseconds.
var addCheckpoint = redis.NewScript(`
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if (newest[1] and newest[1][1] or '') ~= ARGV[1] then return 0 end
if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then return 0 end
if ARGV[2] == '0-0' then
  redis.call('DEL', KEYS[2])
elseif #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2]) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], 'MINID', ARGV[4], ARGV[3], 'p', ARGV[2], 'd', ARGV[5], 'm', ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return 1
`)

// Checkpoint implements [revocation.Log].
func (s *Store) Checkpoint(ctx context.Context) error {
	mac, err := s.authenticator()
	if err != nil {
		return err
	}
	id, newest, err := s.newestCheckpoint(ctx)
	if err != nil {
		return err
	}
	var previous revocation.Cursor
	if newest != nil {
		previous = newest.end
	}
	for {
		page, err := s.client.XRangeN(ctx, s.key("feed"), "("+previous.String(), "+", s.checkpointEntries).Result()
		if err != nil || int64(len(page)) < s.checkpointEntries {
			return err
		}
		end, data, err := encodeCheckpoint(previous, page)
		if err != nil {
			return err
		}
		oldest := revocation.Cursor{Time: uint64(max(time.Now().Unix()-s.retention, 0)) * 1000}
		if oldest.Compare(end) > 0 {
			oldest = end
		}
		added, err := addCheckpoint.Run(ctx, s.client, []string{s.key("feed"), s.key("checkpoints")}, id, previous.String(), end.String(),
			oldest.String(), data, mac(s.key("checkpoints"), checkpointVersion(previous, end), data), s.retention*1000).Int()
		if redis.HasErrorPrefix(err, "The ID specified in XADD is equal or smaller") { // something else removed a later one
			return s.client.Del(ctx, s.key("checkpoints")).Err()
		}
		if err != nil || added == 0 { // another replica was quicker, or the feed has lost entries
			return err
		}
		previous, id = end, end.String()
	}
}

// encodeCheckpoint encodes the entries of a part of the feed, except changes that only invalidate caches, with all their
// fields: a newer release may know an entry that this one does not. It returns the cursor of the last entry of the part.
func encodeCheckpoint(previous revocation.Cursor, page []redis.XMessage) (end revocation.Cursor, data []byte, err error) {
	data = []byte{checkpointFormat}
	at := previous.Time
	for _, m := range page {
		if end, err = parseStreamID(m.ID); err != nil {
			return end, nil, err
		}
		if kind, _ := m.Values["k"].(string); revocation.Kind(kind).Invalidation() {
			continue
		}
		data = binary.AppendUvarint(data, end.Time-at)
		data = binary.AppendUvarint(data, end.Sequence)
		data = binary.AppendUvarint(data, uint64(len(m.Values)))
		for field, value := range m.Values {
			text, _ := value.(string)
			data = appendText(appendText(data, field), text)
		}
		at = end.Time
	}
	return end, data, nil
}

func appendText(data []byte, text string) []byte {
	return append(binary.AppendUvarint(data, uint64(len(text))), text...)
}

// decodeCheckpoint returns the entries that a checkpoint has.
func (s *Store) decodeCheckpoint(c checkpoint) ([]revocation.Entry, error) {
	if len(c.data) > 0 && c.data[0] > checkpointFormat {
		return nil, fmt.Errorf("the checkpoint %s: %w: its format is %d, and this release reads up to %d", c.end, registry.ErrNewer, c.data[0], checkpointFormat)
	}
	if len(c.data) == 0 || c.data[0] != checkpointFormat {
		return nil, fmt.Errorf("the checkpoint %s has no format", c.end)
	}
	var entries []revocation.Entry
	r, at := &fields{rest: c.data[1:]}, c.previous
	for len(r.rest) > 0 {
		at = revocation.Cursor{Time: at.Time + r.number(), Sequence: r.number()}
		var known feedFields
		for n := r.number(); n > 0 && !r.short; n-- {
			field, value := r.text(), r.text()
			switch string(field) {
			case "k":
				known.kind = string(value)
			case "i":
				known.id = string(value)
			case "t":
				known.at = string(value)
			}
		}
		if r.short {
			return nil, fmt.Errorf("the checkpoint %s ends too early", c.end)
		}
		entries = append(entries, s.entry(at, known))
	}
	return entries, nil
}

// fields reads the data of a checkpoint.
type fields struct {
	rest []byte
	// short reports that the data ended too early. Then rest is empty.
	short bool
}

func (f *fields) number() uint64 {
	n, size := binary.Uvarint(f.rest)
	if size <= 0 {
		f.rest, f.short = nil, true
		return 0
	}
	f.rest = f.rest[size:]
	return n
}

func (f *fields) text() []byte {
	n := f.number()
	if n > uint64(len(f.rest)) {
		f.rest, f.short = nil, true
		return nil
	}
	text := f.rest[:n]
	f.rest = f.rest[n:]
	return text
}
