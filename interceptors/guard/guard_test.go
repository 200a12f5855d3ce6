package guard_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// TestDecide decides about requests. A want without a reason is an admitted request: "CLIENT SCOPES" as the upstream gets them,
// and after a minus the headers that are removed.
func TestDecide(t *testing.T) {
	reader, both := "Bearer "+newToken("orders.read"), "Bearer "+newToken("orders.read orders.write")
	expired := "Bearer " + newToken("orders.read", func(c *token.Claims) { c.ExpiresAt = time.Now().Add(-time.Second) })
	parts := "Bearer " + newToken("", func(c *token.Claims) { c.Audience = []string{"https://parts.internal"} })
	g := newGuard(t, guard.Config{}, verify.Audience("https://parts.internal"))
	for name, test := range map[string]struct {
		request *guard.Request
		want    string
	}{
		"a token":                    {get("/orders/1", "authorization", reader), "billing|orders.read"},
		"a name in another case":     {get("/orders/1", "AuThorization", reader), "billing|orders.read"},
		"a trailing slash":           {get("/orders/1/", "authorization", reader), "billing|orders.read"},
		"two scopes":                 {get("/orders/1", "authorization", both), "billing|orders.read orders.write"},
		"no scope":                   {get("/me", "authorization", parts), "billing|"},
		"the right resource":         {get("/parts", "authorization", parts), "billing|"},
		"public":                     {get("/public"), ""},
		"public with a token":        {get("/public", "authorization", "Bearer x"), ""},
		"public with many":           {get("/public", "authorization", "Bearer x", "authorization", "y"), ""},
		"HEAD":                       {&guard.Request{Method: "HEAD", Host: "h", Path: "/public"}, ""},
		"gRPC":                       {&guard.Request{Method: "POST", Host: "h:1", Path: "/orders.v1.Orders/Get", Header: pairs("authorization", reader)}, "billing|orders.read"},
		"no token":                   {get("/orders/1"), "401 invalid_token"},
		"no headers":                 {&guard.Request{Method: "GET", Host: "h", Path: "/orders/1"}, "401 invalid_token"},
		"a token in the query":       {get("/orders/1?access_token=" + reader[7:]), "401 invalid_token"},
		"an expired token":           {get("/orders/1", "authorization", expired), "401 invalid_token"},
		"two tokens":                 {get("/orders/1", "authorization", reader, "authorization", reader), "401 invalid_token"},
		"two tokens in two cases":    {get("/orders/1", "authorization", reader, "Authorization", reader), "401 invalid_token"},
		"two tokens, joined":         {get("/orders/1", "authorization", reader+","+reader), "401 invalid_token"},
		"a token and nothing":        {get("/orders/1", "authorization", reader, "authorization", ""), "401 invalid_token"},
		"a token and nothing joined": {get("/orders/1", "authorization", reader+","), "401 invalid_token"},
		"another scope":              {&guard.Request{Method: "POST", Host: "h", Path: "/orders", Header: pairs("authorization", reader)}, "403 insufficient_scope"},
		"another resource":           {get("/parts", "authorization", reader), "401 invalid_token"},
		"no rule":                    {get("/nothing", "authorization", reader), "403 no_rule"},
		"no rule for the method":     {&guard.Request{Method: "PUT", Host: "h", Path: "/public"}, "403 no_rule"},
		"an ambiguous path":          {get("/public/..%2forders/1", "authorization", reader), "403 ambiguous_request"},
		"a method override":          {get("/public", "X-HTTP-Method-Override", "DELETE"), "403 ambiguous_request"},
		"a method override, twice":   {get("/public", "x_http_method", "DELETE"), "403 ambiguous_request"},
		"a method override, dots":    {get("/public", "X.Method.Override", ""), "403 ambiguous_request"},
		"another URL":                {get("/public", "x-original-url", "/orders/1"), "403 ambiguous_request"},
		"another URL, rewritten":     {get("/public", "X-REWRITE_URL", "/orders/1"), "403 ambiguous_request"},
		"a prefix to cut off":        {get("/public", "SCRIPT_NAME", "/public"), "403 ambiguous_request"},
		"a prefix, in another form":  {get("/public", "x-script-name", "/public"), "403 ambiguous_request"},
		"another path of WSGI":       {get("/public", "Path_Info", "/orders/1"), "403 ambiguous_request"},
		"an upgrade to HTTP/2":       {get("/public", "Upgrade", "h2c"), "403 ambiguous_request"},
		"two upgrades":               {get("/public", "Upgrade", "websocket, h2c"), "403 ambiguous_request"},
		"two upgrades apart":         {get("/public", "upgrade", "websocket", "UPGRADE", "h2c"), "403 ambiguous_request"},
		"WebSocket":                  {get("/public", "Upgrade", "WebSocket"), ""},
		"no host":                    {&guard.Request{Method: "GET", Path: "/public"}, "403 ambiguous_request"},
		"no method":                  {&guard.Request{Host: "h", Path: "/public"}, "403 ambiguous_request"},
		"nothing":                    {&guard.Request{}, "403 ambiguous_request"},
		"nil":                        {nil, "403 ambiguous_request"},

		"an imitation":             {get("/orders/1", "authorization", reader, "X-Grantor-Client-Id", "root"), "billing|orders.read"},
		"an imitation, repeated":   {get("/orders/1", "authorization", reader, "x-grantor-scopes", "a", "x-grantor-scopes", "b"), "billing|orders.read"},
		"imitations by underscore": {get("/orders/1", "authorization", reader, "X_Grantor_Client_Id", "root", "x-grantor_scopes", "all"), "billing|orders.read -x_grantor_client_id -x-grantor_scopes"},
		"an imitation by dots":     {get("/orders/1", "authorization", reader, "x.grantor.client.id", "root"), "billing|orders.read -x.grantor.client.id"},
		"public, imitations":       {get("/public", "X-Grantor-Client-Id", "root", "x_GRANTOR_scopes", "all", "X-GRANTOR-CLIENT-ID", "root"), " -x-grantor-client-id -x_grantor_scopes"},
		"no imitation":             {get("/public", "x-grantor-client-ids", "root", "xgrantor-client-id", "y", "x-grantor-client-", "z"), ""},
		"an imitation by a space":  {get("/public", "x grantor client id", "root"), "403 ambiguous_request"},
		"too many imitations":      {get("/public", imitations(17)...), "403 ambiguous_request"},
		"many imitations":          {get("/public", imitations(16)...), " -" + strings.Join(slices.Collect(names(imitations(16))), " -")},
		"1000 headers":             {get("/public", slices.Repeat([]string{"x-a", "b"}, 1000)...), ""},
		"1001 headers":             {get("/public", slices.Repeat([]string{"x-a", "b"}, 1001)...), "403 ambiguous_request"},
		"1000 tokens":              {get("/orders/1", slices.Repeat([]string{"authorization", reader}, 1000)...), "401 invalid_token"},
		"a long name":              {get("/public", strings.Repeat("a", 100_000), "b"), ""},
		"no name":                  {get("/public", "", "b"), ""},
	} {
		d := g.Decide(t.Context(), test.request)
		if got := describeDecision(d); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		if d.Refusal != nil && (d.Set != nil || d.Remove != nil || d.Caller.Claims != nil || d.Refusal.Cause == nil) {
			t.Errorf("%s: a refusal with %+v", name, d)
		}
	}
}

// describeDecision describes a decision as TestDecide does.
func describeDecision(d guard.Decision) string {
	if d.Refusal != nil {
		return fmt.Sprintf("%d %s", d.Refusal.Status, d.Refusal.Reason)
	}
	text := ""
	if len(d.Set) == 2 && d.Set[0].Name == "x-grantor-client-id" && d.Set[1].Name == "x-grantor-scopes" {
		text = d.Set[0].Value + "|" + d.Set[1].Value
	} else if len(d.Set) > 0 {
		text = fmt.Sprintf("%v", d.Set)
	}
	for _, removed := range d.Remove {
		text += " -" + removed
	}
	return text
}

// imitations returns n headers with names that servers read as x-grantor-client-id, and their values.
func imitations(n int) []string {
	var all []string
	for i := range n {
		all = append(all, strings.ToLower("x"+string("!#$%&'*+.^_`|~"[i%14])+"grantor"+string("_.+"[i/14])+"client-id"), "root")
	}
	return all
}

func names(headers []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i < len(headers) && yield(headers[i]); i += 2 {
		}
	}
}

// TestHeaderNames checks the names that Config sets, and that the token is removed if it says so.
func TestHeaderNames(t *testing.T) {
	g := newGuard(t, guard.Config{ClientIDHeader: "X-Client", ScopesHeader: "x_scopes", RemoveToken: true})
	raw := "Bearer " + newToken("orders.read")
	d := g.Decide(t.Context(), get("/orders/1", "AUTHORIZATION", raw, "dpop", "", "x-scopes", "a", "X_CLIENT", "b", "x-grantor-client-id", "c"))
	want := []guard.Header{{Name: "x-client", Value: "billing"}, {Name: "x_scopes", Value: "orders.read"}}
	if d.Refusal != nil || !reflect.DeepEqual(d.Set, want) || !slices.Equal(d.Remove, []string{"x-scopes", "x_client", "authorization", "dpop"}) {
		t.Errorf("got %+v", d)
	}
	if d := g.Decide(t.Context(), get("/public", "authorization", "x")); d.Refusal != nil || !slices.Equal(d.Remove, []string{"authorization"}) {
		t.Errorf("public: got %+v", d)
	}
	for _, config := range []guard.Config{
		{ClientIDHeader: "a b"}, {ClientIDHeader: "x-é"}, {ScopesHeader: strings.Repeat("a", 64)}, {ClientIDHeader: "a", ScopesHeader: "A"},
		{ClientIDHeader: "x-a", ScopesHeader: "X_A"}, {ClientIDHeader: "Authorization"}, {ScopesHeader: "DPoP"}, {ScopesHeader: "Host"},
		{ScopesHeader: "transfer_encoding"}, {ClientIDHeader: "x-original-url"}, {ClientIDHeader: ":path"}, {ClientIDHeader: "X-Grantor-Scopes"},
	} {
		if _, err := guard.New(newVerifier(), new(guard.Table), config); err == nil {
			t.Errorf("%+v: got no error", config)
		}
	}
}

// TestClientIDCharacters checks that an id which no header can carry is refused: issuers of other products may have such.
func TestClientIDCharacters(t *testing.T) {
	g := newGuard(t, guard.Config{})
	for id, want := range map[string]string{
		"billing": "OK", "a b": "OK", "spiffe://example.org/a,b": "OK", "a\nx-grantor-scopes: all": "ambiguous_request", "a\x00": "ambiguous_request",
		"bücher": "ambiguous_request", " a": "ambiguous_request", "a ": "ambiguous_request", "a\x7f": "ambiguous_request",
	} {
		raw := newToken("", func(c *token.Claims) { c.ClientID = id })
		if got := outcome(g.Decide(t.Context(), get("/me", "authorization", "Bearer "+raw))); got != want {
			t.Errorf("%q: got %s, want %s", id, got, want)
		}
	}
}

// TestProofs checks that the certificate and the proof are those of the request of the client.
func TestProofs(t *testing.T) {
	prover := must.Get(dpop.NewSigner(jwstest.NewSigner(jwks.ES256).Private))
	raw := newToken("orders.read", func(c *token.Claims) { c.Confirmation.KeyThumbprint = prover.Thumbprint() })
	prove := func(url string) string {
		return must.Get(prover.Sign(dpop.Claims{Method: "GET", URL: url, Token: raw, Time: time.Now()}))
	}
	g := newGuard(t, guard.Config{})
	plain := get("/orders/1?x", "authorization", "DPoP "+raw, "DPoP", prove("http://orders.example.com/orders/1"))
	plain.Scheme = "http"
	ws := get("/orders/1?x", "authorization", "DPoP "+raw, "DPoP", prove("http://orders.example.com/orders/1"))
	ws.Scheme = "wss"
	used := prove("https://orders.example.com/orders/1")
	for i, test := range []struct {
		request *guard.Request
		want    string
	}{
		{get("/orders/1?x", "authorization", "DPoP "+raw, "DPoP", used), "OK"},
		{get("/orders/1?x", "authorization", "DPoP "+raw, "DPoP", used), "invalid_dpop_proof"},
		{get("/orders/2", "authorization", "DPoP "+raw, "DPoP", prove("https://orders.example.com/orders/1")), "invalid_dpop_proof"},
		{get("/orders/1", "authorization", "DPoP "+raw, "DPoP", prove("http://orders.example.com/orders/1")), "invalid_dpop_proof"},
		{get("/orders/1", "authorization", "DPoP "+raw, "dpop", prove("https://orders.example.com/orders/1"), "dpop", used), "invalid_dpop_proof"},
		{get("/orders/1", "authorization", "DPoP "+raw), "invalid_token"},
		{get("/orders/1", "authorization", "Bearer "+raw, "dpop", prove("https://orders.example.com/orders/1")), "invalid_token"},
		{plain, "OK"},
		{ws, "invalid_dpop_proof"},
	} {
		if got := outcome(g.Decide(t.Context(), test.request)); got != test.want {
			t.Errorf("%d: got %s, want %s", i, got, test.want)
		}
	}
	strict := newGuard(t, guard.Config{}, verify.RequireDPoPNonce(nil))
	d := strict.Decide(t.Context(), get("/orders/1", "authorization", "DPoP "+raw, "DPoP", prove("https://orders.example.com/orders/1")))
	if d.Refusal == nil || d.Refusal.Reason != "use_dpop_nonce" || d.Refusal.Nonce == "" {
		t.Errorf("without a nonce: got %+v", d.Refusal)
	}
}

// TestNew checks that a guard needs its parts, and that a guard without them refuses.
func TestNew(t *testing.T) {
	table := new(guard.Table)
	for _, parts := range []struct {
		verifier *verify.Verifier
		table    *guard.Table
	}{{nil, table}, {newVerifier(), nil}, {nil, nil}} {
		if _, err := guard.New(parts.verifier, parts.table, guard.Config{}); err == nil {
			t.Errorf("%+v: got no error", parts)
		}
	}
	if d := new(guard.Guard).Decide(t.Context(), get("/public")); d.Refusal == nil || d.Refusal.Status != http.StatusInternalServerError {
		t.Errorf("the zero guard: got %+v", d)
	}
}

// TestSetTable replaces the table while requests are decided.
func TestSetTable(t *testing.T) {
	g := newGuard(t, guard.Config{})
	open, closed := g.Table(), must.Get(guard.NewTable(nil))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 500 {
				if got := outcome(g.Decide(t.Context(), get("/public"))); got != "OK" && got != "no_rule" {
					t.Errorf("got %s", got)
				}
			}
		})
	}
	for range 500 {
		g.SetTable(closed)
		g.SetTable(open)
	}
	group.Wait()
	for _, table := range []*guard.Table{closed, nil} {
		g.SetTable(table)
		if got := outcome(g.Decide(t.Context(), get("/public"))); got != "no_rule" || g.Table() != table {
			t.Errorf("got %s, want no_rule", got)
		}
	}
}

// TestFaults checks that no panic of code that Decide calls leaves it, and that the request is refused unless the decision was
// made.
func TestFaults(t *testing.T) {
	observed := 0
	g := newGuard(t, guard.Config{OnRefusal: func(context.Context, *guard.Request, *verify.Refusal) { observed++; panic("observer") }, Meters: panicking{}.provider()})
	request := get("/public")
	request.Header = func(func(string, string) bool) { panic("header") }
	d := g.Decide(t.Context(), request)
	if d.Refusal == nil || d.Refusal.Code != codes.Internal || d.Refusal.Status != 500 || !errors.Is(d.Refusal.Cause, verify.ErrFault) {
		t.Errorf("a header that panics: got %+v", d.Refusal)
	}
	if d := g.Decide(t.Context(), get("/nothing")); outcome(d) != "no_rule" {
		t.Errorf("an observer that panics: got %+v", d.Refusal)
	}
	if d := g.Decide(t.Context(), get("/public")); outcome(d) != "OK" {
		t.Errorf("a meter that panics: got %+v", d.Refusal)
	}
	if d := g.Decide(nil, get("/orders/1", "authorization", "Bearer x.y.z")); outcome(d) != "invalid_token" {
		t.Errorf("no context: got %+v", d.Refusal)
	}
}

// panicking is a counter that panics for admitted requests.
type panicking struct{ metric.Int64Counter }

func (panicking) Add(_ context.Context, _ int64, options ...metric.AddOption) {
	set := metric.NewAddConfig(options).Attributes()
	if result, _ := set.Value("result"); result.AsString() == "allowed" {
		panic("counter")
	}
}

func (p panicking) provider() metric.MeterProvider { return provider{counter: p} }

type provider struct {
	metric.MeterProvider

	counter metric.Int64Counter
}

func (p provider) Meter(string, ...metric.MeterOption) metric.Meter { return meter{counter: p.counter} }

type meter struct {
	metric.Meter

	counter metric.Int64Counter
}

func (m meter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return m.counter, nil
}

// TestObservation checks what is counted and reported.
func TestObservation(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	var reported []string
	g := newGuard(t, guard.Config{
		Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
		OnRefusal: func(_ context.Context, r *guard.Request, refusal *verify.Refusal) {
			reported = append(reported, r.Method+" "+r.Path+" "+guard.Reason(refusal.Cause))
		},
	})
	raw := "Bearer " + newToken("orders.read")
	g.Decide(t.Context(), get("/orders/1", "authorization", raw))
	g.Decide(t.Context(), get("/public"))
	g.Decide(t.Context(), get("/orders/1"))
	g.Decide(t.Context(), get("/nothing"))
	g.Decide(t.Context(), get("/public//"))
	other := get("/public")
	other.Wire = "made up"
	g.Decide(t.Context(), other)
	want := []string{"GET /orders/1 no_token", "GET /nothing no_rule", "GET /public// ambiguous_request"}
	if !slices.Equal(reported, want) {
		t.Errorf("reported %q, want %q", reported, want)
	}
	var data metricdata.ResourceMetrics
	must.Succeed(t, reader.Collect(t.Context(), &data))
	counts := map[string]int64{}
	for _, m := range data.ScopeMetrics[0].Metrics {
		for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
			var labels []string
			for _, kv := range point.Attributes.ToSlice() {
				labels = append(labels, kv.Value.AsString())
			}
			counts[m.Name+" "+strings.Join(labels, " ")] = point.Value
		}
	}
	wantCounts := map[string]int64{
		"grantor.guard.checks allowed ext_authz":                   2,
		"grantor.guard.checks allowed other":                       1,
		"grantor.guard.checks no_token refused ext_authz":          1,
		"grantor.guard.checks no_rule refused ext_authz":           1,
		"grantor.guard.checks ambiguous_request refused ext_authz": 1,
	}
	if !maps.Equal(counts, wantCounts) {
		t.Errorf("counted %v, want %v", counts, wantCounts)
	}
}

// TestUnavailable checks that requests are refused with 503 while the issuer's keys are not available.
func TestUnavailable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	client := &http.Client{Transport: unreachable{}}
	verifier := must.Get(verify.New(ctx, testIssuer, verify.Audience(orders), verify.HTTPClient(client)))
	defer verifier.Close()
	g := must.Get(guard.New(verifier, must.Get(guard.NewTable(routes(testRoutes...))), guard.Config{}))
	d := g.Decide(t.Context(), get("/orders/1", "authorization", "Bearer "+newToken("orders.read")))
	if d.Refusal == nil || d.Refusal.Status != http.StatusServiceUnavailable || d.Refusal.Code != codes.Unavailable {
		t.Errorf("got %+v, want 503", d.Refusal)
	}
	if d := g.Decide(t.Context(), get("/public")); d.Refusal != nil {
		t.Errorf("public: got %+v", d.Refusal)
	}
}

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("unreachable")
}
