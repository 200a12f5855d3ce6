package remoteaddr

import (
	"fmt"
	"net/netip"
	"strings"
)

// ParseNetwork parses a network in CIDR notation (RFC 4632 §3.1), such as 10.0.0.0/8 or 2001:db8::/32. It rejects bits
// beyond the prefix length: they show that another network was meant than the one that is written.
func ParseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%.100q is no network such as 10.0.0.0/8 or 2001:db8::/32", text)
	case network.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is IPv4 within IPv6; write it as IPv4", network)
	case network != network.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length; %s may be meant", network, network.Masked())
	}
	return network, nil
}

// ParseNetworks parses a list of networks, each as [ParseNetwork] does.
func ParseNetworks(list []string) (Networks, error) {
	var networks Networks
	for _, text := range list {
		network, err := ParseNetwork(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		networks = append(networks, network)
	}
	return networks, nil
}
