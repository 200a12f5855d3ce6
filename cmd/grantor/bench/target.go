package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/tokens"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
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
func (l *load) reach(ctx context.Context, client *remote.Client, callers []caller) (*target, error) {
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
	if l.Wire == wireREST {
		l.overREST(t, client, callers, tokens)
		return t, nil
	}
	return t, l.overGRPC(t, client, callers, tokens)
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

func (l *load) overGRPC(t *target, client *remote.Client, callers []caller, tokens []string) error {
	var conns []*grpc.ClientConn
	t.Close = func() { closeAll(conns) }
	var stubs []grantorv1.TokenServiceClient
	for range l.Connections {
		conn, err := client.DialGRPC()
		if err != nil {
			t.Close()
			return err
		}
		conns = append(conns, conn)
		stubs = append(stubs, grantorv1.NewTokenServiceClient(conn))
	}
	scope := strings.Join(l.Scopes, " ")
	t.Call = func(ctx context.Context, connection int, number int64) string {
		c := &callers[number%int64(len(callers))]
		answer, err := stubs[connection].IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: oauth.GrantClientCredentials, ClientId: c.ID, ClientSecret: c.Secret, Scope: scope, Resource: l.Resources,
		})
		if err == nil && answer.GetAccessToken() == "" {
			return noToken
		}
		return failureWord(err)
	}
	if l.Operation == operationIntrospect {
		t.Call = func(ctx context.Context, connection int, number int64) string {
			c := &callers[0]
			answer, err := stubs[connection].IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{
				Token: tokens[number%int64(len(tokens))], ClientId: c.ID, ClientSecret: c.Secret,
			})
			if err == nil && !answer.GetActive() {
				return inactive
			}
			return failureWord(err)
		}
	}
	return nil
}

// closeAll closes connections, but waits at most a second: gRPC takes up to 5 s to close one whose call was cut off.
func closeAll(conns []*grpc.ClientConn) {
	closed := make(chan struct{}, len(conns))
	for _, conn := range conns {
		go func() {
			_ = conn.Close()
			closed <- struct{}{}
		}()
	}
	timeout := time.After(time.Second)
	for range conns {
		select {
		case <-closed:
		case <-timeout:
			return
		}
	}
}

// The failures of a call that succeeded on the wire.
const (
	inactive = "inactive"
	noToken  = "no token"
)

// failureWord returns the name of the code of a failed gRPC call, or an empty string.
func failureWord(err error) string {
	if err == nil {
		return ""
	}
	return status.Code(err).String()
}

func (l *load) overREST(t *target, client *remote.Client, callers []caller, tokens []string) {
	perConnection := (l.InFlight + l.Connections - 1) / l.Connections
	transports := make([]*http.Transport, l.Connections)
	for i := range transports {
		transports[i] = &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: perConnection, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		}
	}
	t.Close = func() {
		for _, transport := range transports {
			transport.CloseIdleConnections()
		}
	}
	place, forms, lacks := client.Metadata.TokenEndpoint, make([][]byte, len(callers)), lacksToken
	for i, c := range callers {
		form := url.Values{"grant_type": {oauth.GrantClientCredentials}, "client_id": {c.ID}, "client_secret": {c.Secret}}
		if len(l.Scopes) > 0 {
			form.Set("scope", strings.Join(l.Scopes, " "))
		}
		form["resource"] = l.Resources
		forms[i] = []byte(form.Encode())
	}
	if l.Operation == operationIntrospect {
		place, forms, lacks = client.Metadata.IntrospectionEndpoint, make([][]byte, len(tokens)), isInactive
		for i, token := range tokens {
			forms[i] = []byte(url.Values{"token": {token}, "client_id": {callers[0].ID}, "client_secret": {callers[0].Secret}}.Encode())
		}
	}
	t.Call = func(ctx context.Context, connection int, number int64) string {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, place, bytes.NewReader(forms[number%int64(len(forms))]))
		if err != nil {
			return "request"
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := transports[connection].RoundTrip(request)
		if err != nil {
			return "connection"
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
		if err != nil {
			return "connection"
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Sprintf("HTTP %d", answer.StatusCode)
		}
		return lacks(body)
	}
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
