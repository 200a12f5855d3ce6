package serve

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/storage"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// Settings are all settings of `grantor serve`.
type Settings struct {
	storage.Settings
	limitSettings
	dev             bool
	httpListen      string
	grpcListen      string
	opsListen       string
	issuer          string
	apply           string
	tlsCert         string
	tlsKey          string
	tlsClientCA     string
	allowPlaintext  bool
	algorithms      []string
	tokenLifetime   time.Duration
	keyRotation     time.Duration
	jwksMaxAge      time.Duration
	maxStaleness    time.Duration
	cachedClients   int
	cachedTokens    int
	grpcEndpoint    string
	connectionAge   time.Duration
	shutdownDelay   time.Duration
	shutdownTimeout time.Duration
	logFormat       string
	logLevel        string
	profiling       bool
	otlpEndpoint    string
	traceSampling   float64
	// settle is no setting: how long a ring that is made at the start waits for one that the Redis has lost.
	settle time.Duration
}

// Declare adds the settings to flags.
func (s *Settings) Declare(flags *pflag.FlagSet) {
	s.Settings.Declare(flags)
	s.limitSettings.declare(flags)
	flags.BoolVar(&s.dev, "dev", false, "development mode: embedded Redis, loopback, plaintext, one client; nothing is kept")
	flags.StringVar(&s.httpListen, "http-listen", ":8080", "`address` of the REST port")
	flags.StringVar(&s.grpcListen, "grpc-listen", ":8081", "`address` of the gRPC port")
	flags.StringVar(&s.opsListen, "ops-listen", ":8082", "`address` of the operations port: /healthz, /readyz and /metrics, in plaintext; no secret passes through it")
	flags.StringVar(&s.issuer, "issuer", "", "`URL` of this issuer: the iss of its tokens and where callers reach the REST port")
	flags.StringVar(&s.apply, "apply", "", "`file` with clients and resources to register at start, as of grantor apply")
	flags.StringVar(&s.tlsCert, "tls-cert-file", "", "`file` with the certificate chain of the REST and gRPC ports, in PEM; read again when it changes")
	flags.StringVar(&s.tlsKey, "tls-key-file", "", "`file` with the certificate's private key, in PEM; read again when it changes")
	flags.StringVar(&s.tlsClientCA, "tls-client-ca-file", "", "`file` with the authorities, in PEM, one of which must have signed a caller's certificate; read again when it changes")
	flags.BoolVar(&s.allowPlaintext, "insecure-allow-plaintext-beyond-loopback", false, "serve without TLS on addresses that other machines reach: only where something else encrypts")
	flags.StringSliceVar(&s.algorithms, "signing-algorithms", []string{"ES256", "RS256"}, "`list` of what tokens can be signed with: ES256 and RS256, and also PS256 and EdDSA if wanted; the first signs where no resource chooses")
	flags.DurationVar(&s.tokenLifetime, "access-token-lifetime", time.Hour, "`life` of a token where neither client nor resource sets one; at most 24h")
	flags.DurationVar(&s.keyRotation, "key-rotation", 30*24*time.Hour, "`time` for which a key signs")
	flags.DurationVar(&s.jwksMaxAge, "jwks-max-age", 5*time.Minute, "`time` for which verifiers may keep the key set; a new key is published that long before it signs")
	flags.DurationVar(&s.maxStaleness, "max-staleness", 30*time.Second, "`time` for which tokens are issued without word from Redis")
	flags.IntVar(&s.cachedClients, "cached-clients", 100_000, "`number` of clients held in memory")
	flags.IntVar(&s.cachedTokens, "cached-tokens", 100_000, "`number` of introspected tokens held in memory")
	flags.StringVar(&s.grpcEndpoint, "grpc-endpoint", "", "`host:port` at which callers reach the gRPC port; default: the issuer's host and the port of grpc-listen")
	flags.DurationVar(&s.connectionAge, "connection-age", 10*time.Minute, "`time` after which callers are sent to a new connection, so that new replicas get their share")
	flags.DurationVar(&s.shutdownDelay, "shutdown-delay", defaultShutdownDelay, "`time` for which a server that is to stop, and is not ready any more, still takes calls; 0s in development mode")
	flags.DurationVar(&s.shutdownTimeout, "shutdown-timeout", 20*time.Second, "`time` that calls in flight get when the server takes no more")
	flags.StringVar(&s.logFormat, "log-format", "json", "`form` of the log on standard error: json or text")
	flags.BoolVar(&s.profiling, "profiling", false, "serve the profiles of the running process at /debug/pprof/ on the operations port; they tell of the program, not of secrets")
	flags.StringVar(&s.otlpEndpoint, "otlp-endpoint", "", "`URL` to which traces and metrics are sent by OTLP over gRPC: http://host:4317, or https:// for TLS; none are sent without it")
	flags.Float64Var(&s.traceSampling, "trace-sampling", 0.01, "`share` of the traces begun here that are recorded, 0 to 1")
	flags.StringVar(&s.logLevel, "log-level", "info", "least `level` that is logged: debug, info, warn or error; info includes the audit events")
	markReloadable(flags)
}

// defaultShutdownDelay is longer than it takes Kubernetes to tell its proxies that a pod is not ready, and load balancers
// that ask every second or two.
const defaultShutdownDelay = 5 * time.Second

// check reports the first setting that cannot be, in so far as it shows without trying.
func (s *Settings) check() error {
	if s.issuer == "" && !s.dev {
		return cli.SettingError("issuer", errors.New("is required: the URL at which callers reach this issuer, such as https://auth.example.com"))
	}
	if s.issuer != "" {
		if _, err := oauth.ParseIssuer(s.issuer); err != nil {
			return cli.SettingError("issuer", err)
		}
	}
	if (s.tlsCert == "") != (s.tlsKey == "") {
		return cli.SettingError("tls-cert-file, tls-key-file", errors.New("one is of no use without the other"))
	}
	if s.tlsClientCA != "" && s.tlsCert == "" {
		return cli.SettingError("tls-client-ca-file", errors.New("callers' certificates need TLS: set tls-cert-file and tls-key-file"))
	}
	if _, err := s.signingAlgorithms(); err != nil {
		return cli.SettingError("signing-algorithms", err)
	}
	if s.tokenLifetime < time.Second || s.tokenLifetime > registry.MaxLifetime || s.tokenLifetime%time.Second != 0 {
		return cli.SettingError("access-token-lifetime", fmt.Errorf("%s is not between 1s and %s in whole seconds", s.tokenLifetime, registry.MaxLifetime))
	}
	if s.jwksMaxAge < time.Second || s.jwksMaxAge > 24*time.Hour {
		return cli.SettingError("jwks-max-age", fmt.Errorf("%s is not between 1s and 24h", s.jwksMaxAge))
	}
	if least := 2*s.jwksMaxAge + 10*time.Minute; s.keyRotation < least {
		return cli.SettingError("key-rotation", fmt.Errorf("%s is too short: with this jwks-max-age it takes at least %s", s.keyRotation, least))
	}
	if s.maxStaleness < 2*time.Second {
		return cli.SettingError("max-staleness", fmt.Errorf("%s is less than 2s, which an idle replica may well reach", s.maxStaleness))
	}
	if s.cachedClients < 1 {
		return cli.SettingError("cached-clients", errors.New("must be at least 1"))
	}
	if s.cachedTokens < 1 {
		return cli.SettingError("cached-tokens", errors.New("must be at least 1"))
	}
	if s.connectionAge < time.Second {
		return cli.SettingError("connection-age", fmt.Errorf("%s is less than 1s", s.connectionAge))
	}
	if s.shutdownDelay < 0 {
		return cli.SettingError("shutdown-delay", errors.New("must not be negative"))
	}
	if err := checkOTLP(s.otlpEndpoint); err != nil {
		return cli.SettingError("otlp-endpoint", err)
	}
	if !(s.traceSampling >= 0 && s.traceSampling <= 1) {
		return cli.SettingError("trace-sampling", fmt.Errorf("%g is not between 0 and 1", s.traceSampling))
	}
	if s.logFormat != "json" && s.logFormat != "text" {
		return cli.SettingError("log-format", fmt.Errorf("%q is neither json nor text", s.logFormat))
	}
	return s.limitSettings.check()
}

func (s *Settings) signingAlgorithms() ([]jwks.Algorithm, error) {
	var algorithms []jwks.Algorithm
	for _, name := range s.algorithms {
		algorithm := jwks.Algorithm(strings.TrimSpace(name))
		switch algorithm {
		case jwks.ES256, jwks.RS256, jwks.PS256, jwks.EdDSA:
		default:
			return nil, fmt.Errorf("%q is not one of ES256, RS256, PS256, EdDSA", name)
		}
		if !slices.Contains(algorithms, algorithm) {
			algorithms = append(algorithms, algorithm)
		}
	}
	if !slices.Contains(algorithms, jwks.ES256) || !slices.Contains(algorithms, jwks.RS256) {
		return nil, errors.New("must include ES256 and RS256, which every caller can count on")
	}
	return algorithms, nil
}
