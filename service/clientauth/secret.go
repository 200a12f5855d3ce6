package clientauth

import (
	"encoding/base64"
	"net/url"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

// secret returns the one client ID and secret in the evidence, and the method by which they were sent:
// client_secret_basic or client_secret_post (RFC 6749 §2.3.1). No evidence, or an id without a secret, is a failed
// authentication: RFC 6749 §5.2 assigns "no client authentication included" to the code invalid_client.
func (e *Evidence) secret() (method, id, secret string, err error) {
	if err := e.assertion(); err != nil {
		return "", "", "", err
	}
	scheme, credentials := e.Authorization, ""
	if end := strings.IndexAny(scheme, " \t"); end >= 0 {
		scheme, credentials = scheme[:end], scheme[end:]
	}
	if !oauth.EqualFold(scheme, "Basic") {
		if e.ClientID == "" || e.ClientSecret == "" {
			return "", "", "", refused(oauth.MissingCredentials, "client_id or client_secret is missing")
		}
		return oauth.ClientSecretPost, e.ClientID, e.ClientSecret, checkSizes(e.ClientID, e.ClientSecret)
	}
	method = oauth.ClientSecretBasic
	if e.ClientSecret != "" {
		return method, "", "", oauth.Refuse(oauth.InvalidRequest, "Basic and client_secret were both sent; send one.")
	}
	id, secret, ok := ParseBasic(credentials)
	switch {
	case !ok:
		return method, "", "", refused(oauth.MalformedCredentials, "malformed Basic credentials")
	case id == "" || secret == "":
		return method, "", "", refused(oauth.MissingCredentials, "the Basic credentials lack the client ID or the secret")
	case e.ClientID != "" && e.ClientID != id:
		return method, "", "", oauth.Refuse(oauth.InvalidRequest, "client_id differs from the client of the Basic credentials.")
	}
	return method, id, secret, checkSizes(id, secret)
}

// assertion returns an error if the evidence has a client assertion (RFC 7521 §4.2). With a secret it is evidence of
// two kinds; an assertion without a type, or a type without an assertion, is malformed; and a complete one proves
// nothing, since no client has a key.
func (e *Evidence) assertion() error {
	switch {
	case e.Assertion == "" && e.AssertionType == "":
		return nil
	case e.Assertion == "" || e.AssertionType == "":
		return oauth.Refuse(oauth.InvalidRequest, "client_assertion and client_assertion_type go together.")
	case e.ClientSecret != "" || len(e.Authorization) >= len("Basic") && oauth.EqualFold(e.Authorization[:len("Basic")], "Basic"):
		return oauth.Refuse(oauth.InvalidRequest, "An assertion and a secret were both sent; send one.")
	}
	return refused(oauth.AssertionNotOffered, "client assertions are not offered")
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
	// Form encoding turns one byte into at most three, and base64 three bytes into four.
	const maxLen = (3*(oauth.MaxID+oauth.MaxSecret) + 1) * 4 / 3 * 2
	if len(credentials) > maxLen {
		return "", "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(credentials))
	if err != nil {
		return "", "", false
	}
	id, secret, ok = strings.Cut(string(decoded), ":")
	if !ok {
		return "", "", false
	}
	if id, err = url.QueryUnescape(id); err != nil {
		return "", "", false
	}
	if secret, err = url.QueryUnescape(secret); err != nil {
		return "", "", false
	}
	return id, secret, true
}
