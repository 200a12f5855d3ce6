package serve

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// limitSettings bound what clients may do, and say which proxies are trusted to name a client's address.
type limitSettings struct {
	failuresPerClient    int
	failuresPerSource    int
	tokensPerClient      int
	tokensPeriod         time.Duration
	tokensMode           string
	requestsPerSource    int
	streamsPerSource     int
	connectionsPerSource int
	maxConnections       int
	trustedProxies       []string
	fetchNetworks        []string
	trustDirectories     []string
	proxyProtocol        bool
}

func (s *limitSettings) declareLimits(set *settings.Set) {
	for _, l := range []struct {
		value       *int
		name        string
		initial     int
		description string
	}{
		{&s.failuresPerClient, "failures-per-client", 10, "`number` of failed authentications per minute of one client id from one address; 0 for no limit"},
		{&s.failuresPerSource, "failures-per-source", 100, "`number` of failed authentications per minute from one address; 0 for no limit"},
		{&s.tokensPerClient, "tokens-per-client", 0, "`number` of tokens that a client gets in tokens-period; 0 for no limit"},
		{&s.requestsPerSource, "requests-per-source", 0, "`number` of requests per second from one address at one replica; 0 for no limit"},
		{&s.streamsPerSource, "streams-per-source", 1000, "`number` of streaming calls that one address may have open at one replica; 0 for no limit"},
		{&s.connectionsPerSource, "connections-per-source", 1000, "`number` of connections that one address may have open to the REST and gRPC ports; 0 for no limit"},
		{&s.maxConnections, "max-connections", 2000, "`number` of connections that may be open to the REST and gRPC ports; 0 for no limit"},
	} {
		set.Int(l.value, l.name, l.initial, l.description, settings.Public, settings.NotNegative(l.value))
	}
	set.Duration(&s.tokensPeriod, "tokens-period", time.Minute, "`time` in which tokens-per-client counts, in whole seconds; at most 24h",
		settings.Public, settings.WholeSeconds(&s.tokensPeriod, registry.MaxLifetime))
	set.String(&s.tokensMode, "tokens-mode", "refuse", "`mode` of tokens-per-client: refuse, or warn, which continues to issue and logs a warning once a period",
		settings.Public, settings.OneOf(&s.tokensMode, "refuse", "warn"))
	set.Strings(&s.trustedProxies, "trusted-proxies", nil, "`list` of the networks of proxies, such as 10.0.0.0/8, whose X-Forwarded-For is trusted",
		settings.Public, settings.Check(func() error { _, err := remoteaddr.ParseNetworks(s.trustedProxies); return err }))
	set.Strings(&s.fetchNetworks, "fetch-networks", nil, "`list` of the networks, such as 10.0.0.0/8, from which the key sets of clients (jwks_uri) and trusted issuers are fetched, besides public addresses",
		settings.Public, settings.Check(func() error { _, err := remoteaddr.ParseNetworks(s.fetchNetworks); return err }))
	set.Strings(&s.trustDirectories, "trust-directories", nil, "`list` of the directories below which the files are read that trusted issuers name (ca_file, bearer_token_file, bundle_file, workload_api)",
		settings.Public, settings.Check(s.checkTrustDirectories))
	set.Bool(&s.proxyProtocol, "proxy-protocol", false, "trusted-proxies begin their connections with a PROXY protocol header, version 1 or 2",
		settings.Public, settings.Check(s.checkProxyProtocol))
}

func (s *limitSettings) checkTrustDirectories() error {
	for _, directory := range s.trustDirectories {
		if !filepath.IsAbs(directory) {
			return fmt.Errorf("%q is not an absolute path", directory)
		}
	}
	return nil
}

func (s *limitSettings) checkProxyProtocol() error {
	if s.proxyProtocol && len(s.trustedProxies) == 0 {
		return errors.New("a header counts only from trusted-proxies; set those too")
	}
	return nil
}

// limits returns the limits that the service enforces.
func (s *limitSettings) limits() limit.Limits {
	return limit.Limits{
		FailuresPerClient: s.failuresPerClient, FailuresPerSource: s.failuresPerSource,
		TokensPerClient: s.tokensPerClient, TokensPeriod: s.tokensPeriod, TokensWarn: s.tokensMode == "warn",
		RequestsPerSource: s.requestsPerSource, StreamsPerSource: s.streamsPerSource,
	}
}
