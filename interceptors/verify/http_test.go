package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

func serve(handler http.Handler, request *http.Request) *http.Response {
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder.Result()
}

func TestHTTP(t *testing.T) {
	signer := newSigner()
	good := must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	expired := must.Get(signer.Sign(claims(testIssuer, "orders.read", func(c *token.Claims) { c.ExpiresAt = time.Now().Add(-time.Second) })))
	const (
		required = "A bearer token is required."
		notValid = "The access token is not valid here."
		badToken = `Bearer error="invalid_token"`
	)
	reader := verify.Scopes("orders.read")
	tests := map[string]struct {
		rule      verify.Rule
		header    []string
		status    int
		body      string // the caller that the handler saw, or error and error_description
		challenge string
	}{
		"good":            {reader, []string{"Bearer " + good}, 200, "billing", ""},
		"other case":      {reader, []string{"bEARER " + good}, 200, "billing", ""},
		"authenticated":   {verify.Authenticated(), []string{"Bearer " + good}, 200, "billing", ""},
		"public":          {verify.Public(), nil, 200, "nobody", ""},
		"public, garbage": {verify.Public(), []string{"Bearer x"}, 200, "nobody", ""},
		"public, token":   {verify.Public(), []string{"Bearer " + good}, 200, "nobody", ""},
		"none":            {reader, nil, 401, "invalid_token: " + required, "Bearer"},
		"Basic":           {reader, []string{"Basic eDp5"}, 401, "invalid_token: " + required, "Bearer"},
		"garbage":         {reader, []string{"Bearer x"}, 401, "invalid_token: " + notValid, badToken},
		"a tab":           {reader, []string{"Bearer \t" + good}, 401, "invalid_token: " + notValid, badToken},
		"a line break":    {reader, []string{"Bearer " + good[:40] + "\n" + good[40:]}, 401, "invalid_token: " + notValid, badToken},
		"oversize":        {reader, []string{"Bearer " + strings.Repeat("a", token.MaxSize+1)}, 401, "invalid_token: " + notValid, badToken},
		"expired":         {reader, []string{"Bearer " + expired}, 401, "invalid_token: " + notValid, badToken},
		"two headers":     {reader, []string{"Bearer " + good, "Bearer " + good}, 401, "invalid_token: " + notValid, badToken},
		"other scope": {
			verify.Scopes("orders.read", "orders.write"), []string{"Bearer " + good}, 403,
			"insufficient_scope: The access token lacks the scope: orders.read orders.write",
			`Bearer error="insufficient_scope", scope="orders.read orders.write"`,
		},
	}
	verifier := newVerifier(signer)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			handler := verify.HTTP(verifier, test.rule)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte(callerName(r.Context()).GetValue()))
			}))
			// A token in the query or in the form is ignored (RFC 6750 §5.3).
			form := strings.NewReader(url.Values{"access_token": {good}}.Encode())
			request := httptest.NewRequest(http.MethodPost, "/orders?access_token="+good, form)
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			request.Header["Authorization"] = test.header
			answer := serve(handler, request)
			if answer.StatusCode != test.status {
				t.Errorf("status: got %d, want %d", answer.StatusCode, test.status)
			}
			if got := answer.Header.Get("WWW-Authenticate"); got != test.challenge {
				t.Errorf("challenge: got %q, want %q", got, test.challenge)
			}
			if got := body(answer); got != test.body {
				t.Errorf("body: got %q, want %q", got, test.body)
			}
			checkSame(t, verifier, test.rule, request, answer)
		})
	}
}

// body returns the text of a handler, or the content of a refusal after checking its form.
func body(answer *http.Response) string {
	if answer.StatusCode == http.StatusOK {
		var text [64]byte
		n, _ := answer.Body.Read(text[:])
		return string(text[:n])
	}
	if answer.Header.Get("Content-Type") != "application/json" || answer.Header.Get("Cache-Control") != "no-store" {
		return "wrong headers"
	}
	refusal := map[string]string{}
	if err := json.NewDecoder(answer.Body).Decode(&refusal); err != nil || len(refusal) != 2 {
		return "no refusal"
	}
	return refusal["error"] + ": " + refusal["error_description"]
}

func TestHTTPKeysAway(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	var seen string
	verifier := startVerifier(shortContext(t), t, i.url, verify.HTTPClient(i.client),
		verify.OnRefusal(func(_ context.Context, method string, err error) {
			if errors.Is(err, token.ErrNoKeys) {
				seen = method
			}
		}))
	request := httptest.NewRequest(http.MethodGet, "/orders/1?x=y", nil)
	request.Header.Set("Authorization", "Bearer "+must.Get(i.Sign(claims(i.url, ""))))
	answer := serve(verify.HTTP(verifier, verify.Authenticated())(http.NotFoundHandler()), request)
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") != "5" || answer.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("got %d, %v, want 503 with Retry-After and no challenge", answer.StatusCode, answer.Header)
	}
	if got, want := body(answer), "temporarily_unavailable: The issuer's keys are not available; try again later."; got != want {
		t.Errorf("body: got %q, want %q", got, want)
	}
	if seen != "GET /orders/1" {
		t.Errorf("OnRefusal: got %q, want the method and path", seen)
	}
}

func TestHTTPMalformedRule(t *testing.T) {
	for name, rule := range map[string]verify.Rule{"zero": {}, "no scopes": verify.Scopes(), "malformed": verify.Scopes(`a"b`)} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("HTTP returned middleware for a malformed rule")
				}
			}()
			verify.HTTP(newVerifier(newSigner()), rule)
		})
	}
}

// The name of the scheme has no letter case in ASCII, and no other letters fold to it.
func TestBearerScheme(t *testing.T) {
	signer := newSigner()
	verifier := newVerifier(signer)
	raw := must.Get(signer.Sign(claims(testIssuer, "")))
	for scheme, want := range map[string]int{
		"BEARER": 200, "bearer": 200, "bEaReR": 200,
		"Béarer": 401, "Bearer\u212a": 401, "\u017fearer": 401, "Bearer\u0131": 401, "B\u0435arer": 401, "Bearer:": 401, "": 401, "DPoP": 401, "To\u212aen": 401, "Ba\u017fic": 401,
	} {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Header["Authorization"] = []string{scheme + " " + raw}
		handler := verify.HTTP(verifier, verify.Authenticated())(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		if got := serve(handler, request).StatusCode; got != want {
			t.Errorf("%q: got %d, want %d", scheme, got, want)
		}
	}
}
