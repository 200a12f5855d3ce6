package redisstore

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Connect returns a client of the Redis that a URL names, without connecting yet:
//
//	redis://user:password@host:6379/0                     one server; rediss:// for TLS
//	redis://host1:6379?addr=host2:6379&addr=host3:6379    a Cluster; with one address, ?cluster=true
//	redis://host1:26379?master_name=mymaster&addr=…       a master that Sentinels watch
//
// The user and password before the host of a Sentinel are the Sentinel's; those of the master are the parameters username
// and password. Further parameters are those of go-redis, such as pool_size=50 or read_timeout=2s.
//
// No connection reports the name and release of the library (CLIENT SETINFO): Redis before 7.2 does not know that command,
// and answers each with an error.
func Connect(rawURL string) (redis.UniversalClient, error) {
	return ConnectTLS(rawURL, (*tls.Config).Clone)
}

// ConnectTLS is Connect with a function that returns the TLS configuration of each new connection, given that of the URL. It
// is not called if the URL is not rediss://. The connections to Sentinels, and to every server of a Cluster, have the same
// configuration.
func ConnectTLS(rawURL string, configure func(base *tls.Config) *tls.Config) (redis.UniversalClient, error) {
	u, found, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	switch found {
	case sentinel:
		options, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return nil, withoutURL(err)
		}
		options.ContextTimeoutEnabled, options.DisableIdentity = true, true
		options.ReplicaOnly, options.UseDisconnectedReplicas = false, false // for the reason given for a Cluster
		options.Dialer = dialer(options.TLSConfig, options.DialTimeout, configure)
		return redis.NewFailoverClient(options), nil
	case cluster:
		options, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, withoutURL(err)
		}
		options.ContextTimeoutEnabled, options.DisableIdentity = true, true
		// A replica may lag: what it returns after an invalidation could stay in a cache forever.
		options.ReadOnly, options.RouteByLatency, options.RouteRandomly = false, false, false
		options.ClusterStateReloadInterval = clusterReload
		options.MaintNotificationsConfig = noMaintNotifications()
		options.Dialer = dialer(options.TLSConfig, options.DialTimeout, configure)
		return redis.NewClusterClient(options), nil
	}
	options, err := redis.ParseURL(u.String())
	if err != nil {
		return nil, withoutURL(err)
	}
	options.ContextTimeoutEnabled, options.DisableIdentity = true, true
	options.MaintNotificationsConfig = noMaintNotifications()
	options.Dialer = dialer(options.TLSConfig, options.DialTimeout, configure)
	return redis.NewClient(options), nil
}

// deployment is the kind of Redis that a URL names.
type deployment int

const (
	standalone deployment = iota
	cluster
	sentinel
)

// parseURL returns the URL without the parameters that go-redis does not know, and the kind of Redis that it names.
func parseURL(rawURL string) (*url.URL, deployment, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Opaque != "" {
		// The cause is omitted, because it would quote the password.
		return nil, 0, errors.New("not a URL such as redis://localhost:6379")
	}
	if strings.Contains(u.EscapedPath()+u.RawQuery+u.Fragment, "@") {
		// Part of the password was parsed as the path or a parameter. Errors about those would quote it.
		return nil, 0, errors.New("the URL has an @ after the host; write the characters @ / ? # of a password as %40 %2F %3F %23")
	}
	query := u.Query()
	found := standalone
	if query.Has("addr") {
		found = cluster
	}
	switch query.Get("cluster") {
	case "true":
		found = cluster
	case "", "false":
	default:
		return nil, 0, errors.New("the parameter cluster is neither true nor false")
	}
	query.Del("cluster")
	if query.Has("master_name") {
		found = sentinel
	}
	u.RawQuery = query.Encode()
	return u, found, nil
}

// dialFunc is the type of the field Dialer in the options of go-redis.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dialer returns a function that connects as go-redis does, but calls configure for the TLS configuration of each
// connection. It returns nil, which selects the dialer of go-redis, if the connection is in plaintext.
func dialer(base *tls.Config, timeout time.Duration, configure func(*tls.Config) *tls.Config) dialFunc {
	if base == nil {
		return nil
	}
	const (
		defaultTimeout        = 5 * time.Second
		idle, interval, count = 30 * time.Second, 5 * time.Second, 3
	)
	tcp := &net.Dialer{
		Timeout:         max(cmp.Or(timeout, defaultTimeout), 0), // -1 means none in go-redis
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: idle, Interval: interval, Count: count},
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&tls.Dialer{NetDialer: tcp, Config: configure(base)}).DialContext(ctx, network, address)
	}
}

// clusterReload is the interval at which a client reloads which servers are primaries. If a primary disappears without an
// answer, nothing else makes go-redis inspect the Cluster again, and its default of one minute is longer than the time for
// which tokens are issued without contact to Redis.
const clusterReload = time.Second

// noMaintNotifications keeps go-redis from requesting maintenance notifications, which only Redis Enterprise sends. When
// go-redis disables them by itself, a dedicated connection, such as that of Publish, races with those of the pool. With
// Sentinels it never requests them.
func noMaintNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// withoutURL removes the URL from an error, because it contains the password.
func withoutURL(err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		return parse.Err
	}
	return err
}

// Check inspects whether the server is configured to retain its data. A server that could evict a record or a revocation is
// an error; one that loses data when it stops is a warning, for the log.
func (s *Store) Check(ctx context.Context) (warnings []string, err error) {
	var server redis.Cmdable = s.client
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		// All keys are in one slot, so only its primary matters.
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

// parseInfo parses the reply to INFO into values keyed by name.
func parseInfo(info string) map[string]string {
	facts := make(map[string]string)
	for scanner := bufio.NewScanner(strings.NewReader(info)); scanner.Scan(); {
		if name, value, ok := strings.Cut(scanner.Text(), ":"); ok {
			facts[name] = value
		}
	}
	return facts
}
