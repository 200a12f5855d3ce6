package clientauth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

const (
	// AssertionType is the client_assertion_type of a JWT (RFC 7523 §2.2).
	AssertionType = clientassertion.Type
	// AssertionMediaType is the "typ" of a client assertion (RFC 10070).
	AssertionMediaType = clientassertion.MediaType

	// maxAssertionLife is how far the "exp" of an assertion may be ahead. Each one is remembered that long.
	maxAssertionLife = 10 * time.Minute
	// replayMargin is how much longer than its life a used assertion is remembered. The clocks of the store, which forgets
	// it, and of another replica, which would accept it again, may be that far apart.
	replayMargin = 30 * time.Second
	// maxAssertionID is the maximum length of the "jti" of an assertion, in bytes.
	maxAssertionID = 255
)

// Replays remembers which assertions were used, for all replicas. Implementations are safe for concurrent use by multiple
// goroutines.
type Replays interface {
	// Use reports whether this is the first use of the assertion with the ID, and remembers the ID until the given time. An
	// error means that it is not known; the assertion must then be refused.
	Use(ctx context.Context, id [sha256.Size]byte, until time.Time) (first bool, err error)
}

// parseAssertion parses the assertion of the evidence (RFC 7521 §4.2). Its signature is not verified.
func (e *Evidence) parseAssertion() (*trust.Token, error) {
	switch {
	case e.AssertionType != AssertionType && e.AssertionType != SPIFFEAssertionType:
		return nil, refused(oauth.MalformedCredentials, "client_assertion_type is neither that of a JWT nor that of a JWT-SVID") // it may be a misplaced secret
	case len(e.Assertion) > clientassertion.MaxSize:
		return nil, oauth.Refuse(oauth.InvalidRequest, "client_assertion has more than 8192 bytes.")
	}
	var sent *trust.Token
	message, err := jws.Parse(e.Assertion)
	if err == nil {
		sent, err = trust.ReadToken(message, e.AssertionType == SPIFFEAssertionType)
	}
	if err != nil {
		return nil, refused(oauth.MalformedCredentials, "client_assertion: %w", err)
	}
	return sent, nil
}

// authenticateByAssertion returns the client that the assertion of the evidence proves. Every assertion but one of an
// issuer that was verified before costs one verification of a signature, be the client known or not.
func (a *Authenticator) authenticateByAssertion(ctx context.Context, e Evidence) (Authentication, error) {
	// An assertion of the usual size is copied to the stack, which a conversion would not do.
	sum := sha256.Sum256(append(make([]byte, 0, 2<<10), e.Assertion...))
	switch v, table, err := a.recall(ctx, e, sum); {
	case err != nil:
		return Authentication{Method: oauth.FederatedJWT}, err
	case v != nil:
		return a.authenticateVouched(ctx, e, v, table)
	}
	sent, err := e.parseAssertion()
	if err != nil {
		p := proof{credentials{id: e.ClientID}, e.Source, a.config.Now()}
		return Authentication{}, a.failed(ctx, p, err)
	}
	if federated(sent) {
		return a.authenticateFederated(ctx, e, sent, sum)
	}
	return a.authenticateByKey(ctx, e, sent)
}

// authenticateByKey returns the client that signed the assertion with a key of its own.
func (a *Authenticator) authenticateByKey(ctx context.Context, e Evidence, sent *trust.Token) (Authentication, error) {
	p := proof{credentials{id: sent.Identity.Subject, method: oauth.PrivateKeyJWT}, e.Source, a.config.Now()}
	client, known, err := a.find(ctx, p.id)
	if err != nil {
		return Authentication{Method: p.method}, err
	}
	chosen, err := a.clientKey(ctx, client, sent.Message.Header)
	if err != nil {
		return Authentication{Method: p.method}, err
	}
	cause := chosen.verify(sent.Message)
	if cause == nil {
		cause = a.checkAssertion(sent, client, e.ClientID, p.at)
	}
	switch {
	case !known:
		return Authentication{Method: p.method}, a.fail(ctx, p, refused(oauth.UnknownClient, "unknown client"))
	case cause != nil:
		return Authentication{Method: p.method}, a.fail(ctx, p, refused(oauth.WrongAssertion, "the assertion for client %q: %w", p.id, cause))
	}
	if refusal := a.checkUsable(p, client); refusal != nil {
		return Authentication{Method: p.method}, a.fail(ctx, p, refusal)
	}
	if err := a.useOnce(ctx, p, sent); err != nil {
		return Authentication{Method: p.method}, err
	}
	return Authentication{Client: client, Method: p.method, Identity: cmp.Or(chosen.key.ID(), chosen.key.Thumbprint())}, nil
}

// clientKey returns the key of the client that the header of an assertion selects.
func (a *Authenticator) clientKey(ctx context.Context, client *registry.Client, header jws.Header) (choice, error) {
	key, err := a.keys.find(ctx, client, header.KeyID)
	if err != nil && !errors.Is(err, jwks.ErrUnknownKey) {
		return choice{}, unreachableKeys(client, err)
	}
	return choose(header, key, err), nil
}

// unreachableKeys returns the refusal of a request whose client has keys that cannot be fetched.
func unreachableKeys(client *registry.Client, err error) *oauth.Error {
	return &oauth.Error{
		Code: oauth.TemporarilyUnavailable, Reason: oauth.KeysUnreachable, RetryAfter: time.Second,
		Text: "The keys of the client cannot be fetched.", Cause: fmt.Errorf("the keys of client %q: %w", client.ID, err),
	}
}

// checkAssertion returns what is wrong with the claims of an assertion whose signature is right (RFC 7523 §3, RFC 10070).
func (a *Authenticator) checkAssertion(sent *trust.Token, client *registry.Client, clientID string, now time.Time) error {
	if clientID != "" && clientID != sent.Identity.Subject {
		return errors.New("client_id is not its sub")
	}
	if err := a.checkType(sent.Message.Header.Type, client, now); err != nil {
		return err
	}
	if err := a.checkAudience(sent.Claims, client, now); err != nil {
		return err
	}
	if err := checkTimes(sent.Claims, now); err != nil {
		return err
	}
	switch id, err := sent.Claims.Text("jti"); {
	case err != nil:
		return err
	case len(id) > maxAssertionID:
		return fmt.Errorf("jti has more than %d bytes", maxAssertionID)
	}
	return nil
}

// checkType returns what is wrong with the "typ" of an assertion. The type keeps other JWTs that the client signs with the
// same key from passing as assertions.
func (a *Authenticator) checkType(typ string, client *registry.Client, now time.Time) error {
	name := jws.MediaType(typ)
	if oauth.EqualFold(name, AssertionMediaType) {
		return nil
	}
	if (typ == "" || oauth.EqualFold(name, "JWT")) && now.Before(client.UntypedAssertionsUntil) {
		return nil
	}
	return fmt.Errorf("typ is %.40q, want %s", typ, AssertionMediaType)
}

// checkAudience returns what is wrong with the "aud" of an assertion: it is the issuer identifier alone (RFC 10070), so
// that no other server that the client authenticates to can pass the assertion on.
func (a *Authenticator) checkAudience(claims jws.Claims, client *registry.Client, now time.Time) error {
	own := a.config.Issuer.String()
	audience := claims.Texts("aud")
	if len(audience) == 1 && audience[0] == own && strings.HasPrefix(string(claims["aud"]), `"`) {
		return nil
	}
	if now.Before(client.OlderAudiencesUntil) && slices.ContainsFunc(audience, func(a string) bool {
		return a == own || a == own+"/connect/token"
	}) {
		return nil
	}
	return fmt.Errorf("aud is %.200s, want the issuer alone as a string", claims["aud"])
}

// checkTimes returns what is wrong with the times of an assertion.
func checkTimes(claims jws.Claims, now time.Time) error {
	v, err := trust.ReadValidity(claims)
	switch {
	case err != nil:
		return err
	case v.Expires.After(now.Add(maxAssertionLife + trust.Leeway)):
		return fmt.Errorf("exp is %s, more than %s ahead", v.Expires.UTC().Format(time.RFC3339), maxAssertionLife)
	}
	return v.Check(now)
}

// useOnce returns an error unless this is the first use of a verified assertion at any replica.
func (a *Authenticator) useOnce(ctx context.Context, p proof, sent *trust.Token) error {
	id, err := sent.Claims.Text("jti")
	if err != nil {
		return err
	}
	expires, err := sent.Claims.Time("exp")
	if err != nil {
		return err
	}
	switch first, err := a.config.Replays.Use(ctx, assertionID(p.id, id), expires.Add(replayMargin)); {
	case err != nil:
		return oauth.StoreUnavailable(ctx, oauth.StoreUnreachable, fmt.Errorf("whether the assertion of client %q was used: %w", p.id, err))
	case !first:
		return a.fail(ctx, p, refused(oauth.AssertionReplayed, "client %q sent the assertion with jti %.100q before", p.id, id))
	}
	return nil
}

// assertionID returns the ID under which an assertion is remembered.
func assertionID(issuer, id string) [sha256.Size]byte {
	// The length keeps two pairs from having one ID.
	data := binary.BigEndian.AppendUint64(nil, uint64(len(issuer)))
	return sha256.Sum256(append(append(data, issuer...), id...))
}
