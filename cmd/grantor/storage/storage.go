// Package storage opens the Redis that the settings of a command name, and makes the sealer of the key-encryption keys that
// open what is secret in it.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/kms"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/telemetry"
)

// Settings say where everything is kept.
type Settings struct {
	Config      string
	Redis       string
	RedisPrefix string
	KEK         string
	KEKFile     string
	// previousKEK and its file are of the key that also opens; kekURL of the one that has wrapped them.
	PreviousKEK     string
	PreviousKEKFile string
	KEKURL          string
	RedisReplicas   int
	AuditEntries    int
}

// Declare adds the settings to flags. Each is declared here and nowhere else: its name, its default and its help serve
// the flag, the environment variable GRANTOR_NAME, the line in the file and the table in the README.
func (s *Settings) Declare(flags *pflag.FlagSet) {
	s.DeclareRedis(flags)
	flags.StringVar(&s.KEK, "key-encryption-key", "", "the `key` that seals what is secret in Redis: 32 random bytes in base64; better given by file or environment than by flag")
	flags.StringVar(&s.KEKFile, "key-encryption-key-file", "", "`file` with the key-encryption key")
	flags.StringVar(&s.PreviousKEK, "previous-key-encryption-key", "", "`key` that opens what is sealed in Redis and seals nothing: the one before, or the next one, while replicas change from one to the other")
	flags.StringVar(&s.PreviousKEKFile, "previous-key-encryption-key-file", "", "`file` with the previous key-encryption key")
	flags.StringVar(&s.KEKURL, kms.URLSetting, "", kms.URLUsage)
	flags.IntVar(&s.RedisReplicas, "revocation-replicas", 0, "`number` of Redis replicas that must have a revocation before it is acknowledged (WAIT)")
	flags.IntVar(&s.AuditEntries, "audit-entries", 100_000, "`number` of audit events kept in Redis, of changes, of decisions and of refusals each; 0 for none")
}

// DeclareRedis adds those that say which Redis it is.
func (s *Settings) DeclareRedis(flags *pflag.FlagSet) {
	flags.StringVar(&s.Config, "config", "", "`file` with settings in YAML: each flag's name with _ for -, and its value")
	flags.StringVar(&s.Redis, "redis", "", "`URL` of the Redis: redis://user:password@host:6379/0; rediss:// for TLS; ?addr=host2:6379 for a Cluster; ?master_name=name for Sentinel")
	flags.StringVar(&s.RedisPrefix, "redis-prefix", redisstore.DefaultPrefix, "start of every key's `name`, ending with a colon; another for each issuer in one Redis")
}

// StartupGrace is how long a new key ring waits for a replica that holds the one which the Redis has lost: a replica whose Redis
// is back looks within a second.
const StartupGrace = 2 * time.Second

// Connect makes a client for the Redis of the settings.
func (s *Settings) Connect() (redis.UniversalClient, error) {
	if s.Redis == "" {
		return nil, cli.SettingError("redis", errors.New("is required: the URL of the Redis, such as redis://localhost:6379"))
	}
	client, err := redisstore.Connect(s.Redis)
	if err != nil {
		return nil, cli.SettingError("redis", err)
	}
	return client, nil
}

// Open makes the store of the settings.
func (s *Settings) Open(client redis.UniversalClient) (*redisstore.Store, error) {
	store, err := redisstore.New(client, s.RedisPrefix, registry.MaxLifetime+time.Hour)
	if err != nil {
		return nil, cli.SettingError("redis-prefix", err)
	}
	if s.RedisReplicas < 0 {
		return nil, cli.SettingError("revocation-replicas", errors.New("must not be negative"))
	}
	if s.AuditEntries < 0 {
		return nil, cli.SettingError("audit-entries", errors.New("must not be negative"))
	}
	store.RequireReplicas(s.RedisReplicas)
	return store, nil
}

// AuditSink is where the audit events are kept; nil where they are not.
func (s *Settings) AuditSink(store *redisstore.Store) telemetry.AuditSink {
	if s.AuditEntries == 0 {
		return nil
	}
	return store.AuditTrail(s.AuditEntries)
}

// SetRedisLog makes a log take what go-redis logs.
func SetRedisLog(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

// redisLog takes what go-redis logs of its own accord, beside the errors that it returns.
type redisLog struct{ log *slog.Logger }

// Printf implements go-redis's logger.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
