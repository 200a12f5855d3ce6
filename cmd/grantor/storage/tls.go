package storage

import (
	"errors"
	"log/slog"
	"net/url"

	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
)

// checkRedisScheme returns an error if there are files for TLS and the Redis is in plaintext.
func (s *Settings) checkRedisScheme() error {
	u, err := url.Parse(s.Redis)
	if err != nil || s.Redis == "" || u.Scheme == "rediss" || s.redisTLSPaths().String() == "" {
		return nil //nolint:nilerr // ConnectTLS reports a malformed URL
	}
	return errors.New("the files of redis-tls-cert-file and redis-tls-ca-file need TLS: write the URL as rediss://")
}

func (s *Settings) checkRedisPair() error {
	if (s.RedisTLSCert == "") != (s.RedisTLSKey == "") {
		return errors.New("set it together with redis-tls-key-file, or neither")
	}
	return nil
}

func (s *Settings) redisTLSPaths() tlsfiles.Paths {
	return tlsfiles.Paths{
		Certificate: tlsfiles.File{Setting: "redis-tls-cert-file", Path: s.RedisTLSCert},
		Key:         tlsfiles.File{Setting: "redis-tls-key-file", Path: s.RedisTLSKey},
		Authorities: tlsfiles.File{Setting: "redis-tls-ca-file", Path: s.RedisTLSCA},
	}
}

// RedisTLS reads the files for TLS with the Redis, of which there may be none. It logs to log when they change.
func (s *Settings) RedisTLS(log *slog.Logger) (*tlsfiles.Files, error) {
	return tlsfiles.New(s.redisTLSPaths(), log)
}
