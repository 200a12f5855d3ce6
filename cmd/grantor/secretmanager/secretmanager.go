// Package secretmanager reads client secrets from where they are kept, by the URLs of package secretvar. It imports the
// drivers of all secret managers, and with them the SDKs of the clouds.
package secretmanager

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"time"

	"gocloud.dev/runtimevar"
	_ "gocloud.dev/runtimevar/awssecretsmanager" // awssecretsmanager://
	_ "gocloud.dev/runtimevar/filevar"           // file://
	_ "gocloud.dev/runtimevar/gcpsecretmanager"  // gcpsecretmanager://
	_ "gocloud.dev/runtimevar/httpvar"           // https://

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/interceptors/secretvar"
	_ "github.com/grantorhq/grantor/interceptors/secretvar/azurekeyvault" // azurekeyvault://
	_ "github.com/grantorhq/grantor/interceptors/secretvar/hashivault"    // hashivault://
	"github.com/grantorhq/grantor/service/oauth"
)

// timeout bounds reading one secret.
const timeout = 30 * time.Second

// errorCode matches what Go CDK adds to the error of a driver, which says nothing to an operator.
var errorCode = regexp.MustCompile(`\bruntimevar \(code=\w+\): `)

// Read reads the secret that a URL names, once. No error quotes the secret, the userinfo or query of the URL, or a text that
// is not a URL: it may be the secret itself.
func Read(ctx context.Context, rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	switch schemes := runtimevar.DefaultURLMux(); {
	case err != nil || u.Scheme == "" || !strings.HasPrefix(rawURL[len(u.Scheme):], "://"):
		return "", errors.New("the place of a secret is a URL such as hashivault://secret/billing")
	case !schemes.ValidVariableScheme(u.Scheme): // perhaps the beginning of a secret
		return "", errors.New("the place of a secret is a URL that begins with one of " + strings.Join(schemes.VariableSchemes(), ", "))
	case u.Scheme == "http" && !oauth.Loopback(u.Hostname()):
		return "", errors.New("a secret is read over plaintext http from loopback addresses only; use https")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	secret, err := read(ctx, rawURL)
	if err != nil {
		// The errors of some SDKs have several lines, and quote the answers of servers.
		text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "secretvar: ")), " ")
		text = errorCode.ReplaceAllString(text, "")
		return "", errors.New(cli.Printable(text))
	}
	return secret, nil
}

func read(ctx context.Context, rawURL string) (string, error) {
	variable, err := secretvar.Open(ctx, rawURL)
	if err != nil {
		return "", err
	}
	defer func() { _ = variable.Close() }()
	return variable.Secret(ctx)
}
