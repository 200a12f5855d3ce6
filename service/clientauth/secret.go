package clientauth

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

// credentials are a client ID and a secret, and the method by which they were sent.
type credentials struct {
	method, id, secret string
	// raw are the credentials of Basic as they were sent, before they were split at the first colon and form-decoded.
	raw string
}

// credentials returns the one client ID and secret in the evidence, and the method by which they were sent:
// client_secret_basic or client_secret_post (RFC 6749 §2.3.1). No evidence, or an ID without a secret, is a failed
// authentication: RFC 6749 §5.2 assigns "no client authentication included" to the code invalid_client. With an error, the
// method and the ID are returned as far as they are known.
func (e *Evidence) credentials() (credentials, error) {
	value, basic := e.basic()
	if !basic {
		if e.ClientID == "" || e.ClientSecret == "" {
			return credentials{id: e.ClientID}, refused(oauth.MissingCredentials, "client_id or client_secret is missing")
		}
		c := credentials{method: oauth.ClientSecretPost, id: e.ClientID, secret: e.ClientSecret}
		return c, checkSizes(c.id, c.secret)
	}
	c := credentials{method: oauth.ClientSecretBasic, id: e.ClientID}
	if e.ClientSecret != "" {
		return c, oauth.Refuse(oauth.InvalidRequest, "Basic and client_secret were both sent; send one.")
	}
	raw, ok := decodeBasic(value)
	if !ok {
		return c, refused(oauth.MalformedCredentials, "malformed Basic credentials")
	}
	id, secret, ok := parsePair(raw)
	switch {
	case !ok:
		c.raw = raw
		c.id, _, _ = strings.Cut(raw, ":")
		return c, refused(oauth.MalformedCredentials, "the Basic credentials are not form-encoded")
	case id == "" || secret == "":
		return c, refused(oauth.MissingCredentials, "the Basic credentials lack the client ID or the secret")
	case e.ClientID != "" && e.ClientID != id:
		return c, oauth.Refuse(oauth.InvalidRequest, "client_id differs from the client of the Basic credentials.")
	}
	c.id, c.secret, c.raw = id, secret, raw
	return c, checkSizes(id, secret)
}

// basic returns the credentials of the Authorization header; ok is false if its scheme is not Basic.
func (e *Evidence) basic() (credentials string, ok bool) {
	scheme, value := e.Authorization, ""
	if end := strings.IndexAny(scheme, " \t"); end >= 0 {
		scheme, value = scheme[:end], scheme[end:]
	}
	return value, oauth.EqualFold(scheme, "Basic")
}

// checkKinds returns an error if the evidence is of two kinds (RFC 6749 §2.3), or has an assertion without its type or a
// type without an assertion (RFC 7521 §4.2).
func (e *Evidence) checkKinds() error {
	switch {
	case e.Assertion == "" && e.AssertionType == "":
		return nil
	case e.Assertion == "" || e.AssertionType == "":
		return oauth.Refuse(oauth.InvalidRequest, "client_assertion and client_assertion_type go together.")
	case e.ClientSecret != "" || len(e.Authorization) >= len("Basic") && oauth.EqualFold(e.Authorization[:len("Basic")], "Basic"):
		return oauth.Refuse(oauth.InvalidRequest, "An assertion and a secret were both sent; send one.")
	}
	return nil
}

// checkSizes returns an error if the client ID or the secret is too long.
func checkSizes(id, secret string) error {
	switch {
	case len(id) > oauth.MaxID:
		return oauth.Refuse(oauth.InvalidRequest, "client_id has more than 255 characters.")
	case len(secret) > oauth.MaxSecret:
		return oauth.Refuse(oauth.InvalidRequest, "client_secret has more than 512 characters.")
	}
	return nil
}

// ParseBasic parses the credentials of the Basic scheme: the base64 encoding of the client ID, a colon and the secret,
// where ID and secret are form-encoded (RFC 7617 §2, RFC 6749 §2.3.1).
func ParseBasic(credentials string) (id, secret string, ok bool) {
	raw, ok := decodeBasic(credentials)
	if !ok {
		return "", "", false
	}
	return parsePair(raw)
}

// decodeBasic returns the form-encoded client ID, a colon and the form-encoded secret.
func decodeBasic(credentials string) (raw string, ok bool) {
	// Form encoding turns one byte into at most three, and base64 three bytes into four.
	const maxLen = (3*(oauth.MaxID+oauth.MaxSecret) + 1) * 4 / 3 * 2
	if len(credentials) > maxLen {
		return "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.Trim(credentials, " \t"))
	return string(decoded), err == nil && bytes.Contains(decoded, []byte(":"))
}

// parsePair parses what decodeBasic returned.
func parsePair(raw string) (id, secret string, ok bool) {
	id, secret, _ = strings.Cut(raw, ":")
	var err error
	if id, err = url.QueryUnescape(id); err != nil {
		return "", "", false
	}
	if secret, err = url.QueryUnescape(secret); err != nil {
		return "", "", false
	}
	return id, secret, true
}
