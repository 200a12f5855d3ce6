package tokentest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/tokentest"
)

// A client and an API, each with the code that it has in production, and an issuer that lives as long as the test.
func Example() {
	t := &exampleT{} // in a test, its argument
	defer t.cleanup()
	issuer := tokentest.New(t)
	issuer.AddClient(t, "background-service", "https://orders.internal", "orders.read")

	verifier, err := verify.New(context.Background(), issuer.URL,
		verify.Audience("https://orders.internal"), verify.Now(issuer.Now))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer verifier.Close()
	guard := verify.HTTP(verifier, verify.Scopes("orders.read"))
	orders := httptest.NewServer(guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		caller, _ := verify.CallerFrom(r.Context())
		fmt.Println("called by", caller.ClientID)
	})))
	defer orders.Close()

	source := attach.ClientCredentials(issuer.URL, "background-service", tokentest.Secret)
	response, err := (&http.Client{Transport: source}).Get(orders.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(response.StatusCode, response.Body.Close())
	// Output:
	// called by background-service
	// 200 <nil>
}

// Tokens that an API must refuse.
func ExampleIssuer_Sign() {
	t := &exampleT{} // in a test, its argument
	defer t.cleanup()
	issuer := tokentest.New(t)
	verifier, err := verify.New(context.Background(), issuer.URL,
		verify.Audience("https://orders.internal"), verify.Now(issuer.Now))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer verifier.Close()

	claims := map[string]any{"aud": "https://orders.internal", "scope": "orders.read"}
	fmt.Println("valid:", admits(verifier, issuer.Sign(t, claims)))
	fmt.Println("forged:", admits(verifier, issuer.Forge(t, claims)))
	claims["jti"] = nil
	fmt.Println("without jti:", admits(verifier, issuer.Sign(t, claims)))
	// Output:
	// valid: true
	// forged: false
	// without jti: false
}

// exampleT stands for the [testing.TB] that an example does not have.
type exampleT struct {
	testing.TB

	cleanups []func()
}

func (*exampleT) Helper()                  {}
func (*exampleT) Context() context.Context { return context.Background() }
func (*exampleT) Logf(string, ...any)      {}
func (*exampleT) Fatal(args ...any)        { panic(fmt.Sprint(args...)) }
func (e *exampleT) Cleanup(f func())       { e.cleanups = append(e.cleanups, f) }

func (e *exampleT) cleanup() {
	for i := len(e.cleanups) - 1; i >= 0; i-- {
		e.cleanups[i]()
	}
	e.cleanups = nil
}
