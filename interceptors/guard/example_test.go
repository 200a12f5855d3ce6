package guard_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/interceptors/verify"
)

func Example() {
	table, err := guard.NewTable([]guard.Route{
		{Path: "/orders/{id}", Methods: []string{"GET"}, Rule: verify.Scopes("orders.read")},
		{Path: "/orders.v1.Orders/Get", Methods: []string{"POST"}, Rule: verify.Scopes("orders.read")},
		{Path: "/healthz", Rule: verify.Public()},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// The verifier and the token are made for the example: a program calls verify.New.
	g, err := guard.New(newVerifier(), table, guard.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	token := "Bearer " + newToken("orders.read")
	for _, path := range []string{"/orders/7?expand=items", "/healthz", "/orders/7/items", "/orders/%2e%2e/admin"} {
		d := g.Decide(context.Background(), &guard.Request{
			Method: "GET", Scheme: "https", Host: "orders.example.com", Path: path,
			Header: func(yield func(name, value string) bool) { yield("authorization", token) },
		})
		if d.Refusal != nil {
			fmt.Println(path, d.Refusal.Status, d.Refusal.Reason)
			continue
		}
		fmt.Println(path, d.Set)
	}
	// Output:
	// /orders/7?expand=items [{x-grantor-client-id billing} {x-grantor-scopes orders.read}]
	// /healthz []
	// /orders/7/items 403 no_rule
	// /orders/%2e%2e/admin 403 ambiguous_request
}

func ExampleNewTable_overlap() {
	_, err := guard.NewTable([]guard.Route{
		{Path: "/orders/{id}", Rule: verify.Scopes("orders.read"), Source: "rules.yaml:2"},
		{Path: "/{kind}/export", Rule: verify.Scopes("export"), Source: "rules.yaml:5"},
	})
	fmt.Println(err)
	// Output:
	// rules.yaml:2 and rules.yaml:5 disagree about GET /orders/export: scopes orders.read, but scopes export
}

func ExampleForwardAuth() {
	table, err := guard.NewTable([]guard.Route{{Path: "/orders/{id}", Rule: verify.Scopes("orders.read")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err := guard.New(newVerifier(), table, guard.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	authorize, err := guard.ForwardAuth(g, guard.ForwardConfig{
		Headers: guard.XForwarded, Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// What Traefik and Caddy ask about a request of their client.
	subrequest := httptest.NewRequest(http.MethodGet, "/authorize", nil)
	subrequest.Header.Set("X-Forwarded-Method", "GET")
	subrequest.Header.Set("X-Forwarded-Proto", "https")
	subrequest.Header.Set("X-Forwarded-Host", "orders.example.com")
	subrequest.Header.Set("X-Forwarded-Uri", "/orders/7")
	subrequest.Header.Set("Authorization", "Bearer "+newToken("orders.read"))
	response := httptest.NewRecorder()
	authorize.ServeHTTP(response, subrequest)
	fmt.Println(response.Code, response.Header().Get("X-Grantor-Client-Id"))
	// Output: 200 billing
}
