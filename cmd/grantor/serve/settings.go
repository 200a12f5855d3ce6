package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/monitoring"
	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/storage"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/rest"
)

// Settings are all settings of grantor serve. [Settings.Declare] binds them to flags.
type Settings struct {
	storage.Settings
	monitoring monitoring.Settings
	limitSettings
	dev         bool
	httpListen  string
	grpcListen  string
	opsListen   string
	issuer      string
	apply       string
	tlsCert     string
	tlsKey      string
	tlsClientCA string
	clientCertificateSettings
	allowPlaintext  bool
	algorithms      []string
	tokenLifetime   time.Duration
	keyRotation     time.Duration
	jwksMaxAge      time.Duration
	maxStaleness    time.Duration
	cachedClients   int
	cachedTokens    int
	dpopNonce       string
	grpcEndpoint    string
	connectionAge   time.Duration
	httpIdleTimeout time.Duration
	h2c             bool
	corsOrigins     []string
	shutdownDelay   time.Duration
	shutdownTimeout time.Duration
	// startupGrace is not a setting: it is how long a new key ring waits for one that Redis has lost.
	startupGrace time.Duration
}

// defaultShutdownDelay is longer than Kubernetes takes to notify its proxies that a pod is not ready, and than the
// interval of load balancers that probe every second or two.
const defaultShutdownDelay = 5 * time.Second

// Declare declares the settings as flags.
func (s *Settings) Declare(flags *pflag.FlagSet) *settings.Set {
	set := settings.NewSet(flags)
	s.Settings.Declare(set)
	s.declareLimits(set)
	s.declarePorts(set, flags)
	s.declareTokens(set)
	s.monitoring.Declare(set, "info includes the audit events")
	reloads.Mark(flags)
	return set
}

func (s *Settings) declarePorts(set *settings.Set, flags *pflag.FlagSet) {
	set.Bool(&s.dev, "dev", false, "development mode: embedded Redis, loopback, plaintext, one client; nothing is kept",
		settings.Public, settings.Check(func() error { return s.checkDev(flags) }))
	set.String(&s.issuer, "issuer", "", "`URL` of this issuer: the iss of its tokens and the base of the REST API",
		settings.PublicURL, settings.Check(s.checkIssuer))
	set.String(&s.httpListen, "http-listen", ":8080", "`address` of the REST port", settings.Public)
	set.String(&s.grpcListen, "grpc-listen", ":8081", "`address` of the gRPC port", settings.Public)
	set.String(&s.opsListen, "ops-listen", ":8082", "`address` of the operations port: /healthz, /readyz and /metrics, in plaintext; no secret passes through it", settings.Public)
	set.String(&s.grpcEndpoint, "grpc-endpoint", "", "`host:port` at which clients reach the gRPC port; default: the issuer's host and the port of grpc-listen", settings.Public)
	set.String(&s.tlsCert, "tls-cert-file", "", "`file` with the certificate chain of the REST and gRPC ports, in PEM; read again when it changes",
		settings.Public, settings.Check(s.checkTLS))
	set.String(&s.tlsKey, "tls-key-file", "", "`file` with the certificate's private key, in PEM; read again when it changes", settings.Public)
	set.String(&s.tlsClientCA, "tls-client-ca-file", "", "`file` with the authorities, in PEM, one of which must have signed a client's certificate; read again when it changes",
		settings.Public, settings.Check(s.checkClientCA))
	s.declareCertificates(set, s)
	set.Bool(&s.allowPlaintext, "insecure-allow-plaintext-beyond-loopback", false, "serve without TLS on addresses that other machines reach: only where something else encrypts", settings.Public)
	set.Duration(&s.connectionAge, "connection-age", 10*time.Minute, "`time` after which clients are sent to a new connection, so that new replicas get their share; at least 1s",
		settings.Public, settings.Check(s.checkConnectionAge))
	set.Duration(&s.httpIdleTimeout, "http-idle-timeout", 2*time.Minute, "`time` after which an idle connection to the REST port is closed, 1s to 2h; a load balancer must close its own earlier: Google's does after 600s",
		settings.Public, settings.Check(s.checkIdleTimeout))
	set.Bool(&s.h2c, "http-h2c", false, "accept HTTP/2 in plaintext on the REST port, from clients that know it beforehand (RFC 9113 §3.3), such as load balancers and meshes; not together with TLS",
		settings.Public, settings.Check(s.checkH2C))
	set.Strings(&s.corsOrigins, "cors-origins", nil, "`list` of the origins, such as https://console.example.com, whose web pages may read the responses of the token endpoint and of calls by Connect and gRPC-Web (CORS)",
		settings.Public, settings.Check(func() error { _, err := s.origins(); return err }))
	set.Duration(&s.shutdownDelay, "shutdown-delay", defaultShutdownDelay, "`time` for which a server that is stopping, and no longer ready, still accepts calls; 0s in development mode",
		settings.Public, settings.Check(s.checkShutdownDelay))
	set.Duration(&s.shutdownTimeout, "shutdown-timeout", 20*time.Second, "`time` that calls in flight get once the server accepts no more", settings.Public)
}

func (s *Settings) declareTokens(set *settings.Set) {
	set.String(&s.apply, "apply", "", "`file` with clients and resources to register at start, as for grantor apply", settings.Public)
	set.Strings(&s.algorithms, "signing-algorithms", []string{"ES256", "RS256"}, "`list` of the algorithms that sign tokens: ES256 and RS256, optionally PS256 and EdDSA; the first is the default of a resource",
		settings.Public, settings.Check(s.checkAlgorithms))
	set.Duration(&s.tokenLifetime, "access-token-lifetime", time.Hour, "`lifetime` of a token where neither client nor resource sets one, in whole seconds; at most 24h",
		settings.Public, settings.WholeSeconds(&s.tokenLifetime, registry.MaxLifetime))
	set.Duration(&s.jwksMaxAge, "jwks-max-age", 5*time.Minute, "`time` for which verifiers may cache the key set, 1s to 24h; a new key is published that long, and one minute more, before it signs",
		settings.Public, settings.Check(s.checkMaxAge))
	set.Duration(&s.keyRotation, "key-rotation", 30*24*time.Hour, "`time` for which a key signs; at least 10m more than twice jwks-max-age",
		settings.Public, settings.Check(s.checkRotation))
	set.Duration(&s.maxStaleness, "max-staleness", 30*time.Second, "`time` for which tokens are issued without contact to Redis; at least 2s",
		settings.Public, settings.Check(s.checkStaleness))
	set.String(&s.dpopNonce, "dpop-nonce", "off", "`mode` of the nonces in the DPoP proofs of token requests: off, or required, which refuses a proof without a recent nonce of this issuer",
		settings.Public, settings.OneOf(&s.dpopNonce, "off", "required"))
	set.Int(&s.cachedClients, "cached-clients", 100_000, "`number` of clients held in memory", settings.Public, settings.AtLeast(&s.cachedClients, 1))
	set.Int(&s.cachedTokens, "cached-tokens", 100_000, "`number` of introspected tokens held in memory", settings.Public, settings.AtLeast(&s.cachedTokens, 1))
}

// checkDev refuses development mode on a Redis unless the command line asks for both. The environment or a file may be
// that of a production issuer, in whose Redis development mode would register a client with a public secret.
func (s *Settings) checkDev(flags *pflag.FlagSet) error {
	if !s.dev || s.Redis == "" {
		return nil
	}
	for _, name := range []string{"redis", "dev"} {
		if !settings.OnCommandLine(flags, name) {
			return fmt.Errorf("development mode would register a client with a public secret in a Redis, and %s is from %s; give both --dev and --redis on the command line, or unset one of them",
				name, settings.Source(flags.Lookup(name)))
		}
	}
	return nil
}

func (s *Settings) checkIssuer() error {
	if s.issuer == "" {
		if s.dev {
			return nil
		}
		return errors.New("is required: the URL at which clients reach this issuer, such as https://auth.example.com")
	}
	_, err := oauth.ParseIssuer(s.issuer)
	return err
}

func (s *Settings) checkTLS() error {
	if (s.tlsCert == "") != (s.tlsKey == "") {
		return errors.New("set it together with tls-key-file, or neither")
	}
	return nil
}

func (s *Settings) checkClientCA() error {
	if s.tlsClientCA != "" && s.tlsCert == "" {
		return errors.New("client certificates need TLS: set tls-cert-file and tls-key-file")
	}
	return nil
}

func (s *Settings) checkConnectionAge() error {
	if s.connectionAge < time.Second {
		return fmt.Errorf("%s is less than 1s", s.connectionAge)
	}
	return nil
}

func (s *Settings) checkIdleTimeout() error {
	if s.httpIdleTimeout < time.Second || s.httpIdleTimeout > 2*time.Hour {
		return fmt.Errorf("%s is not between 1s and 2h", s.httpIdleTimeout)
	}
	return nil
}

func (s *Settings) checkH2C() error {
	if s.h2c && s.tlsCert != "" {
		return errors.New("the port has TLS, which negotiates HTTP/2; unset tls-cert-file and tls-key-file, or this")
	}
	return nil
}

// origins parses the setting cors-origins.
func (s *Settings) origins() ([]rest.Origin, error) {
	var origins []rest.Origin
	for _, text := range s.corsOrigins {
		origin, err := rest.ParseOrigin(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		origins = append(origins, origin)
	}
	return origins, nil
}

func (s *Settings) checkShutdownDelay() error {
	if s.shutdownDelay < 0 {
		return errors.New("must not be negative")
	}
	return nil
}

func (s *Settings) checkAlgorithms() error {
	_, err := s.signingAlgorithms()
	return err
}

func (s *Settings) checkMaxAge() error {
	if s.jwksMaxAge < time.Second || s.jwksMaxAge > 24*time.Hour {
		return fmt.Errorf("%s is not between 1s and 24h", s.jwksMaxAge)
	}
	return nil
}

func (s *Settings) checkRotation() error {
	if minimum := 2*s.jwksMaxAge + 10*time.Minute; s.keyRotation < minimum {
		return fmt.Errorf("%s is too short: with this jwks-max-age it must be at least %s", s.keyRotation, minimum)
	}
	return nil
}

func (s *Settings) checkStaleness() error {
	if s.maxStaleness < 2*time.Second {
		return fmt.Errorf("%s is less than 2s, which an idle replica can reach", s.maxStaleness)
	}
	return nil
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
		return nil, errors.New("must include ES256 and RS256, which every client can rely on")
	}
	return algorithms, nil
}

// tlsPaths returns the files of the certificate.
func (s *Settings) tlsPaths() tlsfiles.Paths {
	return tlsfiles.Paths{
		Certificate: tlsfiles.File{Setting: "tls-cert-file", Path: s.tlsCert}, Key: tlsfiles.File{Setting: "tls-key-file", Path: s.tlsKey},
		Authorities:         tlsfiles.File{Setting: "tls-client-ca-file", Path: s.tlsClientCA},
		RequestCertificates: s.clientCertificates == requestCertificates,
	}
}

// portsConfig returns the configuration of the ports.
func (s *Settings) portsConfig(log *slog.Logger) (ports.Config, error) {
	proxies, err := remoteaddr.ParseNetworks(s.trustedProxies)
	return ports.Config{
		HTTP: s.httpListen, GRPC: s.grpcListen, Ops: s.opsListen, TLS: s.tlsPaths(), AllowPlaintext: s.allowPlaintext,
		Reflection: s.dev, Profiling: s.monitoring.Profiling, ConnectionAge: s.connectionAge, IdleTimeout: s.httpIdleTimeout, H2C: s.h2c, Log: log,
		Connections: ports.ConnectionLimits{
			Max: s.maxConnections, MaxPerSource: s.connectionsPerSource, Proxies: proxies, ProxyProtocol: s.proxyProtocol,
		},
	}, err
}
