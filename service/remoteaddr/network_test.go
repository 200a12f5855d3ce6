package remoteaddr_test

import (
	"testing"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.0/8": true, "192.0.2.1/32": true, "0.0.0.0/0": true, "::/0": true, "2001:db8::/32": true,
		"": false, "10.0.0.0": false, "10.0.0.1/8": false, "10.0.0.0/33": false, "2001:db8::1/32": false, "::ffff:10.0.0.0/104": false,
		"fe80::%eth0/64": false, " 10.0.0.0/8": false, "10.0.0.0/08": false, "localhost/8": false,
	} {
		network, err := remoteaddr.ParseNetwork(text)
		if (err == nil) != want || (want && network.String() != text) {
			t.Errorf("%q: got %s, %v", text, network, err)
		}
	}
}
