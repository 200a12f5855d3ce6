package secretvar_test

import (
	"context"
	"fmt"
	"net/http"

	_ "gocloud.dev/runtimevar/filevar" // for URLs that begin with file://

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/secretvar"
)

// Another driver and URL read the secret from elsewhere.
func Example() {
	variable, err := secretvar.Open(context.Background(), "file:///run/secrets/background-service")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = variable.Close() }()

	source := attach.ClientCredentials("https://auth.example.com", "background-service", "",
		attach.SecretFunc(variable.Secret), attach.Scopes("api1"))
	client := &http.Client{Transport: source}
	_ = client

	fmt.Println(variable)
	// Output: secretvar.Variable("file:///run/secrets/background-service")
}
