package rpc

import (
	"cmp"
	"context"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/peercert"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/status"
	"github.com/grantorhq/grantor/service/telemetry"
)

// caller is the sender of a request.
type caller struct {
	// client is the client that the request proves; nil if it proves none.
	client *registry.Client
	// event is what audit events say of the caller, also of one that is refused.
	event telemetry.Token
}

// unauthenticated returns a caller that claims an ID.
func unauthenticated(ctx context.Context, claimed string) caller {
	return caller{event: telemetry.Token{ClientID: printable(claimed), Peer: remoteaddr.FromContext(ctx).String()}}
}

// credentials are the fields with which each message of a client authenticates it.
type credentials interface {
	GetClientId() string
	GetClientSecret() string
	GetClientAssertion() string
	GetClientAssertionType() string
}

// authenticate returns the caller of a request whose message offers evidence; the call itself may offer more. texts are
// further parameters of the message, and validate returns what else is wrong with them.
func (s *TokenServer) authenticate(ctx context.Context, m credentials, texts []string, validate func() error) (caller, error) {
	e := clientauth.Evidence{
		ClientID: m.GetClientId(), ClientSecret: m.GetClientSecret(),
		Assertion: m.GetClientAssertion(), AssertionType: m.GetClientAssertionType(),
		Source: remoteaddr.FromContext(ctx).IP(), Certificates: peercert.FromContext(ctx),
	}
	c := unauthenticated(ctx, e.ClientID)
	if err := cmp.Or(checkText(texts...), checkText(e.ClientID, e.ClientSecret, e.Assertion, e.AssertionType)); err != nil {
		return c, err
	}
	var err error
	if e.Authorization, err = authorization(ctx); err != nil {
		return c, err
	}
	proven, err := s.prove(ctx, e, validate)
	c.client, c.event.Method, c.event.Identity = proven.Client, proven.Method, proven.Identity
	if err != nil {
		c.event.ClientID = printable(cmp.Or(proven.ID, e.ClaimedID()))
		return c, err
	}
	c.event.ClientID = c.client.ID.String()
	return c, nil
}

// prove returns the client that the evidence of a request proves. The order is part of the contract: a stale replica says
// so before it judges a request, and a malformed request is refused before its client is authenticated.
func (s *TokenServer) prove(ctx context.Context, e clientauth.Evidence, validate func() error) (clientauth.Authentication, error) {
	if err := s.Issuer.Fresh(); err != nil {
		return clientauth.Authentication{}, err
	}
	if err := validate(); err != nil {
		return clientauth.Authentication{}, err
	}
	return s.Issuer.Authenticate(ctx, e)
}

// refuse records that the request of a caller was refused, and returns the refusal.
func (s *TokenServer) refuse(ctx context.Context, event string, c caller, err error) error {
	refusal := status.Refusal(err)
	s.Events.Refused(ctx, event, c.event, refusal)
	return refusal
}

// authorization returns the one authorization value of a call. If there were two, which of them counts would depend on
// the program that reads them.
func authorization(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", oauth.Refuse(oauth.InvalidRequest, "Authorization was sent twice.")
}

// checkText refuses the byte that ends a string in other languages.
func checkText(values ...string) error {
	for _, v := range values {
		if strings.Contains(v, "\x00") {
			return oauth.Refuse(oauth.InvalidRequest, "A parameter contains a NUL byte.")
		}
	}
	return nil
}

// printable returns id if it can be the ID of a client, and "" otherwise, so that nothing else gets into the log.
func printable(id string) string {
	if _, err := oauth.ParseClientID(id); err != nil {
		return ""
	}
	return id
}
