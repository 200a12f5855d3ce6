package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/tokens"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// target is what the calls go to.
type target struct {
	// Call makes a call over a connection; both are counted from 0. It returns an empty string, or the word by which a
	// failure is counted.
	Call  func(ctx context.Context, connection int, number int64) string
	Alg   string
	Close func()
}

// reach opens the connections and prepares the calls. It requests at least one token, so that a wrong secret is
// reported before any load. Each token request has its own timeout.
func (l *load) reach(ctx context.Context, client *remote.Client, callers []remote.Credentials) (*target, error) {
	wanted := 1
	if l.Operation == operationIntrospect {
		wanted = l.Tokens
		if l.Wire == wireREST && client.Metadata.IntrospectionEndpoint == "" {
			return nil, fmt.Errorf("the metadata of %s has no introspection_endpoint", oauth.RedactURL(client.Metadata.Issuer))
		}
	}
	var tokens []string
	for range wanted {
		token, err := l.token(ctx, client)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, token)
	}
	t := &target{Alg: algorithm(tokens[0])}
	// The tokens have shown by which method the first caller authenticates.
	accounts := []*remote.Authentication{client.Authentication}
	for _, other := range callers[1:] {
		accounts = append(accounts, remote.NewAuthentication(other, client.Metadata))
	}
	if l.Wire == wireREST {
		l.overREST(t, client, accounts, tokens)
		return t, nil
	}
	return t, l.overGRPC(t, client, accounts, tokens)
}

// token requests a token.
func (l *load) token(ctx context.Context, client *remote.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, remote.Timeout)
	defer cancel()
	_, issued, err := client.Issue(ctx, l.Scopes, l.Resources)
	if err != nil {
		return "", err
	}
	return issued.Token, nil
}

// algorithm returns the alg of a token's header (RFC 7515 §4.1.1), for the report.
func algorithm(raw string) string {
	decoded, err := tokens.Decode(raw)
	if err != nil {
		return "unknown"
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	if json.Unmarshal(decoded.Header, &header) != nil {
		return "unknown"
	}
	return cli.Printable(header.Algorithm)
}

func (l *load) overGRPC(t *target, client *remote.Client, accounts []*remote.Authentication, tokens []string) error {
	var conns []*grpc.ClientConn
	t.Close = func() { closeAll(conns) }
	var stubs []grantorv1.TokenServiceClient
	for range l.Connections {
		conn, err := client.DialGRPC(l.proving(client)...)
		if err != nil {
			t.Close()
			return err
		}
		conns = append(conns, conn)
		stubs = append(stubs, grantorv1.NewTokenServiceClient(conn))
	}
	issue := &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, Scope: strings.Join(l.Scopes, " "), Resource: l.Resources,
	}
	t.Call = func(ctx context.Context, connection int, number int64) string {
		c := accounts[number%int64(len(accounts))]
		return remote.Authenticate(c, func(method string) (string, remote.Outcome) {
			evidence, err := c.Evidence(method)
			if err != nil {
				return noEvidence, remote.Undecided
			}
			request := proto.CloneOf(issue)
			request.ClientId, request.ClientSecret = evidence.ClientID, evidence.ClientSecret
			request.ClientAssertion, request.ClientAssertionType = evidence.Assertion, evidence.AssertionType
			answer, err := stubs[connection].IssueToken(evidence.Attach(ctx), request)
			if err == nil && answer.GetAccessToken() == "" {
				return noToken, remote.Accepted
			}
			return failureWord(err), remote.OutcomeOf(status.Code(err))
		})
	}
	if l.Operation == operationIntrospect {
		c := accounts[0]
		t.Call = func(ctx context.Context, connection int, number int64) string {
			return remote.Authenticate(c, func(method string) (string, remote.Outcome) {
				evidence, err := c.Evidence(method)
				if err != nil {
					return noEvidence, remote.Undecided
				}
				answer, err := stubs[connection].IntrospectToken(evidence.Attach(ctx), &grantorv1.IntrospectTokenRequest{
					Token:    tokens[number%int64(len(tokens))],
					ClientId: evidence.ClientID, ClientSecret: evidence.ClientSecret,
					ClientAssertion: evidence.Assertion, ClientAssertionType: evidence.AssertionType,
				})
				if err == nil && !answer.GetActive() {
					return inactive, remote.Accepted
				}
				return failureWord(err), remote.OutcomeOf(status.Code(err))
			})
		}
	}
	return nil
}

// proving returns the options of a connection whose token requests have DPoP proofs, if the clients have a key for
// them. All have the same one.
func (l *load) proving(client *remote.Client) []grpc.DialOption {
	if client.DPoP == nil || l.Operation != operationIssue {
		return nil
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(client.DPoP.UnaryInterceptor(client.Metadata.GRPCEndpoint))}
}

// closeAll closes connections, but waits at most half a second: gRPC takes up to 5 s to close one whose call was cut off.
func closeAll(conns []*grpc.ClientConn) {
	closed := make(chan struct{}, len(conns))
	for _, conn := range conns {
		go func() {
			_ = conn.Close()
			closed <- struct{}{}
		}()
	}
	timeout := time.After(time.Second / 2)
	for range conns {
		select {
		case <-closed:
		case <-timeout:
			return
		}
	}
}

// The failures of a call that succeeded on the wire, and of one that could not be made.
const (
	inactive   = "inactive"
	noToken    = "no token"
	noEvidence = "request"
)

// failureWord returns the name of the code of a failed gRPC call, or an empty string.
func failureWord(err error) string {
	if err == nil {
		return ""
	}
	return status.Code(err).String()
}

func (l *load) overREST(t *target, client *remote.Client, accounts []*remote.Authentication, tokens []string) {
	perConnection := (l.InFlight + l.Connections - 1) / l.Connections
	transports := make([]*http.Transport, l.Connections)
	for i := range transports {
		transports[i] = &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: perConnection, ForceAttemptHTTP2: true,
			TLSClientConfig: client.TLSConfig(),
		}
	}
	t.Close = func() {
		for _, transport := range transports {
			transport.CloseIdleConnections()
		}
	}
	form := url.Values{"grant_type": {oauth.GrantClientCredentials}, "resource": l.Resources}
	if len(l.Scopes) > 0 {
		form.Set("scope", strings.Join(l.Scopes, " "))
	}
	place, forms, lacks, prover := client.Metadata.TokenEndpoint, []string{form.Encode()}, lacksToken, client.DPoP
	if l.Operation == operationIntrospect {
		place, forms, lacks = client.Metadata.IntrospectionEndpoint, make([]string, len(tokens)), isInactive
		for i, token := range tokens {
			forms[i] = url.Values{"token": {token}}.Encode()
		}
		accounts, prover = accounts[:1], nil
	}
	t.Call = func(ctx context.Context, connection int, number int64) string {
		c := accounts[number%int64(len(accounts))]
		return remote.Authenticate(c, func(method string) (string, remote.Outcome) {
			request, err := c.NewRequest(ctx, method, place, forms[number%int64(len(forms))])
			if err == nil {
				err = prover.Prove(request)
			}
			if err != nil {
				return noEvidence, remote.Undecided
			}
			return post(transports[connection], request, prover, lacks)
		})
	}
}

// post makes a request. It returns the word by which a failure is counted, and what the response says about the client's
// authentication.
func post(transport *http.Transport, request *http.Request, prover *remote.Prover, lacks func([]byte) string) (string, remote.Outcome) {
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return "connection", remote.Undecided
	}
	defer func() { _ = answer.Body.Close() }()
	prover.Learn(answer.Header.Values(dpop.NonceHeader))
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return "connection", remote.Undecided
	}
	failure := fmt.Sprintf("HTTP %d", answer.StatusCode)
	switch answer.StatusCode {
	case http.StatusOK:
		return lacks(body), remote.Accepted
	case http.StatusUnauthorized, http.StatusTooManyRequests:
		return failure, remote.Refused
	}
	return failure, remote.Undecided
}

// maxBody bounds a response over REST, in bytes. A longer one fails.
const maxBody = 1 << 20

// lacksToken returns why a response of the token endpoint is a failure.
func lacksToken(body []byte) string {
	var answer struct {
		Token string `json:"access_token"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Token == "" {
		return noToken
	}
	return ""
}

// isInactive returns why a response of the introspection endpoint is a failure.
func isInactive(body []byte) string {
	var answer struct {
		Active bool `json:"active"`
	}
	if json.Unmarshal(body, &answer) != nil || !answer.Active {
		return inactive
	}
	return ""
}
