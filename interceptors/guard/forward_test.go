package guard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// loopback trusts the address of httptest's requests, and that of real ones in tests.
var loopback = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("127.0.0.0/8")}

func forwardAuth(t testing.TB, g *guard.Guard, headers guard.ForwardHeaders) http.Handler {
	t.Helper()
	return must.Get(guard.ForwardAuth(g, guard.ForwardConfig{Headers: headers, Proxies: loopback}))
}

// ask sends a subrequest with the headers, of which each is "Name: value", and returns the response.
func ask(handler http.Handler, headers ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	return recorder.Result()
}

// answer describes a response: its status, and the reason of a refusal.
func answer(t *testing.T, response *http.Response) string {
	t.Helper()
	defer func() { _ = response.Body.Close() }()
	text := fmt.Sprint(response.StatusCode)
	if response.StatusCode != http.StatusOK {
		var body struct {
			Error string `json:"error"`
		}
		must.Succeed(t, json.NewDecoder(response.Body).Decode(&body))
		text += " " + body.Error
	}
	return text
}

func described(set, method, proto, host, uri string) []string {
	return []string{"X-" + set + "-Method: " + method, "X-" + set + "-Proto: " + proto, "X-" + set + "-Host: " + host, "X-" + set + "-Uri: " + uri}
}

// TestForwardAuth asks by both sets of headers.
func TestForwardAuth(t *testing.T) {
	reader := "Authorization: Bearer " + newToken("orders.read")
	g := newGuard(t, guard.Config{})
	for headers, sets := range map[guard.ForwardHeaders][2]string{guard.XForwarded: {"Forwarded", "Original"}, guard.XOriginal: {"Original", "Forwarded"}} {
		set, other := sets[0], sets[1]
		handler := forwardAuth(t, g, headers)
		order := described(set, "GET", "https", "orders.example.com", "/orders/1?x=y")
		public := described(set, "GET", "https", "orders.example.com", "/public")
		for name, test := range map[string]struct {
			headers []string
			want    string
		}{
			"a token":                  {append(order, reader), "200"},
			"public":                   {public, "200"},
			"HEAD":                     {described(set, "HEAD", "http", "h", "/public"), "200"},
			"WebSocket":                {described(set, "GET", "wss", "h", "/public"), "200"},
			"no token":                 {order, "401 invalid_token"},
			"two tokens":               {append(order, reader, reader), "401 invalid_token"},
			"another scope":            {append(described(set, "POST", "https", "h", "/orders"), reader), "403 insufficient_scope"},
			"no rule":                  {described(set, "GET", "https", "h", "/nothing"), "403 no_rule"},
			"an ambiguous path":        {described(set, "GET", "https", "h", "/public/..%2forders"), "403 ambiguous_request"},
			"the other set":            {described(other, "GET", "https", "h", "/public"), "403 ambiguous_request"},
			"the other set as well":    {append(described(other, "GET", "https", "h", "/public"), order...), "401 invalid_token"},
			"no method":                {public[1:], "403 ambiguous_request"},
			"no scheme":                {append(public[2:], public[0]), "403 ambiguous_request"},
			"no host":                  {append(public[3:], public[:2]...), "403 ambiguous_request"},
			"no path":                  {public[:3], "403 ambiguous_request"},
			"an empty path":            {described(set, "GET", "https", "h", ""), "403 ambiguous_request"},
			"two paths":                {append(public, "X-"+set+"-Uri: /public"), "403 ambiguous_request"},
			"two hosts":                {append(public, "X-"+set+"-Host: h"), "403 ambiguous_request"},
			"two methods":              {append(public, "X-"+set+"-Method: GET"), "403 ambiguous_request"},
			"two schemes":              {append(public, "X-"+set+"-Proto: https"), "403 ambiguous_request"},
			"two schemes in one":       {described(set, "GET", "https, http", "h", "/public"), "403 ambiguous_request"},
			"an unknown scheme":        {described(set, "GET", "ftp", "h", "/public"), "403 ambiguous_request"},
			"two hosts in one":         {described(set, "GET", "https", "h, i", "/public"), "403 ambiguous_request"},
			"an absolute URI":          {described(set, "GET", "https", "h", "http://h/public"), "403 ambiguous_request"},
			"a method override":        {append(public, "X-HTTP-Method-Override: DELETE"), "403 ambiguous_request"},
			"another URL":              {append(public, "X-Original-URL: /orders/1"), "403 ambiguous_request"},
			"an imitation":             {append(public, "X-Grantor-Client-Id: root", "x-grantor-client-id: root"), "200"},
			"an imitation, underscore": {append(public, "X_Grantor_Client_Id: root"), "403 ambiguous_request"},
			"an imitation, dot":        {append(order, reader, "X-Grantor.Scopes: all"), "403 ambiguous_request"},
			"a token in the query":     {described(set, "GET", "https", "h", "/orders/1?access_token="+reader[22:]), "401 invalid_token"},
		} {
			response := ask(handler, test.headers...)
			id, scopes := response.Header.Values("X-Grantor-Client-Id"), response.Header.Values("X-Grantor-Scopes")
			if got := answer(t, response); got != test.want {
				t.Errorf("%s: %s: got %s, want %s", headers, name, got, test.want)
			}
			if name == "a token" && (len(id) != 1 || id[0] != "billing" || len(scopes) != 1 || scopes[0] != "orders.read") ||
				name != "a token" && len(id)+len(scopes) > 0 {
				t.Errorf("%s: %s: the client %q, the scopes %q", headers, name, id, scopes)
			}
			if challenged := response.Header.Get("WWW-Authenticate") != ""; challenged != (response.StatusCode == http.StatusUnauthorized || name == "another scope") {
				t.Errorf("%s: %s: got the challenge %q", headers, name, response.Header.Get("WWW-Authenticate"))
			}
		}
	}
}

// TestUntrustedProxy checks that headers of others are not believed, and that such questions are counted.
func TestUntrustedProxy(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	var causes []string
	g := newGuard(t, guard.Config{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), OnRefusal: func(_ context.Context, _ *guard.Request, r *verify.Refusal) {
		causes = append(causes, guard.Reason(r.Cause))
	}})
	handler := must.Get(guard.ForwardAuth(g, guard.ForwardConfig{Headers: guard.XForwarded, Proxies: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"),
	}}))
	for address, want := range map[string]string{
		"10.1.2.3:4": "200", "[::ffff:10.1.2.3]:4": "200", "[2001:db8::1]:4": "200", "[2001:db8::1%eth0]:4": "200",
		"11.0.0.1:4": "403 untrusted_proxy", "[::1]:4": "403 untrusted_proxy", "": "403 untrusted_proxy", "10.1.2.3": "403 untrusted_proxy",
		"x:4": "403 untrusted_proxy", "@": "403 untrusted_proxy",
	} {
		r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
		r.RemoteAddr = address
		for _, h := range append(described("Forwarded", "GET", "https", "h", "/public"), "X-Forwarded-For: 10.0.0.1") {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, r)
		if got := answer(t, recorder.Result()); got != want {
			t.Errorf("%q: got %s, want %s", address, got, want)
		}
	}
	var data metricdata.ResourceMetrics
	must.Succeed(t, reader.Collect(t.Context(), &data))
	got := map[string]int64{}
	for _, point := range data.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64]).DataPoints {
		reason, _ := point.Attributes.Value("reason")
		wire, _ := point.Attributes.Value("wire")
		got[reason.AsString()+" "+wire.AsString()] = point.Value
	}
	if want := map[string]int64{"untrusted_proxy forward_auth": 6, " forward_auth": 4}; !maps.Equal(got, want) || len(causes) != 6 {
		t.Errorf("counted %v and reported %q, want %v", got, causes, want)
	}
}

// TestForwardConfig checks that what is missing is an error.
func TestForwardConfig(t *testing.T) {
	g := newGuard(t, guard.Config{})
	for _, test := range []struct {
		guard  *guard.Guard
		config guard.ForwardConfig
	}{
		{nil, guard.ForwardConfig{Headers: guard.XForwarded, Proxies: loopback}},
		{g, guard.ForwardConfig{Headers: guard.XForwarded}},
		{g, guard.ForwardConfig{Proxies: loopback}},
		{g, guard.ForwardConfig{Headers: "X-Forwarded", Proxies: loopback}},
	} {
		if handler, err := guard.ForwardAuth(test.guard, test.config); err == nil || handler != nil {
			t.Errorf("%+v: got no error", test.config)
		}
	}
}

// TestForwardNonce checks that a client gets the nonce for its next proof, whether its request was admitted or refused.
func TestForwardNonce(t *testing.T) {
	prover := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	raw := newToken("orders.read", func(c *token.Claims) { c.Confirmation.KeyThumbprint = prover.Thumbprint() })
	handler := forwardAuth(t, newGuard(t, guard.Config{}, verify.RequireDPoPNonce(nil)), guard.XForwarded)
	nonce := ""
	for _, want := range []string{"401 use_dpop_nonce", "200"} {
		proof := must.Get(prover.Sign(dpop.Claims{Method: "GET", URL: "https://orders.example.com/orders/1", Token: raw, Time: time.Now(), Nonce: nonce}))
		response := ask(handler, append(described("Forwarded", "GET", "https", "orders.example.com", "/orders/1"), "Authorization: DPoP "+raw, "DPoP: "+proof)...)
		if got := answer(t, response); got != want {
			t.Errorf("with the nonce %q: got %s, want %s", nonce, got, want)
		}
		nonce = response.Header.Get("DPoP-Nonce")
		if want != "200" && nonce == "" {
			t.Error("no nonce")
		}
	}
}

// TestForwardBody sends bodies that are announced and never come, and large ones, to a real server: the response must come at
// once.
func TestForwardBody(t *testing.T) {
	server := httptest.NewServer(forwardAuth(t, newGuard(t, guard.Config{}), guard.XForwarded))
	defer server.Close()
	head := strings.Join(described("Forwarded", "GET", "https", "h", "/public"), "\r\n") + "\r\n"
	for name, test := range map[string]struct{ head, body, want string }{
		"no body":           {head, "", "200 OK"},
		"a body":            {head + "Content-Length: 4\r\n", "body", "200 OK"},
		"no body after all": {head + "Content-Length: 10\r\n", "", "200 OK"},
		"a large body":      {head + "Content-Length: 10000000\r\n", strings.Repeat("a", 100_000), "200 OK"},
		"no chunks":         {head + "Transfer-Encoding: chunked\r\n", "", "200 OK"},
		"refused":           {"Content-Length: 10\r\n", "", "403 Forbidden"},
	} {
		conn := must.Get(net.Dial("tcp", server.Listener.Addr().String()))
		must.Succeed(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err := io.WriteString(conn, "POST /authorize HTTP/1.1\r\nHost: guard\r\n"+test.head+"\r\n"+test.body)
		must.Succeed(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.Status != test.want {
			t.Errorf("%s: got %v, %v, want %s", name, response, err, test.want)
		}
		_ = conn.Close()
	}
}
