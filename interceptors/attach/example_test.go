package attach_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/oauth"
)

// One source serves every call of the program.
func Example() {
	source := attach.ClientCredentials("https://auth.example.com", "background-service", "",
		attach.SecretFile("/run/secrets/background-service"), attach.Scopes("api1"))

	// gRPC: every call on the connection carries the token, over TLS.
	conn, err := grpc.NewClient("orders.example.com:443", attach.DialOptions(source)...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()

	// HTTP: every request of the client carries the same token.
	client := &http.Client{Transport: source}
	_ = client

	fmt.Println("nothing is sent before the first call")
	// Output: nothing is sent before the first call
}

func ExampleClientCredentials() {
	issuer := exampleIssuer()
	defer issuer.Close()

	source := attach.ClientCredentials(issuer.URL, "background-service", "service-secret-here", attach.Scopes("api1"))
	token, err := source.TokenContext(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token.Type(), token.AccessToken)
	// Output: Bearer eyJhbGciOi
}

// A source that gets tokens from Grantor over gRPC, from any of its current replicas. The calls to the orders server
// are spread over its replicas in the same way.
func ExampleIssuerDialOptions() {
	issuer, err := grpc.NewClient("grantor.internal:8081", attach.IssuerDialOptions()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = issuer.Close() }()
	source := attach.ClientCredentials("https://auth.example.com", "background-service", "",
		attach.SecretFile("/run/secrets/background-service"), attach.OverGRPC(issuer))
	orders, err := grpc.NewClient("orders.internal:443", attach.DialOptions(source, attach.AcrossReplicas("orders.v1.Orders"))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = orders.Close() }()
	fmt.Println(issuer.CanonicalTarget())
	fmt.Println(orders.CanonicalTarget())
	// Output:
	// dns:///grantor.internal:8081
	// dns:///orders.internal:443
}

// A secret that is replaced in its file, such as a mounted one, is used from the next token request on.
func ExampleSecretFile() {
	issuer := exampleIssuer()
	defer issuer.Close()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "background-service")
	if err := os.WriteFile(path, []byte("service-secret-here\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	source := attach.ClientCredentials(issuer.URL, "background-service", "", attach.SecretFile(path))
	token, err := source.Token()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token.Type())
	// Output: Bearer
}

// A function gets the secret from wherever it is kept. A function that makes network requests should cache the secret,
// so that tokens can be issued during an outage of its source.
func ExampleSecretFunc() {
	issuer := exampleIssuer()
	defer issuer.Close()
	vault := func(ctx context.Context, name string) (string, error) { return "service-secret-here", ctx.Err() }

	source := attach.ClientCredentials(issuer.URL, "background-service", "",
		attach.SecretFunc(func(ctx context.Context) (string, error) { return vault(ctx, "background-service") }))
	token, err := source.Token()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token.Type())
	// Output: Bearer
}

func ExampleSource_RoundTrip() {
	issuer := exampleIssuer()
	defer issuer.Close()
	orders := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "You sent ", r.Header.Get("Authorization"))
	}))
	defer orders.Close()

	client := &http.Client{
		Transport: attach.ClientCredentials(issuer.URL, "background-service", "service-secret-here"),
	}
	answer, err := client.Get(orders.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(os.Stdout, answer.Body)
	// Output: You sent Bearer eyJhbGciOi
}

// Without TLS, a token is sent to a loopback address only.
func ExampleDialOptions_loopback() {
	source := attach.ClientCredentials("http://localhost:8080", "background-service", "service-secret-here")
	conn, err := grpc.NewClient("localhost:8081", attach.DialOptions(source,
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(conn.Target(), conn.Close())
	// Output: localhost:8081 <nil>
}

func ExampleError() {
	source := attach.ClientCredentials("http://auth.example.com", "background-service", "service-secret-here")
	_, err := source.Token()

	var refusal *attach.Error
	if errors.As(err, &refusal) && refusal.Code == oauth.InvalidClient {
		fmt.Println("the secret is wrong")
	}
	fmt.Println(err)
	// Output: attach: no access token: the issuer: "http://auth.example.com" is neither https nor loopback
}

func exampleIssuer() *httptest.Server {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == oauth.WellKnownServer {
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q}`, server.URL, server.URL+"/connect/token")
			return
		}
		_, _ = fmt.Fprint(w, `{"access_token":"eyJhbGciOi","token_type":"Bearer","expires_in":3600}`)
	}))
	return server
}
