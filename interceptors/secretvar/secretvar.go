// Package secretvar reads a client's secret from where it is kept, named by a URL: AWS Secrets Manager, Google Cloud
// Secret Manager, Azure Key Vault, HashiCorp Vault, an HTTPS server, or a file. It adapts a variable of the Go Cloud
// Development Kit (Go CDK, https://gocloud.dev/howto/runtimevar/) to attach.SecretFunc:
//
//	import _ "gocloud.dev/runtimevar/awssecretsmanager"
//
//	variable, err := secretvar.Open(ctx, "awssecretsmanager://background-service?region=eu-central-1")
//	source := attach.ClientCredentials(issuer, "background-service", "", attach.SecretFunc(variable.Secret))
//
// The program selects the kinds of URL by importing their drivers: those of Go CDK, and two below this package.
//
//	awssecretsmanager://NAME?region=REGION               gocloud.dev/runtimevar/awssecretsmanager
//	gcpsecretmanager://projects/PROJECT/secrets/NAME     gocloud.dev/runtimevar/gcpsecretmanager
//	azurekeyvault://VAULT.vault.azure.net/secrets/NAME   .../interceptors/secretvar/azurekeyvault
//	hashivault://MOUNT/PATH?field=FIELD                  .../interceptors/secretvar/hashivault
//	https://HOST/PATH                                    gocloud.dev/runtimevar/httpvar
//	file:///PATH                                         gocloud.dev/runtimevar/filevar
//
// The package is separate from attach so that a program which does not use it compiles neither Go CDK nor the client of
// a cloud, and a program that follows a secret in one store compiles no other store's client.
package secretvar

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"gocloud.dev/runtimevar"

	"github.com/grantorhq/grantor/service/recovery"
)

// errNotOpened reports that a Variable is nil or the zero value.
var errNotOpened = errors.New("secretvar: the variable was not made by Open")

// A Variable watches a secret. It is safe for concurrent use by multiple goroutines.
type Variable struct {
	name     string // the URL, redacted for printing
	variable *runtimevar.Variable
	first    chan struct{} // closed after the driver's first answer, a value or an error
}

// Open starts watching the secret that the URL names, until [Variable.Close]. The URL's parameters belong to the
// driver, but two matter here. The parameter decoder, if present, must be "string" or "bytes", preceded by "decrypt" if
// Go CDK is to decrypt the value. The parameter wait is the interval at which some drivers look for changes, 30 s by
// default.
//
// Open does not wait for a value. It fails if no driver is registered for the URL's scheme or the driver rejects the
// URL. The context applies to the driver's setup only. No error of this package quotes the userinfo or the query of a
// URL, because they may be secret. The driver runs in a goroutine of Go CDK, where a panic of its own ends the program.
func Open(ctx context.Context, rawURL string) (*Variable, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("secretvar: the name of the secret is not a URL")
	}
	// discreet finds the end of a URL in a text by a space or a quotation mark, so the query must contain neither.
	u.RawQuery = strings.NewReplacer(" ", "%20", `"`, "%22").Replace(u.RawQuery)
	if ctx == nil {
		ctx = context.Background()
	}
	variable, err := recovery.Call("the driver of the URL", func() (*runtimevar.Variable, error) {
		return runtimevar.DefaultURLMux().OpenVariableURL(ctx, u)
	})
	if err != nil {
		return nil, errors.New("secretvar: " + discreet(err.Error()))
	}
	if variable == nil {
		return nil, errors.New("secretvar: the driver of the URL returned no variable and no error")
	}
	v := &Variable{name: discreet(u.String()), variable: variable, first: make(chan struct{})}
	watching := context.WithoutCancel(ctx)
	go func() {
		defer close(v.first)
		_, _ = variable.Watch(watching) // ends with Close at the latest
	}()
	return v, nil
}

// Secret returns the newest value of the secret, without trailing line breaks. Its signature is that of the argument of
// attach.SecretFunc. Secret waits only for the driver's first answer. Once there is a value, Secret returns it even
// while newer ones cannot be read; before that, it returns the driver's error.
func (v *Variable) Secret(ctx context.Context) (string, error) {
	switch {
	case v == nil || v.variable == nil:
		return "", errNotOpened
	case ctx == nil:
		ctx = context.Background()
	}
	select {
	case <-v.first:
	case <-ctx.Done():
		return "", fmt.Errorf("secretvar: waiting for %s: %w", v.name, ctx.Err())
	}
	// Latest would wait for a value until ctx ends, and return the reason for its absence only then.
	ended, end := context.WithCancel(ctx)
	end()
	latest, err := v.variable.Latest(ended)
	if err != nil {
		return "", v.failure(err)
	}
	var text string
	switch value := latest.Value.(type) {
	case string:
		text = value
	case []byte:
		text = string(value)
	default:
		return "", fmt.Errorf("secretvar: %s is decoded to a %T, not to text", v.name, value)
	}
	if text = strings.TrimRight(text, "\r\n"); text == "" {
		return "", fmt.Errorf("secretvar: %s is empty", v.name)
	}
	return text, nil
}

// Close stops watching. Secret fails afterwards.
func (v *Variable) Close() error {
	if v == nil || v.variable == nil {
		return errNotOpened
	}
	err := v.variable.Close()
	<-v.first
	switch {
	case err == nil, errors.Is(err, runtimevar.ErrClosed):
		return nil
	default:
		return v.failure(err)
	}
}

// Format implements [fmt.Formatter]. Every verb prints the URL without userinfo and query, which may be secret, and
// never the value.
func (v *Variable) Format(state fmt.State, _ rune) {
	_, _ = fmt.Fprintf(state, "secretvar.Variable(%q)", v.name)
}

// failure does not wrap err, because code that unwraps an error may print what it finds.
func (v *Variable) failure(err error) error {
	return fmt.Errorf("secretvar: %s: %s", v.name, discreet(err.Error()))
}

var (
	userInURL  = regexp.MustCompile(`//[^/?#\s"]*@`)
	queryInURL = regexp.MustCompile(`\?[^\s"]*`)
)

// discreet removes userinfo and query from the URLs in a text.
func discreet(text string) string {
	return queryInURL.ReplaceAllString(userInURL.ReplaceAllString(text, "//"), "")
}
