// Package storage opens the Redis that the settings of a command name, and makes the sealer from the key-encryption
// keys that open the secrets in it.
package storage

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/kms"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/telemetry"
)

// Settings say which Redis holds the records, and which keys open them.
type Settings struct {
	// Config is the file with settings.
	Config      string
	Redis       string
	RedisPrefix string
	// RedisTLSCert and RedisTLSKey are the files of the certificate that a Redis may ask for, RedisTLSCA that of the
	// authorities of the certificate of the Redis.
	RedisTLSCert string
	RedisTLSKey  string
	RedisTLSCA   string
	KEK          string
	KEKFile      string
	// PreviousKEK and PreviousKEKFile are the key that opens and does not seal.
	PreviousKEK     string
	PreviousKEKFile string
	// KEKURL is the key in a KMS or vault that wrapped the others.
	KEKURL        string
	RedisReplicas int
	AuditEntries  int
}

// Declare declares all settings.
func (s *Settings) Declare(set *settings.Set) {
	s.DeclareRedis(set)
	set.String(&s.KEK, "key-encryption-key", "", "the `key` that seals secrets in Redis: 32 random bytes in base64; better given by file or environment than by flag")
	set.String(&s.KEKFile, "key-encryption-key-file", "", "`file` with the key-encryption key", settings.Public)
	set.String(&s.PreviousKEK, "previous-key-encryption-key", "", "`key` that opens what is sealed in Redis and seals nothing: the previous one, or the next one while replicas change from one to the other")
	set.String(&s.PreviousKEKFile, "previous-key-encryption-key-file", "", "`file` with the previous key-encryption key", settings.Public)
	set.String(&s.KEKURL, kms.URLSetting, "", kms.URLUsage, settings.PublicURL)
	set.Int(&s.RedisReplicas, "revocation-replicas", 0, "`number` of Redis replicas that must have a revocation before it is acknowledged (WAIT)",
		settings.Public, settings.NotNegative(&s.RedisReplicas))
	set.Int(&s.AuditEntries, "audit-entries", 100_000, "`number` of audit events kept in Redis, of changes, of decisions and of refusals each; 0 for none",
		settings.Public, settings.NotNegative(&s.AuditEntries))
}

// DeclareRedis declares the settings that identify the Redis.
func (s *Settings) DeclareRedis(set *settings.Set) {
	set.String(&s.Config, "config", "", "`file` with settings in YAML: each flag's name with _ for -, and its value", settings.Public)
	set.String(&s.Redis, "redis", "", "`URL` of the Redis: redis://user:password@host:6379/0; rediss:// for TLS; ?addr=host2:6379 for a Cluster; ?master_name=name for Sentinel",
		settings.PublicURL, settings.Check(s.checkRedisScheme))
	set.String(&s.RedisTLSCert, "redis-tls-cert-file", "", "`file` with the certificate chain that is presented to the Redis, in PEM; read again when it changes",
		settings.Public, settings.Check(s.checkRedisPair))
	set.String(&s.RedisTLSKey, "redis-tls-key-file", "", "`file` with the private key of that certificate, in PEM; read again when it changes", settings.Public)
	set.String(&s.RedisTLSCA, "redis-tls-ca-file", "", "`file` with the authorities, in PEM, one of which must have signed the certificate of the Redis, instead of those of the system; read again when it changes", settings.Public)
	set.String(&s.RedisPrefix, "redis-prefix", redisstore.DefaultPrefix, "prefix of every key's `name`, ending with a colon; each issuer in one Redis needs its own", settings.Public)
}

// StartupGrace is how long a new key ring waits for a replica that holds the one which Redis has lost. A replica checks
// within a second after its Redis is back.
const StartupGrace = 2 * time.Second

// Connect returns a client of the Redis, whose new connections follow the files for TLS. It logs to log when they change.
func (s *Settings) Connect(log *slog.Logger) (redis.UniversalClient, error) {
	files, err := s.RedisTLS(log)
	if err != nil {
		return nil, err
	}
	return s.ConnectTLS(files.ClientConfig)
}

// ConnectTLS returns a client of the Redis. configure returns the TLS configuration of a new connection, given that of the
// URL.
func (s *Settings) ConnectTLS(configure func(*tls.Config) *tls.Config) (redis.UniversalClient, error) {
	if s.Redis == "" {
		return nil, cli.SettingError("redis", errors.New("is required: the URL of the Redis, such as redis://localhost:6379"))
	}
	client, err := redisstore.ConnectTLS(s.Redis, configure)
	if err != nil {
		return nil, cli.SettingError("redis", err)
	}
	return client, nil
}

// Open returns the store in the Redis.
func (s *Settings) Open(client redis.UniversalClient) (*redisstore.Store, error) {
	store, err := redisstore.New(client, s.RedisPrefix, registry.MaxLifetime+time.Hour)
	if err != nil {
		return nil, cli.SettingError("redis-prefix", err)
	}
	store.RequireReplicas(s.RedisReplicas)
	return store, nil
}

// OpenQuietly connects to the Redis and returns the store in it, for a command that reports its errors itself: what go-redis
// logs is discarded. The caller closes the client.
func (s *Settings) OpenQuietly() (redis.UniversalClient, *redisstore.Store, error) {
	log := slog.New(slog.DiscardHandler)
	SetRedisLog(log)
	client, err := s.Connect(log)
	if err != nil {
		return nil, nil, err
	}
	store, err := s.Open(client)
	if err != nil {
		_ = client.Close()
		return nil, nil, err
	}
	return client, store, nil
}

// Failure returns an error of the Redis with the exit code of its kind. It returns nil if err is nil, and err if it has a
// code already.
func (s *Settings) Failure(err error) error {
	code := cli.ExitCode(err)
	_, network := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, keys.ErrSealed):
		return cli.SettingError(s.kekSetting(), err)
	case err == nil, code != cli.ExitOther && !network:
		return err
	}
	operation, _ := errors.AsType[*net.OpError](err)
	answered := func(code string) bool { return redis.HasErrorPrefix(err, code) }
	switch {
	case slices.ContainsFunc([]string{"NOAUTH", "WRONGPASS", "NOPERM", "AUTH"}, answered),
		operation != nil && operation.Op == "remote error": // the server ended the TLS connection, for example without a certificate
		code = cli.ExitDenied
	case errors.Is(err, registry.ErrConflict), errors.Is(err, registry.ErrExists), errors.Is(err, keys.ErrConflict):
		code = cli.ExitConflict
	case errors.Is(err, io.EOF), errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, revocation.ErrNotReplicated),
		slices.ContainsFunc([]string{"LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "READONLY", "BUSY", "NOREPLICAS", "max number of clients"}, answered):
		code = cli.ExitUnavailable
	}
	return cli.WithExit(code, fmt.Errorf("redis: %w", err))
}

// kekSetting returns the name of the setting that has the key-encryption key.
func (s *Settings) kekSetting() string {
	if s.KEKFile != "" {
		return "key-encryption-key-file"
	}
	return "key-encryption-key"
}

// AuditSink returns where audit events are kept, or nil if they are not.
func (s *Settings) AuditSink(store *redisstore.Store) telemetry.AuditSink {
	if s.AuditEntries == 0 {
		return nil
	}
	return store.AuditTrail(s.AuditEntries)
}

// SetRedisLog directs what go-redis logs to log.
func SetRedisLog(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

// redisLog receives what go-redis logs by itself, apart from the errors that it returns.
type redisLog struct{ log *slog.Logger }

// Printf implements the logger of go-redis.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
