package redisstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Connect makes a client for the Redis that a URL names, without speaking to it yet:
//
//	redis://user:password@host:6379/0                     one server; rediss:// for TLS
//	redis://host1:6379?addr=host2:6379&addr=host3:6379    a Cluster; with one address, ?cluster=true
//	redis://host1:26379?master_name=mymaster&addr=…       a master known to Sentinels
//
// User and password before the host of a Sentinel are the Sentinel's; the master's are the parameters username and
// password. Further parameters are those of go-redis, such as pool_size=50 or read_timeout=2s.
//
// No connection tells the name and release of the library (CLIENT SETINFO): Redis before 7.2 does not know that command,
// and answers each with an error.
func Connect(rawURL string) (redis.UniversalClient, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Opaque != "" {
		// The cause is left out: it would quote the password.
		return nil, errors.New("not a URL such as redis://localhost:6379")
	}
	if strings.Contains(u.EscapedPath()+u.RawQuery+u.Fragment, "@") {
		// Part of the password was taken for the path or a parameter; errors about those would quote it.
		return nil, errors.New("the URL has an @ behind the host; write the characters @ / ? # of a password as %40 %2F %3F %23")
	}
	query := u.Query()
	cluster := query.Has("addr")
	switch query.Get("cluster") {
	case "true":
		cluster = true
	case "", "false":
	default:
		return nil, errors.New("the parameter cluster is true or false")
	}
	query.Del("cluster")
	sentinel := query.Has("master_name")
	u.RawQuery = query.Encode()
	switch {
	case sentinel:
		options, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return nil, withoutURL(err)
		}
		options.ContextTimeoutEnabled, options.DisableIdentity = true, true
		options.ReplicaOnly, options.UseDisconnectedReplicas = false, false // see below, of a Cluster
		return redis.NewFailoverClient(options), nil
	case cluster:
		options, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, withoutURL(err)
		}
		options.ContextTimeoutEnabled, options.DisableIdentity = true, true
		// A replica may lag: what it answers after an invalidation could be kept for good.
		options.ReadOnly, options.RouteByLatency, options.RouteRandomly = false, false, false
		options.ClusterStateReloadInterval = clusterReload
		options.MaintNotificationsConfig = withoutNotices()
		return redis.NewClusterClient(options), nil
	}
	options, err := redis.ParseURL(u.String())
	if err != nil {
		return nil, withoutURL(err)
	}
	options.ContextTimeoutEnabled, options.DisableIdentity = true, true
	options.MaintNotificationsConfig = withoutNotices()
	return redis.NewClient(options), nil
}

// clusterReload is how old a client's knowledge of who is primary may be. Where a primary is gone without an answer, no
// other sign makes go-redis look at the Cluster again, and its own minute is longer than tokens are issued without word
// from Redis.
const clusterReload = time.Second

// withoutNotices has go-redis not ask for notices of maintenance, which only Redis Enterprise gives: where it turns them
// off by itself, a connection of its own, as Publish takes one, races with those of the pool. With Sentinels it never asks.
func withoutNotices() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// withoutURL keeps a password out of an error that quotes the URL.
func withoutURL(err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		return parse.Err
	}
	return err
}

// Check asks the server whether it would keep what it is given. One that could evict a record or a revocation is an
// error; one that forgets when it stops is a warning, for the log.
func (s *Store) Check(ctx context.Context) (warnings []string, err error) {
	var server redis.Cmdable = s.client
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		// One slot holds everything, so its master is the one that matters.
		if server, err = cluster.MasterForKey(ctx, s.key("feed")); err != nil {
			return nil, err
		}
	}
	info, err := server.Info(ctx).Result()
	if err != nil {
		return nil, err
	}
	facts := parseInfo(info)
	if policy := facts["maxmemory_policy"]; strings.HasPrefix(policy, "allkeys-") {
		return nil, fmt.Errorf("this Redis may evict any key (maxmemory-policy %s), so also a client or a revocation; set it to noeviction", policy)
	}
	if facts["aof_enabled"] == "0" {
		warnings = append(warnings, "this Redis keeps no append-only file (appendonly no): changes since its last snapshot are lost when it stops")
	}
	return warnings, nil
}

// parseInfo reads the answer to INFO: name → value.
func parseInfo(info string) map[string]string {
	facts := make(map[string]string)
	for scanner := bufio.NewScanner(strings.NewReader(info)); scanner.Scan(); {
		if name, value, ok := strings.Cut(scanner.Text(), ":"); ok {
			facts[name] = value
		}
	}
	return facts
}
