package peercert_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/certificate/certtest"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/peercert"
	"github.com/grantorhq/grantor/service/remoteaddr"
)

var (
	proxies  = remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8")}
	proxy    = &net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 4711}
	stranger = &net.TCPAddr{IP: net.ParseIP("203.0.113.9"), Port: 4711}
)

// headers returns a function that returns the values of headers.
func headers(all map[string][]string) func(string) []string {
	return func(name string) []string { return all[name] }
}

// resolve returns the certificates of a call whose connection has those of own, and whether the call is refused.
func resolve(header peercert.Header, end net.Addr, own []*x509.Certificate, all map[string][]string) ([]*x509.Certificate, error) {
	p := &peer.Peer{Addr: end}
	if own != nil {
		p.AuthInfo = credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: own}}
	}
	before := *p
	resolved, err := peercert.Source{Proxies: proxies, Header: header}.Resolve(p, end, headers(all))
	if p.Addr != before.Addr || own != nil && !slices.Equal(p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates, own) {
		return nil, errors.New("the peer was changed")
	}
	if err != nil {
		return nil, err
	}
	return peercert.FromContext(peer.NewContext(context.Background(), resolved)), nil
}

// encodings are a chain in the forms of headers.
func encodings(c tls.Certificate) (rfc9440, more, escaped, der string) {
	der = base64.StdEncoding.EncodeToString(c.Certificate[0])
	var rest []string
	for _, other := range c.Certificate[1:] {
		rest = append(rest, ":"+base64.StdEncoding.EncodeToString(other)+":")
	}
	return ":" + der + ":", strings.Join(rest, ", "), url.PathEscape(certtest.PEM(c.Certificate...)), der
}

// TestForms parses the headers of all forms, well-formed and not.
func TestForms(t *testing.T) {
	root := certtest.NewAuthority()
	single, deep, other := root.Sign(), root.Intermediate().Sign(), root.Sign()
	one, _, onePEM, oneDER := encodings(single)
	leaf, more, deepPEM, _ := encodings(deep)
	otherPEM := url.PathEscape(certtest.PEM(other.Certificate...))
	leafPEM := url.PathEscape(certtest.PEM(deep.Certificate[0]))
	ampersand := strings.ReplaceAll(onePEM, "%2B", "+") // as AWS writes it
	xfcc := func(value string) string { return `By=spiffe://a/b;Hash=00;Subject="CN=\"x\", O=y";` + value }
	// Envoy writes the URI of a certificate without quotes.
	injecting := certtest.SelfSigned(func(c *x509.Certificate) { c.URIs = []*url.URL{{Opaque: "x,Cert=" + onePEM, Scheme: "a"}} })
	injectingDNS := certtest.SelfSigned(func(c *x509.Certificate) { c.DNSNames = []string{"x,Cert=" + onePEM} })
	element := func(c tls.Certificate, pair string) string {
		return xfcc(`Cert="` + url.PathEscape(certtest.PEM(c.Certificate[0])) + `";Subject="CN=a";` + pair)
	}
	uriPair, dnsPair := "URI=a:x,Cert="+onePEM, "DNS=x,Cert="+onePEM
	const fails = "fails"
	chains := map[string][]*x509.Certificate{"single": certtest.Chain(single), "deep": certtest.Chain(deep), "": nil}
	for name, test := range map[string]struct {
		form       peercert.Form
		value      string
		more, want string
	}{
		"RFC 9440":                        {peercert.RFC9440, one, "", "single"},
		"RFC 9440, chain":                 {peercert.RFC9440, leaf, more, "deep"},
		"RFC 9440, empty":                 {peercert.RFC9440, "", "", ""},
		"RFC 9440, chain alone":           {peercert.RFC9440, "", more, fails},
		"RFC 9440, no colons":             {peercert.RFC9440, oneDER, "", fails},
		"RFC 9440, one colon":             {peercert.RFC9440, ":", "", fails},
		"RFC 9440, list":                  {peercert.RFC9440, one + "," + one, "", fails},
		"RFC 9440, parameter":             {peercert.RFC9440, one + ";a=1", "", fails},
		"RFC 9440, base64url":             {peercert.RFC9440, ":_-__:", "", fails},
		"RFC 9440, empty bytes":           {peercert.RFC9440, "::", "", fails},
		"RFC 9440, not a certificate":     {peercert.RFC9440, ":AAAA:", "", fails},
		"RFC 9440, malformed chain":       {peercert.RFC9440, leaf, more + ",", fails},
		"RFC 9440, chain of many":         {peercert.RFC9440, one, strings.Repeat(one+",", 6) + one, fails},
		"XFCC":                            {peercert.XFCC, xfcc(`Cert="` + onePEM + `"`), "", "single"},
		"XFCC without quotes":             {peercert.XFCC, xfcc(`cert=` + onePEM), "", "single"},
		"XFCC, chain":                     {peercert.XFCC, xfcc(`Cert="` + leafPEM + `";Chain="` + deepPEM + `"`), "", "deep"},
		"XFCC, chain alone":               {peercert.XFCC, xfcc(`Chain="` + deepPEM + `"`), "", "deep"},
		"XFCC, the last counts":           {peercert.XFCC, `Cert="` + otherPEM + `",` + xfcc(`Cert="`+onePEM+`"`), "", "single"},
		"XFCC, empty":                     {peercert.XFCC, "", "", ""},
		"XFCC without certificate":        {peercert.XFCC, xfcc(`URI=spiffe://a/c`), "", fails},
		"XFCC, last without certificate":  {peercert.XFCC, `Cert="` + onePEM + `",` + xfcc(`URI=x`), "", fails},
		"XFCC, empty certificate":         {peercert.XFCC, xfcc(`Cert=""`), "", fails},
		"XFCC, certificate twice":         {peercert.XFCC, xfcc(`Cert="` + onePEM + `";Cert="` + otherPEM + `"`), "", fails},
		"XFCC, chain of another":          {peercert.XFCC, xfcc(`Cert="` + otherPEM + `";Chain="` + deepPEM + `"`), "", fails},
		"XFCC, chain in certificate":      {peercert.XFCC, xfcc(`Cert="` + deepPEM + `"`), "", fails},
		"XFCC, open quote of the client":  {peercert.XFCC, `X=",` + xfcc(`Cert="`+onePEM+`"`), "", fails},
		"XFCC, quote and subject":         {peercert.XFCC, `X=",By=a;Cert="` + onePEM + `";Subject="CN=\",Cert=` + otherPEM + `"`, "", fails},
		"XFCC, element in a URI":          {peercert.XFCC, element(injecting, uriPair), "", fails},
		"XFCC, element in a DNS name":     {peercert.XFCC, element(injectingDNS, dnsPair), "", fails},
		"XFCC, element in a URI, quotes":  {peercert.XFCC, `By="x,` + element(injecting, `URI=x",Cert=`+onePEM), "", fails},
		"XFCC, proxies without Cert":      {peercert.XFCC, xfcc(`URI=spiffe://a/c`) + "," + xfcc(`Cert="`+onePEM+`"`), "", "single"},
		"XFCC, blanks of the client":      {peercert.XFCC, `Cert="%20",` + xfcc(`Cert="`+onePEM+`"`), "", "single"},
		"XFCC, blanks":                    {peercert.XFCC, xfcc(`Cert="%20"`), "", fails},
		"XFCC, comma at the end":          {peercert.XFCC, xfcc(`Cert="`+onePEM+`"`) + ",", "", fails},
		"XFCC, no pairs":                  {peercert.XFCC, "x", "", fails},
		"escaped PEM":                     {peercert.EscapedPEM, onePEM, "", "single"},
		"escaped PEM with plus signs":     {peercert.EscapedPEM, ampersand, "", "single"},
		"escaped PEM, chain":              {peercert.EscapedPEM, deepPEM, "", "deep"},
		"escaped PEM, empty":              {peercert.EscapedPEM, " ", "", ""},
		"escaped PEM, bad escape":         {peercert.EscapedPEM, onePEM + "%zz", "", fails},
		"escaped PEM, text after it":      {peercert.EscapedPEM, onePEM + "x", "", fails},
		"escaped PEM of a key":            {peercert.EscapedPEM, url.PathEscape(certtest.KeyPEM(single)), "", fails},
		"escaped PEM, text":               {peercert.EscapedPEM, "orders", "", fails},
		"base64":                          {peercert.Base64DER, oneDER, "", "single"},
		"base64, empty":                   {peercert.Base64DER, "", "", ""},
		"base64, trailing data":           {peercert.Base64DER, base64.StdEncoding.EncodeToString(append(slices.Clone(single.Certificate[0]), 0)), "", fails},
		"base64, line break":              {peercert.Base64DER, oneDER[:64] + "\n" + oneDER[64:], "", fails},
		"base64, text":                    {peercert.Base64DER, "orders", "", fails},
		"too long":                        {peercert.Base64DER, strings.Repeat("A", 12<<10+4), "", fails},
		"a chain that is too long, as it": {peercert.EscapedPEM, strings.Repeat("A", 13<<10), "", fails},
		"a form that does not exist":      {"x", oneDER, "", fails},
	} {
		all := map[string][]string{"Client-Cert": {test.value}}
		if test.more != "" {
			all["Client-Cert-Chain"] = []string{test.more}
		}
		got, err := resolve(peercert.Header{Name: "Client-Cert", Form: test.form}, proxy, nil, all)
		switch {
		case (err != nil) != (test.want == fails):
			t.Errorf("%s: got %v", name, err)
		case err != nil && (oauth.From(err).Code != oauth.InvalidRequest || strings.Contains(err.Error(), "orders")):
			t.Errorf("%s: got %v", name, err)
		case err == nil && !slices.EqualFunc(got, chains[test.want], (*x509.Certificate).Equal):
			t.Errorf("%s: got %d certificates", name, len(got))
		}
	}
}

// TestResolve says whose certificate counts: that of the connection, or the forwarded one.
func TestResolve(t *testing.T) {
	root := certtest.NewAuthority()
	own, forwarded := certtest.Chain(root.Sign()), root.Sign()
	value := base64.StdEncoding.EncodeToString(forwarded.Certificate[0])
	header := peercert.Header{Name: "X-Cert", Form: peercert.Base64DER}
	theirs := certtest.Chain(forwarded)
	for name, test := range map[string]struct {
		header peercert.Header
		end    net.Addr
		own    []*x509.Certificate
		values []string
		want   []*x509.Certificate
	}{
		"of the connection":                {peercert.Header{}, stranger, own, nil, own},
		"of the connection, header sent":   {peercert.Header{}, proxy, own, []string{value}, own},
		"forwarded":                        {header, proxy, own, []string{value}, theirs},
		"forwarded in plaintext":           {header, proxy, nil, []string{value}, theirs},
		"the proxy's is not the client's":  {header, proxy, own, nil, nil},
		"an empty header":                  {header, proxy, own, []string{""}, nil},
		"plaintext without a header":       {header, proxy, nil, nil, nil},
		"forged by a stranger":             {header, stranger, own, []string{value}, own},
		"forged by a stranger, plaintext":  {header, stranger, nil, []string{value}, nil},
		"forged, twice":                    {header, stranger, own, []string{value, "x"}, own},
		"a malformed one is not looked at": {header, stranger, own, []string{"x"}, own},
		"through a proxy, no header set":   {peercert.Header{}, proxy, own, nil, nil},
		"through a stranger":               {peercert.Header{}, stranger, own, nil, own},
	} {
		all := map[string][]string{"X-Cert": test.values}
		if strings.HasPrefix(name, "through") {
			all["X-Forwarded-For"] = []string{"192.0.2.9"}
		}
		got, err := resolve(test.header, test.end, test.own, all)
		if err != nil || !slices.EqualFunc(got, test.want, (*x509.Certificate).Equal) {
			t.Errorf("%s: got %d certificates, %v", name, len(got), err)
		}
	}
	if _, err := resolve(header, proxy, own, map[string][]string{"X-Cert": {value, value}}); oauth.From(err).Code != oauth.InvalidRequest {
		t.Errorf("sent twice: got %v", err)
	}
	if got := peercert.FromContext(t.Context()); got != nil {
		t.Errorf("without a peer: got %v", got)
	}
}

func FuzzHeader(f *testing.F) {
	c := certtest.NewAuthority().Sign()
	one, _, escaped, der := encodings(c)
	f.Add(one)
	f.Add(`By=x;Cert="` + escaped + `"`)
	f.Add(der)
	f.Fuzz(func(t *testing.T, value string) {
		for _, form := range peercert.Forms() {
			chain, err := resolve(peercert.Header{Name: "X-Cert", Form: peercert.Form(form)}, proxy, nil, map[string][]string{"X-Cert": {value}})
			if err != nil && len(chain) > 0 || err == nil && len(chain) > 6 {
				t.Errorf("%s: got %d certificates and %v", form, len(chain), err)
			}
		}
	})
}
