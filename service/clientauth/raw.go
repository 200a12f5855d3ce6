package clientauth

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// reading returns the client ID and secret that the credentials of Basic could be without form-decoding, other than the pair
// that was checked: the raw credentials are split at the first colon or, if that is the pair that was checked, at the last
// one, because an ID that is not encoded may have colons. There is none if the pair is incomplete or too long.
//
// The reading depends on the request alone, whichever clients exist.
func (c *credentials) reading() (credentials, bool) {
	id, secret, _ := strings.Cut(c.raw, ":")
	if last := strings.LastIndexByte(c.raw, ':'); id == c.id && secret == c.secret && last > len(id) {
		id, secret = c.raw[:last], c.raw[last+1:]
	}
	same := id == c.id && secret == c.secret
	ok := !same && id != "" && secret != "" && checkSizes(id, secret) == nil
	return credentials{method: c.method, id: id, secret: secret}, ok
}

// explainRaw adds to the cause of a failed authentication that the credentials are right as they were sent, if they are. The
// cause is in the audit event alone. Many clients do not form-encode credentials for Basic (RFC 6749 §2.3.1), so that a + or
// a % in a secret, or a colon in an ID, is decoded to something else.
//
// It is not an oracle. The response does not change, only the time until it, which depends on the request and the load
// alone, imported hashes aside: one client is looked up and one comparison is made, for an unknown client with no secrets. A
// secret that was proven before is compared like any other, and the result is neither remembered nor counted.
//
// The comparison precedes the response, because the event is written then. It costs a failed request one more slow hash at
// most. No other request waits for it, because it is made only while a processor is idle and no request waits for one. The
// limits of failures, within which this request was, bound it too. And it is not a second guess, because the caller does not
// learn its result.
func (a *Authenticator) explainRaw(ctx context.Context, p proof, cause *oauth.Error) {
	reading, ok := p.reading()
	if !ok {
		return
	}
	client := &registry.Client{}
	if id, err := oauth.ParseClientID(reading.id); err == nil {
		found, err := a.config.Clients.Client(ctx, id)
		switch {
		case err == nil:
			client = found
		case !errors.Is(err, registry.ErrNotFound):
			return
		}
	}
	if found := a.secrets.compareIdle(ctx, attempt{proof{reading, p.source, p.at}, client, false}); !found {
		return
	}
	switch cause.Reason {
	case oauth.UnknownClient, oauth.WrongSecret, oauth.MalformedCredentials:
		cause.Cause = fmt.Errorf("%w; as they were sent, without form-decoding (RFC 6749 §2.3.1), the credentials are right for client %q: "+
			"it must encode + as %%2B, %% as %%25 and : as %%3A", cause.Cause, client.ID)
	}
}

// compareIdle reports whether a secret is one of the client's. It reports false for a chosen secret if no processor is idle.
func (s *secrets) compareIdle(ctx context.Context, a attempt) (found bool) {
	if clientsecret.Generated(a.secret) {
		return s.compare(&a).found()
	}
	s.queue.tryNow(func() {
		if s.onSlow != nil {
			defer s.onSlow(ctx)()
		}
		found = s.compare(&a).found()
	})
	return found
}
