package doctor

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/revocation"
)

// expiryWarning is how long before its expiry something is reported.
const expiryWarning = 14 * 24 * time.Hour

// checkServer checks the Redis server: its version, its limits and its persistence.
func (d *doctor) checkServer(ctx context.Context) error {
	sections, err := d.server.InfoMap(ctx).Result()
	if err != nil {
		return err
	}
	d.info = make(map[string]string)
	for _, section := range sections {
		maps.Copy(d.info, section)
	}
	name, v, known := software(d.info)
	d.checkf("redis.version-old", v.before(release{7}), "%s %s", name, v)
	found := flaws(v, known)
	d.checkf("redis.version-vulnerable", len(found) > 0, "%s %s has %s; the releases without it are %s and later", name, v, strings.Join(found, ", "), strings.Join(fixes(v, known), ", "))
	policy := d.info["maxmemory_policy"]
	d.checkf("redis.eviction", strings.HasPrefix(policy, "allkeys-"), "maxmemory-policy is %s", policy)
	d.checkDisk(ctx)
	used, limit := d.number("used_memory"), d.number("maxmemory")
	d.checkf("redis.memory", limit > 0 && used*5 > limit*4, "%d of %d bytes are in use", used, limit)
	connected, all := d.number("connected_clients"), d.number("maxclients")
	d.checkf("redis.connections", all > 0 && connected*5 > all*4, "%d of %d", connected, all)
	return nil
}

// number returns a number of the server's INFO, or zero.
func (d *doctor) number(name string) int64 {
	n, _ := strconv.ParseInt(d.info[name], 10, 64)
	return n
}

// setting returns a setting of the server. It reports if the user may not read it.
func (d *doctor) setting(ctx context.Context, name string) (string, bool) {
	values, err := d.server.ConfigGet(ctx, name).Result()
	value, ok := values[name]
	d.hide(ctx, err != nil || !ok, name)
	return value, err == nil && ok
}

// hide reports what could not be checked.
func (d *doctor) hide(ctx context.Context, hidden bool, what string) {
	if ctx.Err() == nil {
		d.checkf("redis.hidden", hidden, "%s", what)
	}
}

func (d *doctor) checkDisk(ctx context.Context) {
	appends := d.info["aof_enabled"] == "1"
	snapshots, known := d.setting(ctx, "save")
	forgets := known && snapshots == "" && !appends
	d.checkf("redis.forgets", forgets, "appendonly is no, and save is empty")
	d.checkf("redis.persistence", !appends && !forgets, "appendonly is no")
	if flush, ok := d.setting(ctx, "appendfsync"); ok {
		d.checkf("redis.fsync", appends && flush == "no", "appendfsync is no")
	}
	var failed []string
	for _, status := range []string{"aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"} {
		if value := d.info[status]; value != "" && value != "ok" {
			failed = append(failed, status+" is "+value)
		}
	}
	d.checkf("redis.disk", len(failed) > 0, "%s", strings.Join(failed, ", "))
}

// checkReplication checks the replicas of the Redis.
func (d *doctor) checkReplication(ctx context.Context) error {
	if d.info == nil {
		return nil
	}
	const maxSilence, maxLag = 5, 1 << 20 // seconds, bytes
	master := d.info["role"] == "master"
	d.checkf("redis.role", !master, "its role is %s, of %s", d.info["role"], d.info["master_host"])
	if !master {
		return nil
	}
	online := 0
	var late []string
	for i := range d.number("connected_slaves") {
		facts := make(map[string]string)
		for fact := range strings.SplitSeq(d.info[fmt.Sprintf("slave%d", i)], ",") {
			name, value, _ := strings.Cut(fact, "=")
			facts[name] = value
		}
		silent, _ := strconv.ParseInt(facts["lag"], 10, 64)
		offset, _ := strconv.ParseInt(facts["offset"], 10, 64)
		behind := d.number("master_repl_offset") - offset
		if facts["state"] == "online" {
			online++
		}
		if facts["state"] != "online" || silent > maxSilence || behind > maxLag {
			late = append(late, fmt.Sprintf("%s: %s, silent for %d s, %d bytes behind",
				net.JoinHostPort(facts["ip"], facts["port"]), facts["state"], silent, behind))
		}
	}
	d.named("redis.lag", late)
	d.checkf("redis.alone", online == 0, "connected replicas: 0")
	least, ok := d.setting(ctx, "min-replicas-to-write")
	if good := d.info["min_slaves_good_slaves"]; ok && good != "" {
		wanted, _ := strconv.Atoi(least)
		have, _ := strconv.Atoi(good)
		d.checkf("redis.writes", have < wanted, "%d of %d are in sync", have, wanted)
	} else if ok {
		d.checkf("redis.writes", false, "")
	}
	wanted, err := d.revocationReplicas(ctx)
	d.checkf("redis.replicas", online < wanted, "%d of %d are connected", online, wanted)
	return err
}

// revocationReplicas returns how many replicas of the Redis revocations wait for, by the settings here or those of a
// replica.
func (d *doctor) revocationReplicas(ctx context.Context) (int, error) {
	required := d.RedisReplicas
	known, _, err := d.store.Replicas(ctx)
	for _, r := range known {
		if n, err := strconv.Atoi(r.Settings["revocation-replicas"]); err == nil {
			required = max(required, n)
		}
	}
	return required, err
}

// checkUsers checks who can access the Redis, and over what connection.
func (d *doctor) checkUsers(ctx context.Context) error {
	options := d.server.Options()
	if err := d.checkConnection(ctx, options); err != nil {
		return err
	}
	anonymousOptions := *options
	anonymousOptions.Username, anonymousOptions.Password, anonymousOptions.MaxRetries = "", "", -1
	anonymousClient := redis.NewClient(&anonymousOptions)
	defer func() { _ = anonymousClient.Close() }()
	d.checkf("redis.password", anonymousClient.Time(ctx).Err() == nil, "a connection without a password is accepted")

	d.checkReplay(ctx)
	name := d.redisUser
	if name == "" {
		var err error
		if name, err = d.server.ACLWhoAmI(ctx).Result(); err != nil {
			d.hide(ctx, true, "ACL WHOAMI")
			return nil
		}
	} else {
		d.checkRights(ctx, name)
	}
	if user, ok := d.user(ctx, name); ok {
		d.checkf("redis.rights", user.anyCommand() || user.anyKey(), "%s", user)
	}
	return nil
}

// checkReplay checks whether the Redis could replay its append-only file. It does so as the user default, and the
// writes of a script are a transaction in the file, whose commands are checked against that user's rights
// (redis/redis#14541).
func (d *doctor) checkReplay(ctx context.Context) {
	if d.info["aof_enabled"] != "1" {
		d.checkf("redis.replay", false, "")
		return
	}
	if user, ok := d.user(ctx, "default"); ok {
		d.checkf("redis.replay", !user.anyCommand() || !user.anyKey(), "%s", user)
	}
}

// neededCommands are the commands of grantor serve, by the rights that docs/doctor.md lists. KEY stands for a key of
// the issuer.
var neededCommands = []string{
	"info", "time", "wait 0 0", "eval x 1 KEY", "evalsha x 1 KEY", "set KEY x", "hget KEY x", "hmget KEY x", "hgetall KEY", "hset KEY x x",
	"hdel KEY x", "hlen KEY", "hexists KEY x", "hincrby KEY x 1", "pexpire KEY 1", "del KEY", "zadd KEY 1 x", "zrem KEY x",
	"zrange KEY 0 0", "xadd KEY * x x", "xread streams KEY 0", "xrange KEY - +", "xrevrange KEY + -",
}

// checkRights asks the Redis what a user may run, without running it.
func (d *doctor) checkRights(ctx context.Context, name string) {
	var denied []string
	for _, command := range neededCommands {
		ask := []any{"acl", "dryrun", name}
		for word := range strings.FieldsSeq(command) {
			ask = append(ask, strings.ReplaceAll(word, "KEY", d.store.Name()+"x"))
		}
		answer, err := d.server.Do(ctx, ask...).Text()
		switch {
		case redis.HasErrorPrefix(err, "NOPERM"):
			d.hide(ctx, true, "ACL DRYRUN")
			return
		case err != nil:
			d.checkf("redis.allowed", ctx.Err() == nil, "the user %s: %v", name, err)
			return
		case answer != "OK":
			denied = append(denied, answer)
		}
	}
	d.named("redis.allowed", denied)
}

// redisUser is a user of the Redis, with its rights as ACL GETUSER returns them.
type redisUser struct{ name, commands, keys string }

// user returns a user. It reports if it may not.
func (d *doctor) user(ctx context.Context, name string) (redisUser, bool) {
	answer, err := d.server.Do(ctx, "acl", "getuser", name).Result()
	d.hide(ctx, err != nil, "ACL GETUSER "+name)
	facts := aclUser(answer)
	return redisUser{name, facts["commands"], facts["keys"]}, err == nil
}

func (u redisUser) anyCommand() bool { return strings.HasPrefix(u.commands, "+@all") }

func (u redisUser) anyKey() bool { return slices.Contains(strings.Fields(u.keys), "~*") }

func (u redisUser) String() string {
	return fmt.Sprintf("the user %s: commands %s, keys %q", u.name, u.commands, u.keys)
}

// aclUser returns the texts in a response to ACL GETUSER, by RESP2 or RESP3.
func aclUser(answer any) map[string]string {
	facts := make(map[string]string)
	keep := func(name, value any) {
		if text, ok := value.(string); ok {
			facts[fmt.Sprint(name)] = text
		}
	}
	switch pairs := answer.(type) {
	case map[any]any:
		for name, value := range pairs {
			keep(name, value)
		}
	case []any:
		for pair := range slices.Chunk(pairs, 2) {
			if len(pair) == 2 {
				keep(pair[0], pair[1])
			}
		}
	}
	return facts
}

// formatTime formats a time for people.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkData checks what the database contains: whether only Grantor's keys, how long the feed is, and where it ends.
func (d *doctor) checkData(ctx context.Context) error {
	const pages, page, many = 10, 1000, 1_000_000
	var cursor uint64
	foreignKeys := 0
	for range pages {
		names, next, err := d.server.Scan(ctx, cursor, "", page).Result()
		if err != nil {
			d.hide(ctx, true, "SCAN")
			break
		}
		for _, name := range names {
			if !strings.HasPrefix(name, d.store.Name()) {
				foreignKeys++
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	d.checkf("redis.shared", foreignKeys > 0, "%d or more keys do not begin with %s", foreignKeys, d.store.Name())
	length, err := d.server.XLen(ctx, d.store.Name()+"feed").Result()
	if err == nil {
		d.checkf("feed.size", length > many, "it has %d entries", length)
	}
	d.hide(ctx, err != nil, "XLEN")
	return d.checkFeedEnd(ctx)
}

// checkFeedEnd checks that entries can be added to the feed and are trimmed in time: an entry gets an ID after the last one,
// even if that is in the future. The last ID may be that of an entry that was deleted.
func (d *doctor) checkFeedEnd(ctx context.Context) error {
	const maxAhead = time.Hour
	stream, err := d.server.XInfoStream(ctx, d.store.Name()+"feed").Result()
	if redis.HasErrorPrefix(err, "ERR no such key") { // nothing was announced yet
		d.checkf("feed.ahead", false, "")
		return nil
	}
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil // checkEntries reports it
	}
	if err != nil {
		d.hide(ctx, true, "XINFO STREAM")
		return nil //nolint:nilerr // the finding reports it
	}
	last, err := revocation.ParseCursor(stream.LastGeneratedID)
	if err != nil {
		return fmt.Errorf("the last ID of the feed: %w", err)
	}
	now, err := d.server.Time(ctx).Result()
	if err != nil {
		return err
	}
	ahead := last.Time > uint64(now.Add(maxAhead).UnixMilli())
	d.checkf("feed.ahead", ahead, "its last ID is %s, and the time of the Redis is %d", stream.LastGeneratedID, now.UnixMilli())
	return nil
}

// checkSpeed checks the clock of the Redis and its response time.
func (d *doctor) checkSpeed(ctx context.Context) error {
	const asked, apart, slow = 5, 5 * time.Second, 20 * time.Millisecond
	fastest := answerTimeout
	var off time.Duration
	for range asked {
		// The fastest round trip counts: it includes the least load of this machine, and measures the clock best.
		begin := time.Now()
		theirs, err := d.server.Time(ctx).Result()
		took := time.Since(begin)
		if err != nil {
			return err
		}
		if took < fastest {
			fastest, off = took, theirs.Sub(d.now().Add(-took/2))
		}
	}
	d.checkf("redis.clock", off.Abs() > apart, "the Redis is %s from this machine's clock", off.Round(time.Millisecond))
	d.checkf("redis.slow", fastest > slow, "the fastest of %d round trips took %s", asked, fastest.Round(time.Millisecond))
	return d.checkSlowLog(ctx)
}

func (d *doctor) checkSlowLog(ctx context.Context) error {
	const entries, slow, recent = 128, 100 * time.Millisecond, 24 * time.Hour
	logged, err := d.server.SlowLogGet(ctx, entries).Result()
	if err != nil {
		d.hide(ctx, true, "SLOWLOG GET")
		return nil //nolint:nilerr // the finding reports it
	}
	now, err := d.server.Time(ctx).Result()
	if err != nil {
		return err
	}
	count, slowest := 0, time.Duration(0)
	for _, entry := range logged {
		ours := slices.ContainsFunc(entry.Args, func(arg string) bool { return strings.HasPrefix(arg, d.store.Name()) })
		if ours && entry.Duration >= slow && now.Sub(entry.Time) < recent {
			count, slowest = count+1, max(slowest, entry.Duration)
		}
	}
	d.checkf("redis.slowlog", count > 0, "%d, the slowest %s", count, slowest.Round(time.Millisecond))
	return nil
}
