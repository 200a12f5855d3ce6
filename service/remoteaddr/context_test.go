package remoteaddr_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

func TestContext(t *testing.T) {
	for name, test := range map[string]struct {
		addr     net.Addr
		text, ip string
	}{
		"TCP":            {&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 4711}, "192.0.2.1:4711", "192.0.2.1"},
		"IPv6":           {&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 4711}, "[2001:db8::1]:4711", "2001:db8::1"},
		"of a proxy":     {&net.IPAddr{IP: net.ParseIP("192.0.2.1")}, "192.0.2.1", "192.0.2.1"},
		"a Unix socket":  {&net.UnixAddr{Name: "/run/grantor", Net: "unix"}, "/run/grantor", "invalid IP"},
		"no address":     {nil, "", "invalid IP"},
		"text":           {remoteaddr.FromText("192.0.2.1:4711"), "192.0.2.1:4711", "192.0.2.1"},
		"text of IPv6":   {remoteaddr.FromText("[2001:db8::1]:4711"), "[2001:db8::1]:4711", "2001:db8::1"},
		"text, a zone":   {remoteaddr.FromText("[fe80::1%eth0]:4711"), "[fe80::1%eth0]:4711", "fe80::1"},
		"text, mapped":   {remoteaddr.FromText("[::ffff:192.0.2.1]:1"), "[::ffff:192.0.2.1]:1", "192.0.2.1"},
		"text, no port":  {remoteaddr.FromText("192.0.2.1"), "192.0.2.1", "192.0.2.1"},
		"text, no IP":    {remoteaddr.FromText("@"), "@", "invalid IP"},
		"mapped to IPv6": {&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 1}, "192.0.2.1:1", "192.0.2.1"},
	} {
		ctx := t.Context()
		if test.addr != nil {
			ctx = remoteaddr.NewContext(ctx, test.addr)
		}
		client := remoteaddr.FromContext(ctx)
		if got := client.String(); got != test.text {
			t.Errorf("%s: got %q, want %q", name, got, test.text)
		}
		if got := client.IP().String(); got != test.ip {
			t.Errorf("%s: got the IP address %s, want %s", name, got, test.ip)
		}
	}
}

func TestResolve(t *testing.T) {
	proxies := remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8")}
	proxy := &net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 4711}
	stranger := &net.TCPAddr{IP: net.ParseIP("203.0.113.9"), Port: 4711}
	for name, test := range map[string]struct {
		proxies   remoteaddr.Networks
		end       net.Addr
		forwarded []string
		want      string
	}{
		"from a proxy":    {proxies, proxy, []string{"192.0.2.1"}, "192.0.2.1"},
		"without header":  {proxies, proxy, nil, "10.0.0.1:4711"},
		"the same":        {proxies, proxy, []string{"10.0.0.1"}, "10.0.0.1:4711"},
		"from a stranger": {proxies, stranger, []string{"192.0.2.1"}, "203.0.113.9:4711"},
		"without proxies": {nil, proxy, []string{"192.0.2.1"}, "10.0.0.1:4711"},
	} {
		if got := test.proxies.Resolve(test.end, test.forwarded).String(); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}
