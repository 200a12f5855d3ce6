package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
)

// storeSettings say where everything is kept.
type storeSettings struct {
	config      string
	redis       string
	redisPrefix string
	kek         string
	kekFile     string
	// previousKEK and its file are of the key that also opens; kekURL of the one that has wrapped them.
	previousKEK     string
	previousKEKFile string
	kekURL          string
	redisReplicas   int
	auditEntries    int
}

// serveSettings are all settings of `grantor serve`.
type serveSettings struct {
	storeSettings
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

// declare adds the settings to flags. Each is declared here and nowhere else: its name, its default and its help serve
// the flag, the environment variable GRANTOR_NAME, the line in the file and the table in the README.
func (s *storeSettings) declare(flags *pflag.FlagSet) {
	s.declareRedis(flags)
	flags.StringVar(&s.kek, "key-encryption-key", "", "the `key` that seals what is secret in Redis: 32 random bytes in base64; better given by file or environment than by flag")
	flags.StringVar(&s.kekFile, "key-encryption-key-file", "", "`file` with the key-encryption key")
	flags.StringVar(&s.previousKEK, "previous-key-encryption-key", "", "`key` that opens what is sealed in Redis and seals nothing: the one before, or the next one, while replicas change from one to the other")
	flags.StringVar(&s.previousKEKFile, "previous-key-encryption-key-file", "", "`file` with the previous key-encryption key")
	flags.StringVar(&s.kekURL, kekURLName, "", kekURLHelp)
	flags.IntVar(&s.redisReplicas, "revocation-replicas", 0, "`number` of Redis replicas that must have a revocation before it is acknowledged (WAIT)")
	flags.IntVar(&s.auditEntries, "audit-entries", 100_000, "`number` of audit events kept in Redis, of changes, of decisions and of refusals each; 0 for none")
}

// declareRedis adds those that say which Redis it is.
func (s *storeSettings) declareRedis(flags *pflag.FlagSet) {
	flags.StringVar(&s.config, "config", "", "`file` with settings in YAML: each flag's name with _ for -, and its value")
	flags.StringVar(&s.redis, "redis", "", "`URL` of the Redis: redis://user:password@host:6379/0; rediss:// for TLS; ?addr=host2:6379 for a Cluster; ?master_name=name for Sentinel")
	flags.StringVar(&s.redisPrefix, "redis-prefix", redisstore.DefaultPrefix, "start of every key's `name`, ending with a colon; another for each issuer in one Redis")
}

// declare adds the settings to flags.
func (s *serveSettings) declare(flags *pflag.FlagSet) {
	s.storeSettings.declare(flags)
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

// resolve fills what no flag set from the environment, else from the file where there is a flag for one.
func resolve(flags *pflag.FlagSet) error {
	var values map[string]line
	file := flags.Lookup("config")
	if file != nil {
		err := fromEnvironment(file)
		if err == nil {
			values, err = readSettings(file.Value.String(), flags)
		}
		if err != nil {
			return usage(err)
		}
	}
	var err error
	flags.VisitAll(func(flag *pflag.Flag) {
		if err == nil && !flag.Changed && flag != file {
			err = fromEnvironment(flag)
		}
		if line, ok := values[flag.Name]; ok && err == nil && !flag.Changed {
			if set := flag.Value.Set(line.value); set != nil {
				err = fmt.Errorf("%s: %w", line.place, set)
			}
			flag.Changed = true
			flag.Annotations = map[string][]string{ofFile: {line.place}}
		}
	})
	return usage(err)
}

// The marks of a flag that the command line did not set: by the environment, or by a file, whose place is with it.
const (
	ofEnvironment = "environment"
	ofFile        = "file"
)

// checkEnvironment refuses a GRANTOR_ variable that no command knows: a misspelt one could leave TLS off without a word.
// Those that Kubernetes makes for a service whose name begins with grantor are passed over.
func checkEnvironment(commands []*cobra.Command) error {
	known := map[string]bool{secretVariable: true}
	var learn func(commands []*cobra.Command)
	learn = func(commands []*cobra.Command) {
		for _, command := range commands {
			command.Flags().VisitAll(func(flag *pflag.Flag) { known[environment(flag)] = true })
			learn(command.Commands())
		}
	}
	learn(commands)
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "GRANTOR_") && !known[name] && !ofKubernetes(name) {
			return fmt.Errorf("%s: there is no such setting", name)
		}
	}
	return nil
}

// serviceVariable is how the variables go on that Kubernetes makes for a service, after the service's name:
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
var serviceVariable = regexp.MustCompile(`^_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// ofKubernetes reports whether Kubernetes made a variable for a service. It makes all that a service has, so one without
// the service's host is somebody's mistake, such as GRANTOR_HTTP_PORT.
func ofKubernetes(name string) bool {
	for i, c := range name {
		if c == '_' && serviceVariable.MatchString(name[i:]) && os.Getenv(name[:i]+"_SERVICE_HOST") != "" {
			return true
		}
	}
	return false
}

// environment names the variable of a setting.
func environment(flag *pflag.Flag) string { return "GRANTOR_" + strings.ToUpper(underscored(flag)) }

func underscored(flag *pflag.Flag) string { return strings.ReplaceAll(flag.Name, "-", "_") }

func fromEnvironment(flag *pflag.Flag) error {
	value, ok := os.LookupEnv(environment(flag))
	if !ok || flag.Changed || flag.Name == "help" {
		return nil
	}
	if err := flag.Value.Set(value); err != nil {
		return fmt.Errorf("%s: %w", environment(flag), err)
	}
	flag.Changed = true
	flag.Annotations = map[string][]string{ofEnvironment: nil}
	return nil
}

// onCommandLine reports whether the command line sets a flag.
func onCommandLine(flags *pflag.FlagSet, name string) bool {
	flag := flags.Lookup(name)
	return flag.Changed && flag.Annotations == nil
}

// line is a setting as a file gives it.
type line struct {
	value string
	// place is file:line: name.
	place string
}

// readSettings reads flag name → value. No path is no settings. The file may be that of grantor serve for every command, so
// settings that only serve has are passed over.
func readSettings(path string, flags *pflag.FlagSet) (map[string]line, error) {
	if path == "" {
		return nil, nil
	}
	doc, err := readYAML(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	names := make(map[string]*pflag.Flag)
	flags.VisitAll(func(flag *pflag.Flag) { names[underscored(flag)] = flag })
	delete(names, "help")
	delete(names, "config")
	var served serveSettings
	ofServe := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	served.declare(ofServe)
	values := make(map[string]line)
	err = doc.fields(doc.root, func(key string, node *yaml.Node) error {
		flag, ok := names[key]
		if meant := strings.ReplaceAll(key, "-", "_"); !ok && names[meant] != nil {
			return doc.errorf(node, "there is no setting %q; in a file it is %s", key, meant)
		}
		if !ok && ofServe.Lookup(strings.ReplaceAll(key, "_", "-")) != nil && !strings.Contains(key, "-") {
			return nil
		}
		if !ok {
			return doc.errorf(node, "there is no setting %q", key)
		}
		value, err := doc.scalarOrList(node)
		values[flag.Name] = line{strings.Join(value, ","), doc.place(node) + ": " + key}
		return err
	})
	return values, err
}

// settingError names the setting that is wrong.
func settingError(name string, err error) error { return usage(fmt.Errorf("%s: %w", name, err)) }

// check reports the first setting that cannot be, in so far as it shows without trying.
func (s *serveSettings) check() error {
	if s.issuer == "" && !s.dev {
		return settingError("issuer", errors.New("is required: the URL at which callers reach this issuer, such as https://auth.example.com"))
	}
	if s.issuer != "" {
		if _, err := oauth.ParseIssuer(s.issuer); err != nil {
			return settingError("issuer", err)
		}
	}
	if (s.tlsCert == "") != (s.tlsKey == "") {
		return settingError("tls-cert-file, tls-key-file", errors.New("one is of no use without the other"))
	}
	if s.tlsClientCA != "" && s.tlsCert == "" {
		return settingError("tls-client-ca-file", errors.New("callers' certificates need TLS: set tls-cert-file and tls-key-file"))
	}
	if _, err := s.signingAlgorithms(); err != nil {
		return settingError("signing-algorithms", err)
	}
	if s.tokenLifetime < time.Second || s.tokenLifetime > registry.MaxLifetime || s.tokenLifetime%time.Second != 0 {
		return settingError("access-token-lifetime", fmt.Errorf("%s is not between 1s and %s in whole seconds", s.tokenLifetime, registry.MaxLifetime))
	}
	if s.jwksMaxAge < time.Second || s.jwksMaxAge > 24*time.Hour {
		return settingError("jwks-max-age", fmt.Errorf("%s is not between 1s and 24h", s.jwksMaxAge))
	}
	if least := 2*s.jwksMaxAge + 10*time.Minute; s.keyRotation < least {
		return settingError("key-rotation", fmt.Errorf("%s is too short: with this jwks-max-age it takes at least %s", s.keyRotation, least))
	}
	if s.maxStaleness < 2*time.Second {
		return settingError("max-staleness", fmt.Errorf("%s is less than 2s, which an idle replica may well reach", s.maxStaleness))
	}
	if s.cachedClients < 1 {
		return settingError("cached-clients", errors.New("must be at least 1"))
	}
	if s.cachedTokens < 1 {
		return settingError("cached-tokens", errors.New("must be at least 1"))
	}
	if s.connectionAge < time.Second {
		return settingError("connection-age", fmt.Errorf("%s is less than 1s", s.connectionAge))
	}
	if s.shutdownDelay < 0 {
		return settingError("shutdown-delay", errors.New("must not be negative"))
	}
	if err := checkOTLP(s.otlpEndpoint); err != nil {
		return settingError("otlp-endpoint", err)
	}
	if !(s.traceSampling >= 0 && s.traceSampling <= 1) {
		return settingError("trace-sampling", fmt.Errorf("%g is not between 0 and 1", s.traceSampling))
	}
	if s.logFormat != "json" && s.logFormat != "text" {
		return settingError("log-format", fmt.Errorf("%q is neither json nor text", s.logFormat))
	}
	return s.limitSettings.check()
}

func (s *serveSettings) signingAlgorithms() ([]jwks.Algorithm, error) {
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
