package serve

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

// limitSettings bound what callers may do, and say how to find out where they come from.
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
	proxyProtocol        bool
}

// declare adds the settings to flags.
func (s *limitSettings) declare(flags *pflag.FlagSet) {
	flags.IntVar(&s.failuresPerClient, "failures-per-client", 10, "`number` of failed authentications per minute of one client id from one address; 0 for no limit")
	flags.IntVar(&s.failuresPerSource, "failures-per-source", 100, "`number` of failed authentications per minute from one address; 0 for no limit")
	flags.IntVar(&s.tokensPerClient, "tokens-per-client", 0, "`number` of tokens that a client gets in tokens-period; 0 for no limit")
	flags.DurationVar(&s.tokensPeriod, "tokens-period", time.Minute, "`time` in which tokens-per-client counts")
	flags.StringVar(&s.tokensMode, "tokens-mode", "refuse", "`mode` of tokens-per-client: refuse, or warn, which issues on and logs it once a period")
	flags.IntVar(&s.requestsPerSource, "requests-per-source", 0, "`number` of requests per second from one address at one replica; 0 for no limit")
	flags.IntVar(&s.streamsPerSource, "streams-per-source", 1000, "`number` of streaming calls that one address may have open at one replica; 0 for no limit")
	flags.IntVar(&s.connectionsPerSource, "connections-per-source", 1000, "`number` of connections that one address may have open to the REST and gRPC ports; 0 for no limit")
	flags.IntVar(&s.maxConnections, "max-connections", 2000, "`number` of connections that may be open to the REST and gRPC ports; 0 for no limit")
	flags.StringSliceVar(&s.trustedProxies, "trusted-proxies", nil, "`list` of the networks of proxies, such as 10.0.0.0/8, that are believed what X-Forwarded-For says")
	flags.BoolVar(&s.proxyProtocol, "proxy-protocol", false, "trusted-proxies begin their connections with a PROXY protocol header, version 1 or 2")
}

// check reports the first setting that cannot be.
func (s *limitSettings) check() error {
	for name, value := range map[string]int{
		"failures-per-client": s.failuresPerClient, "failures-per-source": s.failuresPerSource, "tokens-per-client": s.tokensPerClient,
		"requests-per-source": s.requestsPerSource, "streams-per-source": s.streamsPerSource,
		"connections-per-source": s.connectionsPerSource, "max-connections": s.maxConnections,
	} {
		if value < 0 {
			return cli.SettingError(name, errors.New("must not be negative; 0 is no limit"))
		}
	}
	if s.tokensPeriod < time.Second || s.tokensPeriod > registry.MaxLifetime || s.tokensPeriod%time.Second != 0 {
		return cli.SettingError("tokens-period", fmt.Errorf("%s is not between 1s and %s in whole seconds", s.tokensPeriod, registry.MaxLifetime))
	}
	if s.tokensMode != "refuse" && s.tokensMode != "warn" {
		return cli.SettingError("tokens-mode", fmt.Errorf("%q is neither refuse nor warn", s.tokensMode))
	}
	proxies, err := s.proxies()
	if err != nil {
		return cli.SettingError("trusted-proxies", err)
	}
	if s.proxyProtocol && len(proxies) == 0 {
		return cli.SettingError("proxy-protocol", errors.New("a header counts only from trusted-proxies; set those too"))
	}
	return nil
}

// limits are those that the service keeps.
func (s *limitSettings) limits() limit.Limits {
	return limit.Limits{
		FailuresPerClient: s.failuresPerClient, FailuresPerSource: s.failuresPerSource,
		TokensPerClient: s.tokensPerClient, TokensPeriod: s.tokensPeriod, TokensWarn: s.tokensMode == "warn",
		RequestsPerSource: s.requestsPerSource, StreamsPerSource: s.streamsPerSource,
	}
}

func (s *limitSettings) proxies() (remoteaddr.Networks, error) {
	var networks remoteaddr.Networks
	for _, text := range s.trustedProxies {
		network, err := registry.ParseNetwork(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		networks = append(networks, network)
	}
	return networks, nil
}
