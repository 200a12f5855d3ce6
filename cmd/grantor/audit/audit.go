// Package audit implements grantor audit, which reads the audit events that the replicas of an issuer keep in Redis.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/storage"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/telemetry"
)

// options are the settings and flags of grantor audit.
type options struct {
	storage.Settings

	limit        int
	since, until string
	events       []string
	client       string
	// equal maps an attribute to the value that it must have.
	equal  map[string]*string
	follow bool
	form   string
}

// NewCommand returns grantor audit. Its file of settings may also have the settings in shared.
func NewCommand(shared settings.Names) *cobra.Command {
	s := options{equal: map[string]*string{"by": new(""), "reason": new(""), "jti": new(""), "peer": new("")}}
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List and follow the audit events that are kept in Redis",
		Long: `List the audit events that the replicas of an issuer keep in Redis, the newest last, and follow new ones. Only Redis is
accessed, and no key-encryption key is needed. The file of --config may be that of grantor serve.

An event must match all filters, and one of several --event. docs/audit.md describes the events and their attributes.`,
		Example: `  grantor audit --redis redis://localhost:6379 --since 1h
  grantor audit --event 'client.*' --event 'key.*' --by administrator
  grantor audit --event token.refused --client invoice-worker --follow
  grantor audit --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z --limit 10000 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	flags := cmd.Flags()
	set := settings.NewSet(flags)
	s.DeclareRedis(set)
	cmd.PreRunE = func(*cobra.Command, []string) error { return set.Resolve(shared) }
	flags.IntVarP(&s.limit, "limit", "n", 100, "maximum `number` of events that are listed, the newest")
	flags.StringVar(&s.since, "since", "", "list events since a `time`, such as 90m (ago), 2026-01-31 (midnight UTC) or 2026-01-31T08:00:00Z")
	flags.StringVar(&s.until, "until", "", "list events until a `time`")
	flags.StringSliceVar(&s.events, "event", nil, "only events of this `name`, or of a prefix such as 'client.*', with a * only at the end; can be repeated")
	flags.StringVar(&s.client, "client", "", "only events about the client of this `id`")
	flags.StringVar(s.equal["by"], "by", "", "only changes by the client of this `id`, and refusals of its administrative calls")
	flags.StringVar(s.equal["peer"], "peer", "", "only events of calls from this `address`, with or without a port")
	flags.StringVar(s.equal["reason"], "reason", "", "only refusals of this reason, one `word`; an unknown one lists them")
	flags.StringVar(s.equal["jti"], "jti", "", "only events about the token of this `id`")
	flags.BoolVarP(&s.follow, "follow", "f", false, "continue with new events until interrupted")
	flags.StringVarP(&s.form, "output", "o", "text", "`form` of the output: text for people, json for scripts, one object per line")
	return cmd
}

func (s *options) run(cmd *cobra.Command) error {
	query, err := s.query(time.Now())
	if err != nil {
		return err
	}
	out, err := newPrinter(cmd.OutOrStdout(), s.form)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler) // the command reports its errors itself
	storage.SetRedisLog(log)
	client, err := s.Connect(log)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	store, err := s.Open(client)
	if err != nil {
		return err
	}
	trail := store.AuditTrail(s.AuditEntries)
	found, ends, err := query.list(cmd.Context(), trail)
	if err != nil {
		return cli.SettingError("redis", err)
	}
	if err := out.print(found); err != nil || !s.follow {
		return err
	}
	return query.follow(cmd, trail, ends, out)
}

// query selects events.
type query struct {
	limit        int
	since, until time.Time // zero is no bound
	events       []string
	client       string
	equal        map[string]string
}

// query validates the flags. Relative times are relative to now.
func (s *options) query(now time.Time) (*query, error) {
	q := &query{limit: s.limit, events: s.events, client: s.client, equal: make(map[string]string)}
	for name, value := range s.equal {
		if *value != "" {
			q.equal[name] = *value
		}
	}
	if s.limit < 0 {
		return nil, cli.SettingError("limit", errors.New("must not be negative"))
	}
	if s.follow && s.until != "" {
		return nil, cli.SettingError("until", errors.New("cannot be combined with --follow, which does not end"))
	}
	for _, pattern := range s.events {
		if !slices.ContainsFunc(telemetry.Events, func(e telemetry.Event) bool { return matches(pattern, e.Name) }) {
			return nil, cli.SettingError("event", fmt.Errorf("there is no event %q; a * is a wildcard only at the end; the events are %s",
				cli.Printable(pattern), joinNames(telemetry.Events, func(e telemetry.Event) string { return e.Name })))
		}
	}
	if reason := q.equal["reason"]; reason != "" && !slices.ContainsFunc(telemetry.Reasons, func(r telemetry.Reason) bool { return r.Name == reason }) {
		return nil, cli.SettingError("reason", fmt.Errorf("there is no reason %q; the reasons are %s",
			cli.Printable(reason), joinNames(telemetry.Reasons, func(r telemetry.Reason) string { return r.Name })))
	}
	var err error
	if q.since, err = parseTime(s.since, now); err != nil {
		return nil, cli.SettingError("since", err)
	}
	if q.until, err = parseTime(s.until, now); err != nil {
		return nil, cli.SettingError("until", err)
	}
	return q, nil
}

// joinNames joins names with commas.
func joinNames[T any](all []T, name func(T) string) string {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = name(one)
	}
	return strings.Join(names, ", ")
}

// parseTime parses a time, a date, which means its midnight UTC, or a duration before now. An empty text is the zero
// time.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a duration such as 90m, a date such as 2026-01-31 or a time such as 2026-01-31T08:00:00Z", cli.Printable(text))
}

// matches reports whether name is the pattern, or begins with what the pattern has before a final *.
func matches(pattern, name string) bool {
	if prefix, wildcard := strings.CutSuffix(pattern, "*"); wildcard {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

func (q *query) wants(e *entry) bool {
	switch {
	case !q.since.IsZero() && e.Time.Before(q.since), !q.until.IsZero() && e.Time.After(q.until):
		return false
	case len(q.events) > 0 && !slices.ContainsFunc(q.events, func(pattern string) bool { return matches(pattern, e.Event) }):
		return false
	case q.client != "" && e.text("client_id") != q.client && (!strings.HasPrefix(e.Event, "client.") || e.text("id") != q.client):
		return false
	}
	for name, want := range q.equal {
		got := e.text(name)
		if host, _, err := net.SplitHostPort(got); name == "peer" && err == nil && host == want {
			continue
		}
		if got != want {
			return false
		}
	}
	return true
}

// list returns the newest matching events in order of time, and the ID of the last entry of each stream.
func (q *query) list(ctx context.Context, trail *redisstore.AuditTrail) ([]*entry, map[telemetry.Stream]string, error) {
	var found []*entry
	ends := make(map[telemetry.Stream]string)
	for _, stream := range telemetry.Streams {
		some, end, err := q.listStream(ctx, trail, stream)
		if err != nil {
			return nil, nil, err
		}
		found, ends[stream] = append(found, some...), end
	}
	inOrder(found)
	return found[max(0, len(found)-q.limit):], ends, nil
}

// listStream reads a stream backwards from its end. It returns the matching events in the order of the stream, and the
// ID of its last entry.
func (q *query) listStream(ctx context.Context, trail *redisstore.AuditTrail, stream telemetry.Stream) (found []*entry, end string, err error) {
	const page = 1000
	defer func() { slices.Reverse(found) }()
	last := ""
	for {
		some, err := trail.Before(ctx, stream, last, page)
		if err != nil {
			return nil, "", err
		}
		for i := range some {
			if end == "" {
				end = some[i].ID
			}
			last = some[i].ID
			if len(found) == q.limit || q.tooOld(last) {
				return found, end, nil
			}
			if entry := readEntry(&some[i]); q.wants(entry) {
				found = append(found, entry)
			}
		}
		if len(some) < page {
			return found, max(end, "0-0"), nil
		}
	}
}

// tooOld reports whether an entry was kept before any matching event happened, by the time in its ID. The clocks of
// Redis and of a replica may differ by a minute.
func (q *query) tooOld(id string) bool {
	kept, _, _ := strings.Cut(id, "-")
	milliseconds, err := strconv.ParseInt(kept, 10, 64)
	return err == nil && !q.since.IsZero() && time.UnixMilli(milliseconds).Before(q.since.Add(-time.Minute))
}

func inOrder(entries []*entry) {
	slices.SortStableFunc(entries, func(a, b *entry) int { return a.Time.Compare(b.Time) })
}

// follow prints new matching events until the command is interrupted. While Redis is unreachable, it retries.
func (q *query) follow(cmd *cobra.Command, trail *redisstore.AuditTrail, ends map[telemetry.Stream]string, out *printer) error {
	const wait = 500 * time.Millisecond // the longest delay of an interruption
	ctx, unreachable := cmd.Context(), false
	for ctx.Err() == nil {
		some, err := trail.After(ctx, ends, wait)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			if !unreachable {
				cmd.PrintErrln("Redis does not answer; waiting for it:", cli.Printable(err.Error()))
			}
			unreachable = true
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		unreachable = false
		var found []*entry
		for i := range some {
			if entry := readEntry(&some[i]); q.wants(entry) {
				found = append(found, entry)
			}
		}
		inOrder(found)
		if err := out.print(found); err != nil {
			return err
		}
	}
	return nil //nolint:nilerr // an interruption is the usual end
}
