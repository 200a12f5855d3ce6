package certificate_test

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/must"
)

var now = time.Unix(1_800_000_000, 0)

// The expected text is from sha256sum and basenc.
func TestThumbprint(t *testing.T) {
	c := &x509.Certificate{Raw: []byte("not a certificate")}
	if got, want := certificate.Thumbprint(c), "RyCcm3r4Od5p6anNYl6RgsGtY9rnntiKLdaA_jQhhiA"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A certificate is verified if an authority vouches for it now, for the authentication of clients.
func TestVerify(t *testing.T) {
	root, other := certtest.NewAuthority(), certtest.NewAuthority()
	below := root.Intermediate()
	usage := func(usages ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
	}
	from := func(begin, end time.Time) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = begin, end }
	}
	good := certtest.Chain(root.Sign())
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		pools []*x509.CertPool
		ok    bool
	}{
		"good":                      {good, []*x509.CertPool{root.Pool()}, true},
		"of the second authorities": {good, []*x509.CertPool{other.Pool(), root.Pool()}, true},
		"through an intermediate":   {certtest.Chain(below.Sign()), []*x509.CertPool{root.Pool()}, true},
		"no intermediate":           {certtest.Chain(below.Sign())[:1], []*x509.CertPool{root.Pool()}, false},
		"for clients alone":         {certtest.Chain(root.Sign(usage(x509.ExtKeyUsageClientAuth))), []*x509.CertPool{root.Pool()}, true},
		"for any purpose":           {certtest.Chain(root.Sign(usage())), []*x509.CertPool{root.Pool()}, true},
		"for servers":               {certtest.Chain(root.Sign(usage(x509.ExtKeyUsageServerAuth))), []*x509.CertPool{root.Pool()}, false},
		"expired":                   {certtest.Chain(root.Sign(from(now.Add(-time.Hour), now.Add(-time.Second)))), []*x509.CertPool{root.Pool()}, false},
		"from the future":           {certtest.Chain(root.Sign(from(now.Add(time.Second), now.Add(time.Hour)))), []*x509.CertPool{root.Pool()}, false},
		"of another authority":      {certtest.Chain(other.Sign()), []*x509.CertPool{root.Pool()}, false},
		"self-signed":               {certtest.Chain(certtest.SelfSigned()), []*x509.CertPool{root.Pool()}, false},
		"of no authorities":         {good, nil, false},
		"none":                      {nil, []*x509.CertPool{root.Pool()}, false},
		"a chain that is too long":  {slices.Repeat(good, 7), []*x509.CertPool{root.Pool()}, false},
	} {
		if err := certificate.Verify(test.chain, now, test.pools...); (err == nil) != test.ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The size of an RSA key in a chain is bounded: checking a signature takes long with a large one.
func TestLargeKeys(t *testing.T) {
	for bits, ok := range map[uint]bool{2048: true, 8192: true, 8193: false, 70_000: false} {
		key := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), bits-1), E: 3}
		chain := append(certtest.Chain(certtest.SelfSigned()), &x509.Certificate{PublicKey: key})
		if err := certificate.CheckChain(chain); (err == nil) != ok {
			t.Errorf("%d bits: got %v", bits, err)
		}
	}
}

// TestMatch compares names with certificates that have them, and with those that have similar ones.
func TestMatch(t *testing.T) {
	a := certtest.NewAuthority()
	with := func(change func(*x509.Certificate)) *x509.Certificate { return a.Sign(change).Leaf }
	dns := func(names ...string) func(*x509.Certificate) { return func(c *x509.Certificate) { c.DNSNames = names } }
	address := func(ips ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.IPAddresses = nil
			for _, ip := range ips {
				c.IPAddresses = append(c.IPAddresses, net.ParseIP(ip))
			}
		}
	}
	email := func(list ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.EmailAddresses = list }
	}
	for name, test := range map[string]struct {
		name certificate.Subject
		c    *x509.Certificate
		want bool
	}{
		"no name":                    {certificate.Subject{}, a.Sign().Leaf, false},
		"DNS name":                   {certificate.Subject{DNS: "orders.internal"}, with(dns("x.internal", "ORDERS.internal")), true},
		"DNS name below":             {certificate.Subject{DNS: "orders.internal"}, with(dns("a.orders.internal")), false},
		"DNS wildcard":               {certificate.Subject{DNS: "orders.internal"}, with(dns("*.internal")), false},
		"DNS name as common name":    {certificate.Subject{DNS: "orders"}, with(dns()), false},
		"URI":                        {certificate.Subject{URI: "spiffe://example.com/orders"}, with(certtest.URIs("spiffe://example.com/orders")), true},
		"URI in other letter case":   {certificate.Subject{URI: "spiffe://example.com/orders"}, with(certtest.URIs("spiffe://example.com/Orders")), false},
		"URI with escape":            {certificate.Subject{URI: "spiffe://example.com/orders"}, with(certtest.URIs("spiffe://example.com/order%73")), false},
		"two URIs":                   {certificate.Subject{URI: "spiffe://example.com/orders"}, with(certtest.URIs("spiffe://example.com/orders", "spiffe://example.com/other")), false},
		"no URI":                     {certificate.Subject{URI: "spiffe://example.com/orders"}, a.Sign().Leaf, false},
		"IP address":                 {certificate.Subject{IP: "2001:db8::1"}, with(address("192.0.2.1", "2001:0db8:0::1")), true},
		"another IP address":         {certificate.Subject{IP: "192.0.2.1"}, with(address("192.0.2.10")), false},
		"email":                      {certificate.Subject{Email: "orders@example.com"}, with(email("orders@example.com")), true},
		"email in other letter case": {certificate.Subject{Email: "orders@example.com"}, with(email("Orders@example.com")), false},
		"DN":                         {certificate.Subject{DN: "CN=orders,O=Example"}, a.Sign().Leaf, true},
		"DN in the other order":      {certificate.Subject{DN: "O=Example,CN=orders"}, a.Sign().Leaf, false},
		"part of a DN":               {certificate.Subject{DN: "CN=orders"}, a.Sign().Leaf, false},
	} {
		if got := test.name.Match(test.c); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

// subject returns a certificate with the subject, an attribute of each relative name after another, the least specific first.
func subject(values ...pkix.AttributeTypeAndValue) *x509.Certificate {
	var sequence pkix.RDNSequence
	for _, v := range values {
		sequence = append(sequence, pkix.RelativeDistinguishedNameSET{v})
	}
	return &x509.Certificate{RawSubject: must.Get(asn1.Marshal(sequence))}
}

// TestDN compares the forms of RFC 4514 with the subjects that they stand for.
func TestDN(t *testing.T) {
	cn, o, uid := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	plain := subject(pkix.AttributeTypeAndValue{Type: o, Value: "Example"}, pkix.AttributeTypeAndValue{Type: cn, Value: "orders"})
	odd := subject(pkix.AttributeTypeAndValue{Type: cn, Value: ` a,b+"c" =é `})
	for text, test := range map[string]struct {
		c    *x509.Certificate
		want bool
	}{
		"CN=orders,O=Example":                     {plain, true},
		"cn=orders, o = Example ":                 {plain, true},
		"2.5.4.3=orders,2.5.4.10=Example":         {plain, true},
		"CN=#0c066f7264657273,O=Example":          {plain, true},
		`CN=\6frders,O=Example`:                   {plain, true},
		"CN=Orders,O=Example":                     {plain, false},
		"CN=orders,O=Example,C=DE":                {plain, false},
		"CN=orders+O=Example":                     {plain, false},
		"CN=orders,OU=Example":                    {plain, false},
		"CN=orders,O=Exam ple":                    {plain, false},
		`CN=\ a\,b\+\"c\" =é\ `:                   {odd, true},
		`CN=\20a\2cb\2b\22c\22 \3d\c3\a9\20`:      {odd, true},
		`CN=a\,b\+\"c\" =é`:                       {odd, false},
		"UID=x":                                   {subject(pkix.AttributeTypeAndValue{Type: uid, Value: "x"}), true},
		"CN=1":                                    {subject(pkix.AttributeTypeAndValue{Type: cn, Value: 1}), false},
		"CN=orders":                               {subject(), false},
		"CN=orders,O=Example,O=Example,CN=orders": {plain, false},
		`O=b+CN=a`:                                {&x509.Certificate{RawSubject: must.Get(asn1.Marshal(pkix.RDNSequence{{{Type: cn, Value: "a"}, {Type: o, Value: "b"}}}))}, true},
	} {
		if problem := certificate.CheckDN(text); problem != "" {
			t.Errorf("%s: %s", text, problem)
		}
		if got := (certificate.Subject{DN: text}).Match(test.c); got != test.want {
			t.Errorf("%s: got %t", text, got)
		}
	}
	for _, text := range []string{
		"orders", "CN=", "=orders", "CN=orders,", "CN=orders,,O=Example", "X=orders", "1=orders", "2.05=x", "2.5.=x", `CN="orders"`, "CN=a;b", "CN=a<b",
		`CN=a\`, `CN=a\g`, `CN=a\4`, "CN=#", "CN=#0c", "CN=#zz", "CN=#020101", "CN=#0c066f726465727300", `CN=\ff`, "CN=orders+", "+CN=orders",
	} {
		if certificate.CheckDN(text) == "" {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct {
		check     func(string) string
		good, bad []string
	}{
		{certificate.CheckDNS, []string{"", "orders.example.com", "xn--bcher-kva.example", "orders"}, []string{"*.example.com", "a b", "orders.", "https://x", "a,b", "bücher.example"}},
		{certificate.CheckURI, []string{"", "spiffe://example.com/orders", "urn:orders"}, []string{"orders", "/orders", "spiffe://a b", "spiffe://x/é", "://x"}},
		{certificate.CheckIP, []string{"", "192.0.2.1", "2001:db8::1"}, []string{"192.0.2", "192.0.2.0/24", "fe80::1%eth0", "::ffff:192.0.2.1", "localhost"}},
		{certificate.CheckEmail, []string{"", "orders@example.com"}, []string{"orders", "Orders <orders@example.com>", "orders@", "a@b, c@d"}},
	} {
		for _, text := range test.good {
			if problem := test.check(text); problem != "" {
				t.Errorf("%q: %s", text, problem)
			}
		}
		for _, text := range test.bad {
			if test.check(text) == "" {
				t.Errorf("%q is accepted", text)
			}
		}
	}
}

func FuzzDN(f *testing.F) {
	f.Add("CN=orders,O=Example")
	f.Add(`CN=\20a\2cb+2.5.4.10=#0c0161`)
	c := subject(pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "orders"})
	f.Fuzz(func(t *testing.T, text string) {
		if (certificate.Subject{DN: text}).Match(c) && certificate.CheckDN(text) != "" {
			t.Errorf("%q matches and is not valid", text)
		}
	})
}
