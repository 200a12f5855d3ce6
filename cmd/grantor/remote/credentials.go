package remote

import (
	"context"
	"crypto"
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/oauth"
)

// Credentials are what a client authenticates with: its secret or, if Assertion is set, assertions, or else, if
// Certificate is set, a certificate.
type Credentials struct {
	ID, Secret string
	// Method is the method by which the client authenticates, or empty if it has a secret and the method is not known.
	Method string
	// Assertion makes the assertion of one request (RFC 7521 §4.2). It is nil for a client with a secret.
	Assertion func() (string, error)
	// AssertionType is the client_assertion_type of the assertion.
	AssertionType string
	// Certificate is presented on every connection to the issuer.
	Certificate *tls.Certificate
	// Options make a source of package attach authenticate the client without a secret.
	Options []attach.Option
	// DPoP makes the proofs of the client's token requests. It is nil for bearer tokens.
	DPoP *Prover
}

// keyCredentials returns the credentials of a client that signs its assertions for an issuer with a private key. An
// empty keyID stands for the key's thumbprint.
func keyCredentials(issuer, id string, private crypto.Signer, keyID string) Credentials {
	maker := clientassertion.Maker{Issuer: issuer, Client: id, KeyID: keyID}
	options := []attach.Option{attach.PrivateKey(private)}
	if keyID != "" {
		options = append(options, attach.KeyID(keyID))
	}
	return Credentials{
		ID: id, Method: oauth.PrivateKeyJWT, Options: options,
		Assertion: func() (string, error) { return maker.Make(private, time.Now()) }, AssertionType: clientassertion.Type,
	}
}

const basicScheme = "Basic "

// basic returns the value of an Authorization header. RFC 6749 §2.3.1: both parts are form-encoded before they are joined,
// so that an ID may have a colon.
func (c *Credentials) basic() string {
	return basicScheme + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(c.ID)+":"+url.QueryEscape(c.Secret)))
}

// Evidence is what one request offers as proof of its client. An empty string stands for an absent value.
type Evidence struct {
	// Authorization is the value of the header or metadata "authorization". The others are parameters of the request.
	Authorization                                    string
	ClientID, ClientSecret, Assertion, AssertionType string
}

// Evidence returns the proof for one request that authenticates by a method.
func (c *Credentials) Evidence(method string) (Evidence, error) {
	switch {
	case c.Assertion != nil:
		assertion, err := c.Assertion()
		return Evidence{ClientID: c.ID, Assertion: assertion, AssertionType: c.AssertionType}, err
	case c.Certificate != nil:
		return Evidence{ClientID: c.ID}, nil
	case method == attach.ClientSecretBasic:
		return Evidence{Authorization: c.basic()}, nil
	}
	return Evidence{ClientID: c.ID, ClientSecret: c.Secret}, nil
}

// Attach returns a context for a gRPC call whose metadata have the evidence that is not in the fields of its message.
func (e *Evidence) Attach(ctx context.Context) context.Context {
	if e.Authorization == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", e.Authorization)
}

// NewRequest returns a request that posts an encoded form with the credentials to an endpoint.
func (c *Credentials) NewRequest(ctx context.Context, method, endpoint, form string) (*http.Request, error) {
	evidence, err := c.Evidence(method)
	if err != nil {
		return nil, err
	}
	return evidence.newRequest(ctx, endpoint, form)
}

func (e *Evidence) newRequest(ctx context.Context, endpoint, form string) (*http.Request, error) {
	for _, p := range [...]struct{ name, value string }{
		{"client_id", e.ClientID}, {"client_secret", e.ClientSecret},
		{"client_assertion", e.Assertion}, {"client_assertion_type", e.AssertionType},
	} {
		if p.value != "" {
			form += "&" + p.name + "=" + url.QueryEscape(p.value)
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if e.Authorization != "" {
		request.Header.Set("Authorization", e.Authorization)
	}
	return request, nil
}
