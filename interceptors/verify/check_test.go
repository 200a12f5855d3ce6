package verify_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// checkSame checks that Check decides about a request as HTTP did, whose response is answer.
func checkSame(t *testing.T, verifier *verify.Verifier, rule verify.Rule, request *http.Request, answer *http.Response) {
	t.Helper()
	_, refused := verifier.Check(t.Context(), rule, &verify.Request{
		Authorization: request.Header.Values("Authorization"), Method: request.Method, Host: request.Host, Path: request.RequestURI,
	})
	if (refused == nil) != (answer.StatusCode == http.StatusOK) {
		t.Fatalf("Check: got %+v, want as HTTP", refused)
	}
	if refused == nil {
		return
	}
	recorder := httptest.NewRecorder()
	refused.WriteHTTP(recorder)
	got := recorder.Result()
	if got.StatusCode != answer.StatusCode || strings.Join(got.Header.Values("WWW-Authenticate"), "\n") != strings.Join(answer.Header.Values("WWW-Authenticate"), "\n") {
		t.Errorf("Check: got %d %v, want %d %v", got.StatusCode, got.Header, answer.StatusCode, answer.Header)
	}
}

// TestCheck checks what Check returns and reports.
func TestCheck(t *testing.T) {
	signer := newSigner()
	var method string
	var cause error
	verifier := newVerifier(signer, verify.Audience("https://parts.internal"), verify.OnRefusal(func(_ context.Context, m string, err error) {
		method, cause = m, err
	}))
	both := must.Get(signer.Sign(claims(testIssuer, "orders.read", func(c *token.Claims) { c.Audience = append(c.Audience, "https://parts.internal") })))
	one := must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	for name, test := range map[string]struct {
		rule     verify.Rule
		raw      string
		resource string
		cause    error
		code     codes.Code
	}{
		"good":                         {rule: verify.Scopes("orders.read"), raw: one},
		"good for the resource":        {rule: verify.Scopes("orders.read"), raw: one, resource: orders},
		"good for both":                {rule: verify.Scopes("orders.read"), raw: both, resource: "https://parts.internal"},
		"for another resource":         {verify.Scopes("orders.read"), one, "https://parts.internal", token.ErrAudience, codes.Unauthenticated},
		"for an unknown resource":      {verify.Authenticated(), both, "https://else.internal", token.ErrAudience, codes.Unauthenticated},
		"public for another resource":  {rule: verify.Public(), resource: "https://else.internal"},
		"another scope":                {verify.Scopes("orders.write"), one, "", verify.ErrScope, codes.PermissionDenied},
		"no rule":                      {verify.Rule{}, one, "", verify.ErrNoRule, codes.PermissionDenied},
		"no token":                     {verify.Authenticated(), "", "", verify.ErrNoToken, codes.Unauthenticated},
		"another scope and resource":   {verify.Scopes("orders.write"), one, "https://parts.internal", token.ErrAudience, codes.Unauthenticated},
		"authenticated, any audience":  {rule: verify.Authenticated(), raw: both},
		"a token that is not a token":  {verify.Authenticated(), "x", "", token.ErrMalformed, codes.Unauthenticated},
		"a token for another audience": {verify.Authenticated(), must.Get(signer.Sign(claims(testIssuer, "", func(c *token.Claims) { c.Audience = []string{"https://else.internal"} }))), "", token.ErrAudience, codes.Unauthenticated},
	} {
		method, cause = "", nil
		request := &verify.Request{Method: "GET", Host: "orders.example.com", Path: "/orders/1?access_token=" + one, Resource: test.resource}
		if test.raw != "" {
			request.Authorization = []string{"Bearer " + test.raw}
		}
		caller, refused := verifier.Check(t.Context(), test.rule, request)
		switch {
		case test.cause == nil:
			if public := test.rule.String() == "public"; refused != nil || (caller.Claims == nil) != public || !public && caller.ClientID != "billing" || method != "" {
				t.Errorf("%s: got %+v, %+v, reported %q", name, caller, refused, method)
			}
		case refused == nil || !errors.Is(refused.Cause, test.cause) || refused.Code != test.code || caller.Claims != nil:
			t.Errorf("%s: got %+v, %+v, want %v", name, caller, refused, test.cause)
		case method != "GET /orders/1" || !errors.Is(cause, test.cause):
			t.Errorf("%s: reported %q, %v, want GET /orders/1 and %v", name, method, cause, test.cause)
		}
	}
}

// TestCheckNothing checks that Check refuses, and does not panic, where there is nothing.
func TestCheckNothing(t *testing.T) {
	good := newVerifier(newSigner())
	for name, check := range map[string]func() *verify.Refusal{
		"nil verifier": func() *verify.Refusal {
			return second((*verify.Verifier)(nil).Check(t.Context(), verify.Authenticated(), &verify.Request{}))
		},
		"zero verifier": func() *verify.Refusal {
			return second(new(verify.Verifier).Check(t.Context(), verify.Authenticated(), &verify.Request{Authorization: []string{"Bearer x"}}))
		},
		"nil request": func() *verify.Refusal { return second(good.Check(t.Context(), verify.Authenticated(), nil)) },
		"nil context": func() *verify.Refusal {
			return second(good.Check(nil, verify.Authenticated(), &verify.Request{Authorization: []string{"Bearer x.y.z"}}))
		},
		"nothing": func() *verify.Refusal { return second((*verify.Verifier)(nil).Check(nil, verify.Rule{}, nil)) },
	} {
		if refused := check(); refused == nil || refused.Cause == nil || refused.Status < 400 {
			t.Errorf("%s: got %+v, want a refusal", name, refused)
		}
	}
	if _, refused := (*verify.Verifier)(nil).Check(t.Context(), verify.Public(), nil); refused != nil {
		t.Errorf("public: got %+v", refused)
	}
}

func second(_ verify.Caller, refused *verify.Refusal) *verify.Refusal { return refused }

// TestRefusalNonce checks that the HTTP response has the nonce for the next proof and the challenges with the metadata's URL.
func TestRefusalNonce(t *testing.T) {
	signer := newSigner()
	verifier := newVerifier(signer, verify.RequireDPoPNonce(nil), verify.ResourceMetadata("https://orders.internal/.well-known/oauth-protected-resource"))
	_, refused := verifier.Check(t.Context(), verify.Scopes("orders.read"), &verify.Request{})
	if want := `Bearer scope="orders.read", resource_metadata="https://orders.internal/.well-known/oauth-protected-resource"`; refused == nil || refused.Challenges[0] != want {
		t.Errorf("got %+v, want the challenge %s", refused, want)
	}
	refused.Nonce, refused.Status = "n", http.StatusServiceUnavailable
	recorder := httptest.NewRecorder()
	refused.WriteHTTP(recorder)
	if h := recorder.Header(); h.Get("DPoP-Nonce") != "n" || h.Get("Retry-After") != "5" || len(h.Values("WWW-Authenticate")) != 2 {
		t.Errorf("got %v", h)
	}
}

// TestRuleText checks that rules which admit the same callers have the same text.
func TestRuleText(t *testing.T) {
	for want, rules := range map[string][]verify.Rule{
		"public":        {verify.Public(), verify.ProtoRule(&grantorv1.Rule{Public: true})},
		"authenticated": {verify.Authenticated(), verify.ProtoRule(&grantorv1.Rule{Authenticated: true})},
		"scopes a b":    {verify.Scopes("a", "b"), verify.Scopes("b", "a", "b"), verify.ProtoRule(&grantorv1.Rule{Scopes: []string{"b", "a"}})},
		"invalid":       {{}, verify.Scopes(), verify.ProtoRule(nil), verify.ProtoRule(&grantorv1.Rule{Public: true, Authenticated: true})},
	} {
		for _, rule := range rules {
			if got := rule.String(); got != want || (rule.Err() == nil) != (want != "invalid") {
				t.Errorf("got %q, %v, want %q", got, rule.Err(), want)
			}
		}
	}
}

// BenchmarkCheck checks a token that was seen before, for a request of a proxy.
func BenchmarkCheck(b *testing.B) {
	signer := newSigner()
	verifier, rule := newVerifier(signer), verify.Scopes("orders.read")
	request := &verify.Request{Authorization: []string{"Bearer " + newToken(signer)}, Method: "GET", Host: "orders.example.com", Path: "/orders/1"}
	ctx, end := context.WithTimeout(b.Context(), time.Hour)
	defer end()
	b.ReportAllocs()
	for b.Loop() {
		if _, refused := verifier.Check(ctx, rule, request); refused != nil {
			b.Fatal(refused.Cause)
		}
	}
}
