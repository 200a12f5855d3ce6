package attach

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// A failed token request is retried after firstRetry, doubled each time up to lastRetry, each reduced at random by up
// to half.
const firstRetry, lastRetry = 100 * time.Millisecond, 400 * time.Millisecond

// maxResponse is the maximum size of a token response, in bytes.
const maxResponse = 64 << 10

// httpEndpoint is a token endpoint that is reached over HTTP (RFC 6749 §3.2).
type httpEndpoint struct {
	account
	issuer     string
	url        string // empty if it is found in the issuer's metadata
	discovered string // the endpoint in the metadata, or empty; used only by the one request in flight
	// methods are the authentication methods at the endpoint, the preferred one first: one or two.
	methods   []string
	client    http.Client
	plaintext bool
}

func newHTTPEndpoint(issuer string, c config) *httpEndpoint {
	e := &httpEndpoint{account: c.account, issuer: issuer, url: c.tokenURL, plaintext: c.plaintext}
	e.methods = []string{ClientSecretBasic, ClientSecretPost}
	if c.method != "" {
		e.methods = []string{c.method}
	}
	if c.client != nil {
		e.client = *c.client
	}
	if c.instruments != nil {
		e.client.Transport = c.instruments.roundTripper(e.client.Transport)
	}
	e.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return e
}

// requestToken requests a token. It retries a request that reached a replica which has just stopped or is not ready
// yet: issuing one token too many is harmless.
func (e *httpEndpoint) requestToken(ctx context.Context, secret string, other bool) (issuedToken, error) {
	for wait := firstRetry; ; wait *= 2 {
		answer, err := withNonce(func() (issuedToken, error) { return e.requestOnce(ctx, secret, other) })
		if failed := (*Error)(nil); !errors.As(err, &failed) || !failed.transient || wait > lastRetry {
			return answer, err
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)): //nolint:gosec // not a secret: it only spreads load
		case <-ctx.Done():
			return answer, err
		}
	}
}

func (e *httpEndpoint) offersOther(context.Context) bool { return len(e.methods) > 1 }

func (e *httpEndpoint) forget() { e.discovered = "" }

func (e *httpEndpoint) requestOnce(ctx context.Context, secret string, other bool) (issuedToken, error) {
	endpoint, err := e.endpointURL(ctx)
	if err != nil {
		return issuedToken{}, err
	}
	method := e.methods[0]
	if other {
		method = e.methods[len(e.methods)-1]
	}
	switch {
	case e.certified:
		secret, method = "", byCertificate
	case e.assertion != nil:
		// Each request has its own, because the issuer accepts an assertion of the client's key once.
		made, failure := e.assertion(ctx)
		if failure != nil {
			return issuedToken{}, failure
		}
		secret, method = made, byAssertion
	}
	answer, err := e.post(ctx, endpoint, secret, method)
	if refused := (*Error)(nil); errors.As(err, &refused) && refused.Code == "" {
		// An OAuth server does not answer like this; the endpoint may have moved.
		e.discovered = ""
	}
	return answer, err
}

// endpointURL returns the URL of the token endpoint. It fetches the issuer's metadata unless [TokenURL] is set.
func (e *httpEndpoint) endpointURL(ctx context.Context) (string, error) {
	switch {
	case e.url != "":
		if err := oauth.SecureURL(e.url); err != nil && !e.plaintext {
			return "", misuse("the token endpoint: %w", err)
		}
		return e.url, nil
	case e.discovered != "":
		return e.discovered, nil
	}
	// Discover rejects such an issuer too, but as an error that a retry may cure.
	if err := oauth.SecureURL(e.issuer); err != nil {
		return "", misuse("the issuer: %w", err)
	}
	metadata, err := oauth.Discover(ctx, &e.client, e.issuer)
	if err != nil {
		return "", asTransient(unavailable(err))
	}
	endpoint := metadata.TokenEndpoint
	if e.certified {
		endpoint = cmp.Or(metadata.MTLSAliases.TokenEndpoint, endpoint) // RFC 8705 §5
	}
	if endpoint == "" {
		return "", misuse("the metadata of %s has no token_endpoint", oauth.RedactURL(e.issuer))
	}
	e.discovered = endpoint
	if e.method == "" {
		e.methods = oauth.SecretMethods(metadata.TokenEndpointAuthMethods)
	}
	return e.discovered, nil
}

// form returns the parameters of RFC 6749 §4.4.2. The secret is an assertion if that is the method.
func (e *httpEndpoint) form(secret, method string) url.Values {
	form := url.Values{"grant_type": {oauth.GrantClientCredentials}}
	if len(e.scopes) > 0 {
		form.Set("scope", e.scope())
	}
	if len(e.resources) > 0 {
		form["resource"] = e.resources
	}
	for _, p := range e.parameters {
		form.Set(p.name, p.value)
	}
	switch method {
	case ClientSecretPost:
		form.Set("client_id", e.id)
		form.Set("client_secret", secret)
	case byCertificate:
		form.Set("client_id", e.id)
	case byAssertion:
		if e.id != "" {
			form.Set("client_id", e.id)
		}
		form.Set("client_assertion", secret)
		form.Set("client_assertion_type", e.assertionType)
	}
	return form
}

// post sends the request of RFC 6749 §4.4.2. The secret is an assertion if that is the method.
func (e *httpEndpoint) post(ctx context.Context, endpoint, secret, method string) (issuedToken, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(e.form(secret, method).Encode()))
	if err != nil {
		return issuedToken{}, misuse("the token endpoint: %.200q is not a URL", oauth.RedactURL(endpoint))
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	// An HTTP/2 connection that fell silent would stay in the client's pool and be used for every retry.
	request.Close = true
	if method == ClientSecretBasic {
		request.Header.Set("Authorization", basic(e.id, secret))
	}
	nonce, err := e.prover.proveRequest(request, "")
	if err != nil {
		return issuedToken{}, err
	}
	answer, err := e.client.Do(request)
	if err != nil {
		return issuedToken{}, asTransient(unavailable(concealError(err, secret)))
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxResponse+1))
	switch {
	case err != nil:
		return issuedToken{}, asTransient(unavailable(fmt.Errorf("reading the response of %s: %w", oauth.RedactURL(endpoint),
			concealError(err, secret))))
	case len(body) > maxResponse:
		return issuedToken{}, misuse("%s answered more than %d bytes", oauth.RedactURL(endpoint), maxResponse)
	}
	got, err := e.parseResponse(answer, body, secret)
	learned := e.prover.learn(httpOrigin(request), nonce, answer.Header.Values(dpop.NonceHeader))
	if failed := (*Error)(nil); errors.As(err, &failed) {
		failed.nonceProvided = learned && failed.Code == oauth.UseDPoPNonce
		switch answer.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return got, asTransient(failed)
		case http.StatusTooManyRequests:
			failed.limited = failed.Code == oauth.TemporarilyUnavailable
		}
	}
	return got, err
}

// tokenResponse is the JSON of a token endpoint: RFC 6749 §5.1, or §5.2 if Error is set.
type tokenResponse struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	// ExpiresIn is a number. Some issuers send it as a string, which json.Number accepts too.
	ExpiresIn   json.Number `json:"expires_in"`
	Error       string      `json:"error"`
	Description string      `json:"error_description"`
}

func (e *httpEndpoint) parseResponse(response *http.Response, body []byte, secret string) (issuedToken, error) {
	var a tokenResponse
	err := json.Unmarshal(body, &a)
	// The text of the status line is the server's own: only its number is quoted.
	answered := strings.TrimSpace(fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode)))
	switch {
	case err == nil && a.Error != "":
		return issuedToken{}, refusal(a.Error, a.Description, secret)
	case response.StatusCode >= 300 && response.StatusCode < 400:
		return issuedToken{}, misuse("the token endpoint answered %s; a redirect is not followed, as the request carries "+
			"the client's secret", answered)
	case response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests:
		return issuedToken{}, unavailable(fmt.Errorf("the token endpoint answered %s", answered))
	case response.StatusCode != http.StatusOK:
		failed := misuse("the token endpoint answered %s", answered)
		switch response.StatusCode {
		case http.StatusUnauthorized:
			failed.grpc = codes.Unauthenticated
		case http.StatusForbidden:
			failed.grpc = codes.PermissionDenied
		}
		return issuedToken{}, failed
	case err != nil:
		return issuedToken{}, misuse("the token endpoint's answer is not the JSON of RFC 6749 §5.1")
	}
	var lifetime time.Duration
	if a.ExpiresIn != "" {
		seconds, err := strconv.ParseFloat(string(a.ExpiresIn), 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) || seconds <= 0 { // beyond the range, seconds is infinite
			return issuedToken{}, misuse("the token endpoint answered with expires_in %.20q", sanitize(string(a.ExpiresIn), secret))
		}
		// A lifetime of zero would count as an unknown one.
		lifetime = max(time.Duration(min(seconds, maxLifetime.Seconds())*float64(time.Second)), time.Nanosecond)
	}
	return e.newIssuedToken(a.AccessToken, a.TokenType, lifetime, secret)
}
