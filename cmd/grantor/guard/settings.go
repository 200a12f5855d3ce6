package guard

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/monitoring"
	"github.com/grantorhq/grantor/cmd/grantor/ports"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/tlsfiles"
	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// forwardOff is the value of forward-auth with which there is no HTTP port.
const forwardOff = "off"

// Settings are all settings of grantor guard. [Settings.Declare] binds them to flags.
type Settings struct {
	monitoring monitoring.Settings

	config          string
	issuer          string
	audience        []string
	fetchFrom       string
	feedFrom        string
	issuerCA        string
	issuerCert      string
	issuerKey       string
	issuerPlaintext bool
	maxStaleness    time.Duration
	refuseStale     bool
	requireBound    bool
	dpopOrigins     []string
	cachedTokens    int

	rules          string
	descriptorSets []string
	clientIDHeader string
	scopesHeader   string
	removeToken    bool
	limitStreams   bool

	grpcListen      string
	httpListen      string
	opsListen       string
	forwardAuth     string
	trustedProxies  []string
	tlsCert         string
	tlsKey          string
	tlsClientCA     string
	allowPlaintext  bool
	maxChecks       int
	maxConnections  int
	shutdownDelay   time.Duration
	shutdownTimeout time.Duration
}

// Declare declares the settings as flags.
func (s *Settings) Declare(flags *pflag.FlagSet) *settings.Set {
	set := settings.NewSet(flags)
	set.String(&s.config, "config", "", "`file` with settings in YAML: each flag's name with _ for -, and its value", settings.Public)
	s.declareIssuer(set)
	s.declareRules(set)
	s.declarePorts(set)
	s.monitoring.Declare(set, "debug includes each refusal, with its path and its exact reason")
	reloads.Mark(flags)
	return set
}

func (s *Settings) declareIssuer(set *settings.Set) {
	set.String(&s.issuer, "issuer", "", "`URL` of the issuer whose tokens are accepted, such as https://auth.example.com",
		settings.PublicURL, settings.Check(s.checkIssuer))
	set.Strings(&s.audience, "audience", nil, "`list` of the resources that the guarded services are: a token must have one of them in its aud; with several, each rule names its resource",
		settings.Public, settings.Check(s.checkAudience))
	set.String(&s.fetchFrom, "fetch-from", "", "`URL` at which the issuer is reached from here, if that is another than issuer",
		settings.PublicURL, settings.Check(func() error { return s.checkSecure(s.fetchFrom) }))
	set.String(&s.feedFrom, "feed-from", "", "`host:port` from which the feed of revocations is followed, if that is another than the issuer's metadata name",
		settings.Public, settings.Check(s.checkFeed))
	set.String(&s.issuerCA, "issuer-ca-file", "", "`file` with the authorities, in PEM, one of which must have signed the issuer's certificate, instead of those of the system; read at start", settings.Public)
	set.String(&s.issuerCert, "issuer-cert-file", "", "`file` with the certificate chain, in PEM, that is presented to an issuer that asks for one; read again when it changes",
		settings.Public, settings.Check(func() error {
			return checkPair(s.issuerCert, s.issuerKey, "issuer-key-file")
		}))
	set.String(&s.issuerKey, "issuer-key-file", "", "`file` with the private key of that certificate, in PEM; read again when it changes", settings.Public)
	set.Bool(&s.issuerPlaintext, "insecure-plaintext-issuer", false, "fetch the issuer's keys and revocations without TLS also beyond loopback: only where something else encrypts, because with other keys tokens can be forged", settings.Public)
	set.Duration(&s.maxStaleness, "max-staleness", 30*time.Second, "`time` without contact to the feed of revocations after which requests count as stale; at least 2s",
		settings.Public, settings.Check(func() error {
			if s.maxStaleness < 2*time.Second {
				return fmt.Errorf("%s is less than 2s, which an idle feed can reach", s.maxStaleness)
			}
			return nil
		}))
	set.Bool(&s.refuseStale, "refuse-when-stale", false, "refuse requests with 503 while they are stale, instead of deciding by what is known", settings.Public)
	set.Bool(&s.requireBound, "require-bound-tokens", false, "refuse tokens that are not bound to a key of their client (RFC 8705, RFC 9449)", settings.Public)
	set.Strings(&s.dpopOrigins, "dpop-origins", nil, "`list` of the origins, such as https://orders.example.com, for one of which a DPoP proof must be; default: the host of the request",
		settings.Public, settings.Check(s.checkOrigins))
	set.Int(&s.cachedTokens, "cached-tokens", 10_000, "`number` of verified tokens held in memory, about 1.2 KiB each", settings.Public, settings.AtLeast(&s.cachedTokens, 1))
}

func (s *Settings) declareRules(set *settings.Set) {
	set.String(&s.rules, "rules", "", "`file` with rules in YAML: which callers may make which requests", settings.Public, settings.Check(s.checkRules))
	set.Strings(&s.descriptorSets, "descriptor-set", nil, "`list` of files that buf build or protoc --descriptor_set_out wrote; option (grantor.v1.rule) of each method in them is a rule", settings.Public)
	set.String(&s.clientIDHeader, "client-id-header", "x-grantor-client-id", "`name` of the header in which the upstream gets the client's id", settings.Public)
	set.String(&s.scopesHeader, "scopes-header", "x-grantor-scopes", "`name` of the header in which the upstream gets the scopes of the token", settings.Public)
	set.Bool(&s.removeToken, "remove-token", false, "remove the headers authorization and dpop from requests that are admitted; with forward-auth, the proxy's configuration does that", settings.Public)
	set.Bool(&s.limitStreams, "limit-streams", false, "let Envoy end each request when its token expires; otherwise a stream that was admitted runs on", settings.Public)
}

func (s *Settings) declarePorts(set *settings.Set) {
	set.String(&s.grpcListen, "grpc-listen", ":9191", "`address` of the gRPC port, which Envoy asks", settings.Public)
	set.String(&s.httpListen, "http-listen", ":9190", "`address` of the HTTP port, which proxies with forward-auth ask", settings.Public)
	set.String(&s.opsListen, "ops-listen", ":9192", "`address` of the operations port: /healthz, /readyz and /metrics, in plaintext; no secret passes through it", settings.Public)
	set.String(&s.forwardAuth, "forward-auth", forwardOff, "`headers` in which a proxy describes a request to the HTTP port: x-forwarded (Traefik, Caddy), x-original (nginx, HAProxy), or off for no HTTP port",
		settings.Public, settings.OneOf(&s.forwardAuth, forwardOff, string(guard.XForwarded), string(guard.XOriginal)))
	set.Strings(&s.trustedProxies, "trusted-proxies", nil, "`list` of the networks, such as 127.0.0.0/8, from which forward-auth is answered",
		settings.Public, settings.Check(s.checkProxies))
	set.String(&s.tlsCert, "tls-cert-file", "", "`file` with the certificate chain of the gRPC and HTTP ports, in PEM; read again when it changes",
		settings.Public, settings.Check(func() error { return checkPair(s.tlsCert, s.tlsKey, "tls-key-file") }))
	set.String(&s.tlsKey, "tls-key-file", "", "`file` with the certificate's private key, in PEM; read again when it changes", settings.Public)
	set.String(&s.tlsClientCA, "tls-client-ca-file", "", "`file` with the authorities, in PEM, one of which must have signed a proxy's certificate; read again when it changes",
		settings.Public, settings.Check(func() error {
			if s.tlsClientCA != "" && s.tlsCert == "" {
				return errors.New("client certificates need TLS: set tls-cert-file and tls-key-file")
			}
			return nil
		}))
	set.Bool(&s.allowPlaintext, "insecure-allow-plaintext-beyond-loopback", false, "serve without TLS on addresses that other machines reach: only where something else encrypts", settings.Public)
	set.Int(&s.maxChecks, "max-checks", 1000, "`number` of requests that are decided at once; more are refused with 503; 0 for no limit", settings.Public, settings.NotNegative(&s.maxChecks))
	set.Int(&s.maxConnections, "max-connections", 1000, "`number` of connections that may be open to the gRPC and HTTP ports; 0 for no limit", settings.Public, settings.NotNegative(&s.maxConnections))
	set.Duration(&s.shutdownDelay, "shutdown-delay", 5*time.Second, "`time` for which a guard that is stopping, and no longer ready, still answers",
		settings.Public, settings.Check(func() error {
			if s.shutdownDelay < 0 {
				return errors.New("must not be negative")
			}
			return nil
		}))
	set.Duration(&s.shutdownTimeout, "shutdown-timeout", 5*time.Second, "`time` that checks in flight get once the guard accepts no more", settings.Public)
}

// checkPair checks that a certificate and its key are both set, or neither.
func checkPair(certificate, key, setting string) error {
	if (certificate == "") != (key == "") {
		return fmt.Errorf("set it together with %s, or neither", setting)
	}
	return nil
}

// checkIssuer validates the issuer. New checks that it is set, because grantor guard check does without it.
func (s *Settings) checkIssuer() error { return s.checkSecure(s.issuer) }

// checkSecure returns an error if a URL, which may be empty, is neither https nor loopback and plaintext is not permitted.
func (s *Settings) checkSecure(raw string) error {
	if raw == "" {
		return nil
	}
	err := oauth.Discovery{AllowPlaintext: s.issuerPlaintext}.Secure(raw)
	if err != nil && !strings.Contains(raw, "://") {
		return fmt.Errorf("%.200q is not a URL such as https://auth.example.com", raw)
	}
	return err
}

func (s *Settings) checkFeed() error {
	if s.feedFrom == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s.feedFrom)
	if _, notNumber := strconv.ParseUint(port, 10, 16); err != nil || notNumber != nil || host == "" {
		return fmt.Errorf("%.200q is not host:port, such as auth.example.com:8081", s.feedFrom)
	}
	return nil
}

func (s *Settings) checkOrigins() error {
	for _, origin := range s.dpopOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || origin != u.Scheme+"://"+u.Host {
			return fmt.Errorf("%.200q is not a scheme and a host, such as https://orders.example.com", origin)
		}
	}
	return nil
}

func (s *Settings) checkAudience() error {
	for i, resource := range s.audience {
		if _, err := oauth.ParseResource(resource); err != nil {
			return fmt.Errorf("%.200q is not a resource such as https://orders.internal", resource)
		}
		if slices.Contains(s.audience[:i], resource) {
			return fmt.Errorf("%.200q is named twice", resource)
		}
	}
	return nil
}

func (s *Settings) checkRules() error {
	if s.rules == "" && len(s.descriptorSets) == 0 {
		return errors.New("is required, or descriptor-set: a request that no rule allows is refused, and without rules all are")
	}
	return nil
}

func (s *Settings) checkProxies() error {
	networks, err := remoteaddr.ParseNetworks(s.trustedProxies)
	if err == nil && len(networks) == 0 && s.forwardAuth != forwardOff {
		return errors.New("is required with forward-auth: the headers that describe a request count only from these networks")
	}
	return err
}

// missing names the settings that a running guard requires and that have no value.
func (s *Settings) missing() []string {
	var names []string
	if s.issuer == "" {
		names = append(names, "issuer")
	}
	if len(s.audience) == 0 {
		names = append(names, "audience")
	}
	return names
}

// errRequired returns the error of the first setting that is missing, or nil.
func (s *Settings) errRequired() error {
	why := map[string]string{
		"issuer":   "is required: the URL of the issuer whose tokens are accepted, such as https://auth.example.com",
		"audience": "is required: the resource that the guarded services are, such as https://orders.internal",
	}
	for _, name := range s.missing() {
		return cli.SettingError(name, errors.New(why[name]))
	}
	return nil
}

// tlsPaths returns the files of the ports.
func (s *Settings) tlsPaths() tlsfiles.Paths {
	return tlsfiles.Paths{
		Certificate: tlsfiles.File{Setting: "tls-cert-file", Path: s.tlsCert}, Key: tlsfiles.File{Setting: "tls-key-file", Path: s.tlsKey},
		Authorities: tlsfiles.File{Setting: "tls-client-ca-file", Path: s.tlsClientCA},
	}
}

const (
	// httpIdleTimeout is longer than a proxy keeps an idle connection: nginx closes it after 60 s, HAProxy sooner.
	httpIdleTimeout = 2 * time.Minute
	// maxHeader bounds the header of a request to the HTTP port, in bytes. A proxy sends the whole header of its client.
	maxHeader = 64 << 10
)

// portsConfig returns the configuration of the ports.
func (s *Settings) portsConfig(log *slog.Logger) ports.Config {
	return ports.Config{
		HTTP: s.httpListen, GRPC: s.grpcListen, Ops: s.opsListen, WithoutHTTP: s.forwardAuth == forwardOff,
		TLS: s.tlsPaths(), AllowPlaintext: s.allowPlaintext, Profiling: s.monitoring.Profiling, IdleTimeout: httpIdleTimeout,
		MaxHeader: maxHeader, Log: log, Connections: ports.ConnectionLimits{Max: s.maxConnections},
	}
}

// from returns the URL at which the issuer is reached.
func (s *Settings) from() string { return cmp.Or(s.fetchFrom, s.issuer) }
