package clientauth

import (
	"context"
	"errors"
	"fmt"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// maxReadings bounds the ways in which raw credentials are split into ID and secret: each may cost a lookup of a client.
const maxReadings = 4

// readings returns the pairs of client ID and secret that the credentials of Basic could be without form-decoding, except
// the pair that was checked. An ID that is not encoded may have a colon, so each colon may be the one that follows the ID.
func (c *credentials) readings() []credentials {
	var found []credentials
	for i := 0; i < len(c.raw) && len(found) < maxReadings; i++ {
		if c.raw[i] != ':' {
			continue
		}
		reading := credentials{method: c.method, id: c.raw[:i], secret: c.raw[i+1:]}
		same := reading.id == c.id && reading.secret == c.secret
		if !same && reading.id != "" && reading.secret != "" && checkSizes(reading.id, reading.secret) == nil {
			found = append(found, reading)
		}
	}
	return found
}

// explainRaw adds to the cause of a failed authentication that the credentials are right as they were sent, if they are. The
// cause is in the audit event alone. Many clients do not form-encode credentials for Basic (RFC 6749 §2.3.1), so that a + or
// a % in a secret, or a colon in an ID, is decoded to something else.
//
// It is not an oracle. The response does not change, only the time until it, which depends on the request and the load
// alone, imported hashes aside: one comparison is made, with the secrets of the first reading whose client exists, and
// otherwise with none, as for an unknown client. A secret that was proven before is compared like any other, and the result
// is neither remembered nor counted.
//
// The comparison precedes the response, because the event is written then. It costs a failed request one more slow hash at
// most. No other request waits for it, because it is made only while a processor is idle and no request waits for one. The
// limits of failures, within which this request was, bound it too. And it is not a second guess, because the caller does not
// learn its result.
func (a *Authenticator) explainRaw(ctx context.Context, p proof, cause *oauth.Error) {
	readings := p.readings()
	if len(readings) == 0 {
		return
	}
	reading, client := readings[0], &registry.Client{}
	for _, r := range readings {
		id, err := oauth.ParseClientID(r.id)
		if err != nil {
			continue
		}
		found, err := a.config.Clients.Client(ctx, id)
		if err == nil {
			reading, client = r, found
			break
		}
		if !errors.Is(err, registry.ErrNotFound) {
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
