// Package azurekeyvault follows a secret in Azure Key Vault. Importing it registers the scheme azurekeyvault with the Go
// Cloud Development Kit's variables, and so with secretvar:
//
//	import _ "github.com/grantorhq/grantor/interceptors/secretvar/azurekeyvault"
//
//	variable, err := secretvar.Open(ctx, "azurekeyvault://VAULT.vault.azure.net/secrets/background-service")
//
// # URLs
//
// The URL is the identifier of the secret in Key Vault, with azurekeyvault for https. It may end with a version; without
// one, the newest is followed. The parameters are
//
//   - wait: how soon a change is seen, 30 s by default.
//   - decoder: string or bytes, as for every variable of Go CDK.
//
// # Credentials
//
// The process authenticates as azidentity.DefaultAzureCredential does: by AZURE_TENANT_ID, AZURE_CLIENT_ID and
// AZURE_CLIENT_SECRET or a certificate, by workload identity, by managed identity, or as the user of the Azure command line.
// It needs the permission to get the secret: the role Key Vault Secrets User, or the access policy Get.
package azurekeyvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"gocloud.dev/gcerrors"
	"gocloud.dev/runtimevar"

	"github.com/grantorhq/grantor/interceptors/secretvar/poll"
)

// Scheme is the scheme of the URLs.
const Scheme = "azurekeyvault"

func init() { runtimevar.DefaultURLMux().RegisterVariable(Scheme, opener{}) }

// opener implements [runtimevar.VariableURLOpener].
type opener struct{}

// identifier matches the path of a secret: Key Vault's names and versions have no other characters.
var identifier = regexp.MustCompile(`^/secrets/([0-9A-Za-z-]{1,127})(?:/([0-9A-Za-z]{1,64}))?$`)

// OpenVariableURL implements [runtimevar.VariableURLOpener].
func (opener) OpenVariableURL(ctx context.Context, u *url.URL) (*runtimevar.Variable, error) {
	options, err := poll.ParseOptions(ctx, u.Query())
	if err != nil {
		return nil, fmt.Errorf("open variable %v: %w", u, err)
	}
	found := identifier.FindStringSubmatch(u.Path)
	if found == nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("open variable %v: want azurekeyvault://VAULT.vault.azure.net/secrets/NAME or .../NAME/VERSION", u)
	}
	identity, err := defaultCredential()
	if err != nil {
		return nil, fmt.Errorf("open variable %v: %w", u, err)
	}
	transport := newTransport()
	client, err := azsecrets.NewClient("https://"+u.Host, identity, &azsecrets.ClientOptions{ClientOptions: clientOptions(transport)})
	if err != nil {
		return nil, fmt.Errorf("open variable %v: %w", u, err)
	}
	return poll.New(&store{client, transport, found[1], found[2]}, options), nil
}

// newTransport returns a transport of its own, so that its idle connections can be closed.
func newTransport() *http.Transport {
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		return standard.Clone()
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment}
}

// clientOptions are the options of a client of Azure over a transport. A request is repeated only after what may be over in
// a second; for everything else package poll reads again. Neither Key Vault nor Microsoft Entra redirects.
func clientOptions(transport http.RoundTripper) azcore.ClientOptions {
	return azcore.ClientOptions{
		Transport: &http.Client{
			Transport:     poll.Limit(transport),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Retry: policy.RetryOptions{
			MaxRetries: 2, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: time.Second,
			StatusCodes: []int{http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout},
		},
	}
}

// defaultCredential returns the credential of this process. All variables share it, and with it the tokens that it caches.
// Since none of them can close its connections, it keeps none open.
var defaultCredential = sync.OnceValues(func() (azcore.TokenCredential, error) {
	transport := newTransport()
	transport.DisableKeepAlives = true
	found, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: clientOptions(transport)})
	if err != nil {
		return nil, identityError{err}
	}
	return credential{found}, nil
})

// credential marks the errors of a credential, which have several types and otherwise pass for those of Key Vault.
type credential struct{ azcore.TokenCredential }

// GetToken implements [azcore.TokenCredential].
func (c credential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.TokenCredential.GetToken(ctx, options)
	if err != nil {
		return token, identityError{err}
	}
	return token, nil
}

// identityError is why the process has no token.
type identityError struct{ cause error }

// entraCode matches the code of an error of Microsoft Entra.
var entraCode = regexp.MustCompile(`\bAADSTS[0-9]{1,8}\b`)

// Error returns which credentials were tried and why each has no token. Of the answers of Microsoft Entra, which the cause
// shows below a line of dashes, it returns the code.
func (e identityError) Error() string {
	const maxText = 600
	cause := e.cause.Error()
	text, _, _ := strings.Cut(cause, "-----")
	text = fmt.Sprintf("%.*s", maxText, strings.Join(strings.Fields(text), " "))
	if code := entraCode.FindString(cause); code != "" {
		text += " (" + code + ")"
	}
	return text
}

// NonRetriable keeps the clients of Azure from repeating a request that failed for this reason.
func (identityError) NonRetriable() {}

// store implements [poll.Store].
type store struct {
	client        *azsecrets.Client
	transport     *http.Transport
	name, version string
}

// Close implements [poll.Store].
func (s *store) Close() { s.transport.CloseIdleConnections() }

// Read implements [poll.Store].
func (s *store) Read(ctx context.Context) ([]byte, error) {
	answer, err := s.client.GetSecret(ctx, s.name, s.version, nil)
	if err != nil {
		return nil, failure(err)
	}
	if answer.Value == nil {
		return nil, poll.Unreadable(nil)
	}
	return []byte(*answer.Value), nil
}

// refusals maps each status that Key Vault answers to a read to what it means.
var refusals = map[int]poll.Error{
	http.StatusBadRequest:          {Text: "Key Vault does not accept the request", Code: gcerrors.InvalidArgument},
	http.StatusUnauthorized:        {Text: "Key Vault does not accept the token of this process", Code: gcerrors.PermissionDenied},
	http.StatusForbidden:           {Text: "this process may not get the secret, or the secret is disabled", Code: gcerrors.PermissionDenied},
	http.StatusNotFound:            {Text: "there is no such secret or version, or it is deleted", Code: gcerrors.NotFound},
	http.StatusTooManyRequests:     {Text: "Key Vault throttles the requests", Code: gcerrors.ResourceExhausted},
	http.StatusInternalServerError: {Text: "Key Vault failed", Code: gcerrors.Internal},
	http.StatusServiceUnavailable:  {Text: "Key Vault is unavailable", Code: gcerrors.Internal},
}

// failure returns the error of a request. It quotes the status of an answer of Key Vault, and nothing else of it but the
// tenant, if this process has no token for that.
func failure(err error) error {
	if identity, ok := errors.AsType[identityError](err); ok {
		return &poll.Error{Text: identity.Error(), Code: gcerrors.PermissionDenied}
	}
	if refused, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return poll.Refusal(refused.StatusCode, refusals)
	}
	return poll.Unreachable(err)
}
