package attach

import (
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

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/instrument"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// Waits before a token request is made again, doubled each time, less up to a half by chance.
const firstRetry, lastRetry = 100 * time.Millisecond, 400 * time.Millisecond

// maxAnswer bounds what is read of a token endpoint's answer, in bytes.
const maxAnswer = 64 << 10

// endpoint asks a token endpoint over HTTP (RFC 6749 §3.2).
type endpoint struct {
	account
	issuer    string
	url       string // empty: to be found by the issuer's description
	found     string // by the description, or empty; only the one request under way touches it
	client    http.Client
	plaintext bool
}

func newEndpoint(issuer string, c config) *endpoint {
	e := &endpoint{account: c.account, issuer: issuer, url: c.tokenURL, plaintext: c.plaintext}
	if c.client != nil {
		e.client = *c.client
	}
	if c.instruments != nil {
		e.client.Transport = c.instruments.roundTripper(e.client.Transport)
	}
	e.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return e
}

// ask makes a token request, and makes it again where it went to a replica that has just gone or is not ready yet: a
// token more does no harm.
func (e *endpoint) ask(ctx context.Context, secret string) (issued, error) {
	for wait := firstRetry; ; wait *= 2 {
		answer, err := e.askOnce(ctx, secret)
		if failed := (*Error)(nil); !errors.As(err, &failed) || !failed.passing || wait > lastRetry {
			return answer, err
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // it only spreads load
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return answer, err
		}
	}
}

func (e *endpoint) askOnce(ctx context.Context, secret string) (issued, error) {
	place, err := e.place(ctx)
	if err != nil {
		return issued{}, err
	}
	answer, err := e.post(ctx, place, secret)
	if refused := (*Error)(nil); errors.As(err, &refused) && refused.Code == "" {
		// Nothing that an OAuth server would say: perhaps the endpoint has moved.
		e.found = ""
	}
	return answer, err
}

// place gives the token endpoint's URL, and reads the issuer's description where nobody named it.
func (e *endpoint) place(ctx context.Context) (string, error) {
	switch {
	case e.url != "":
		if err := oauth.SecureURL(e.url); err != nil && !e.plaintext {
			return "", misuse("the token endpoint: %w", err)
		}
		return e.url, nil
	case e.found != "":
		return e.found, nil
	}
	// Discover refuses this too, but among what may be mended by asking again.
	if err := oauth.SecureURL(e.issuer); err != nil {
		return "", misuse("the issuer: %w", err)
	}
	metadata, err := oauth.Discover(ctx, &e.client, e.issuer)
	if err != nil {
		return "", passing(unavailable(err))
	}
	if metadata.TokenEndpoint == "" {
		return "", misuse("the description of %s has no token_endpoint", e.issuer)
	}
	e.found = metadata.TokenEndpoint
	return e.found, nil
}

// post makes the request of RFC 6749 §4.4.2.
func (e *endpoint) post(ctx context.Context, place, secret string) (issued, error) {
	form := url.Values{"grant_type": {oauth.GrantClientCredentials}}
	if len(e.scopes) > 0 {
		form.Set("scope", e.scope())
	}
	if len(e.resources) > 0 {
		form["resource"] = e.resources
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, place, strings.NewReader(form.Encode()))
	if err != nil {
		return issued{}, misuse("the token endpoint: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	// A connection of HTTP/2 that fell silent would stay in the client's pool and be asked again each time.
	request.Close = true
	// RFC 6749 §2.3.1: both are form-encoded before they are put together, so that an id may have a colon.
	request.SetBasicAuth(url.QueryEscape(e.id), url.QueryEscape(secret))
	answer, err := e.client.Do(request)
	if err != nil {
		return issued{}, passing(unavailable(err))
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return issued{}, passing(unavailable(fmt.Errorf("reading the answer of %s: %w", place, err)))
	case len(body) > maxAnswer:
		return issued{}, misuse("%s answered more than %d bytes", place, maxAnswer)
	}
	got, err := read(answer, body, secret)
	if failed := (*Error)(nil); errors.As(err, &failed) {
		switch answer.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return got, passing(failed)
		}
	}
	return got, err
}

// answer is the token endpoint's JSON: RFC 6749 §5.1, or §5.2 where error is there.
type answer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	// ExpiresIn is a number; some issuers put it in quotes, which json.Number accepts too.
	ExpiresIn   json.Number `json:"expires_in"`
	Error       string      `json:"error"`
	Description string      `json:"error_description"`
}

func read(response *http.Response, body []byte, secret string) (issued, error) {
	var a answer
	err := json.Unmarshal(body, &a)
	switch {
	case err == nil && a.Error != "":
		return issued{}, refusal(a.Error, a.Description, secret)
	case response.StatusCode >= 300 && response.StatusCode < 400:
		return issued{}, misuse("the token endpoint answered %s; a redirect is not followed, as the request carries "+
			"the client's secret", response.Status)
	case response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests:
		return issued{}, unavailable(fmt.Errorf("the token endpoint answered %s", response.Status))
	case response.StatusCode != http.StatusOK:
		return issued{}, misuse("the token endpoint answered %s", response.Status)
	case err != nil:
		return issued{}, misuse("the token endpoint's answer is not the JSON of RFC 6749 §5.1")
	}
	var lifetime time.Duration
	if a.ExpiresIn != "" {
		seconds, err := strconv.ParseFloat(string(a.ExpiresIn), 64)
		if err != nil || seconds <= 0 {
			return issued{}, misuse("the token endpoint answered with expires_in %.20q", string(a.ExpiresIn))
		}
		lifetime = time.Duration(min(seconds, mostLifetime.Seconds()) * float64(time.Second))
	}
	return accept(a.AccessToken, a.TokenType, lifetime)
}

// accept checks what was issued. A token with a character outside visible ASCII could not be sent in a header, or would
// end it.
func accept(raw, kind string, lifetime time.Duration) (issued, error) {
	switch {
	case raw == "":
		return issued{}, misuse("the issuer's answer has no access_token")
	case len(raw) > token.MaxSize:
		return issued{}, misuse("the issuer's access_token has %d bytes, more than %d", len(raw), token.MaxSize)
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }):
		return issued{}, misuse("the issuer's access_token is not visible ASCII")
	// RFC 6749 §7.1: a token of a type that the client does not understand must not be used.
	case !strings.EqualFold(kind, "Bearer"):
		return issued{}, misuse("the issuer's token_type is %.20q, not Bearer", kind)
	}
	return issued{raw, lifetime}, nil
}

// grpcIssuer asks a grantor over gRPC.
type grpcIssuer struct {
	account
	conn        grpc.ClientConnInterface
	plaintext   bool
	instruments *instruments
}

func (g *grpcIssuer) ask(ctx context.Context, secret string) (issued, error) {
	// A credential that adds nothing but demands transport security makes gRPC itself keep the secret off a plaintext
	// connection.
	cc, _ := g.conn.(*grpc.ClientConn)
	guard := grpc.PerRPCCredentials(credential{secure: !g.plaintext && !loopback(cc)})
	var call instrument.Call
	if g.instruments != nil {
		ctx, call = g.instruments.rpc.Start(ctx, grantorv1.TokenService_IssueToken_FullMethodName, true)
	}
	got, err := grantorv1.NewTokenServiceClient(g.conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: g.id, ClientSecret: secret,
		Scope: g.scope(), Resource: g.resources,
	}, guard)
	call.End(err)
	if err != nil {
		return issued{}, explain(cc, err, secret)
	}
	if got.GetExpiresIn() <= 0 {
		return issued{}, misuse("the issuer answered with expires_in %d", got.GetExpiresIn())
	}
	return accept(got.GetAccessToken(), got.GetTokenType(), time.Duration(got.GetExpiresIn())*time.Second)
}

// explain reads the OAuth error code from the ErrorInfo of a refusal.
func explain(cc *grpc.ClientConn, err error, secret string) error {
	if plain := plaintextRefused(cc, err); plain != nil {
		return misuse("the connection to the issuer: %w", plain)
	}
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "grantor" {
			return refusal(info.GetReason(), s.Message(), secret)
		}
	}
	return unavailable(errors.New(printable(err.Error(), secret)))
}
