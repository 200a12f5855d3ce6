package remoteaddr_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

func TestRateLimitKey(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1":                 "192.0.2.1",
		"::ffff:192.0.2.1":          "192.0.2.1",
		"2001:db8:1:2:3:4:5:6":      "2001:db8:1:2::",
		"2001:db8:1:2:ffff::":       "2001:db8:1:2::",
		"fe80::1%eth0":              "fe80::",
		"::1":                       "::",
		"2001:db8:1:3:3:4:5:6":      "2001:db8:1:3::",
		"::ffff:192.0.2.1%whatever": "192.0.2.1",
	} {
		if got := remoteaddr.RateLimitKey(netip.MustParseAddr(address)).String(); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	if remoteaddr.RateLimitKey(netip.Addr{}).IsValid() {
		t.Error("the zero Addr has a key")
	}
}

func TestOrigin(t *testing.T) {
	proxies := remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	const proxy, stranger = "10.0.0.1", "203.0.113.9"
	for name, test := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"no header":                   {proxy, nil, proxy},
		"from a stranger":             {stranger, []string{"192.0.2.1"}, stranger},
		"one":                         {proxy, []string{"192.0.2.1"}, "192.0.2.1"},
		"the last counts":             {proxy, []string{"198.51.100.1, 192.0.2.1"}, "192.0.2.1"},
		"proxies are skipped":         {proxy, []string{"192.0.2.1, 10.1.1.1 ,10.2.2.2"}, "192.0.2.1"},
		"in several headers":          {proxy, []string{"192.0.2.1", "10.1.1.1"}, "192.0.2.1"},
		"what the caller wrote":       {proxy, []string{"10.9.9.9", "192.0.2.1"}, "192.0.2.1"},
		"proxies alone":               {proxy, []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		"with ports":                  {proxy, []string{"192.0.2.1:4711, 10.2.2.2:80"}, "192.0.2.1"},
		"IPv6":                        {proxy, []string{"2001:db9::1, 2001:db8::1"}, "2001:db9::1"},
		"IPv6 with a port":            {"2001:db8::7", []string{"[2001:db9::1]:4711"}, "2001:db9::1"},
		"mapped peer":                 {"::ffff:10.0.0.1", []string{"192.0.2.1"}, "192.0.2.1"},
		"mapped address":              {proxy, []string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		"mapped proxy":                {proxy, []string{"192.0.2.1, ::ffff:10.1.1.1"}, "192.0.2.1"},
		"empty":                       {proxy, []string{""}, proxy},
		"malformed":                   {proxy, []string{"192.0.2.1, unknown"}, proxy},
		"malformed, right of a proxy": {proxy, []string{"unknown, 10.1.1.1"}, proxy},
		"malformed, further left":     {proxy, []string{"unknown, 192.0.2.1"}, "192.0.2.1"},
		"an empty one":                {proxy, []string{"192.0.2.1,"}, proxy},
		"blanks and tabs":             {proxy, []string{"198.51.100.1,\t192.0.2.1 \t"}, "192.0.2.1"},
		"a no-break space":            {proxy, []string{"198.51.100.1,\u00a0192.0.2.1"}, proxy},
		"a next line":                 {proxy, []string{"192.0.2.1\u0085"}, proxy},
		"an em space":                 {proxy, []string{"192.0.2.1\u2003"}, proxy},
		"a name":                      {proxy, []string{"localhost"}, proxy},
		"very many":                   {proxy, []string{strings.Repeat("10.1.1.1,", 5000) + "10.1.1.1"}, proxy},
	} {
		if got := proxies.Origin(netip.MustParseAddr(test.peer), test.forwarded); got.Unmap().String() != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
	if got := remoteaddr.Networks(nil).Origin(netip.MustParseAddr(proxy), []string{"192.0.2.1"}); got.String() != proxy {
		t.Errorf("without proxies: got %s", got)
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add("192.0.2.1, 10.0.0.1")
	f.Add("[2001:db8::1]:80")
	proxies, peer := remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8")}, netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, forwarded string) {
		got := proxies.Origin(peer, []string{forwarded})
		if !got.IsValid() || got.Zone() != "" || got.Is4In6() {
			t.Errorf("%q: got %v", forwarded, got)
		}
	})
}
