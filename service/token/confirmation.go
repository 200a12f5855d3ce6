package token

import (
	"encoding/json"
	"errors"

	"github.com/grantorhq/grantor/service/jws"
)

// Confirmation names the key that the holder of a token must prove (RFC 7800 §3, the claim "cnf"). The zero value is
// that of a bearer token, which needs no proof.
type Confirmation struct {
	// CertificateThumbprint is the base64url encoding of the SHA-256 hash of a client certificate in DER (RFC 8705 §3.1,
	// "x5t#S256"); empty if the token is bound to none.
	CertificateThumbprint string
	// KeyThumbprint is the RFC 7638 thumbprint, with SHA-256, of a key that signs DPoP proofs (RFC 9449 §6.1, "jkt");
	// empty if the token is bound to none.
	KeyThumbprint string
	// Unknown reports that the token is bound by a member that this package does not know. No proof can be checked then, so
	// that the token must be refused.
	Unknown bool
}

// Bound reports whether the token is bound to a key.
func (c *Confirmation) Bound() bool {
	return c.CertificateThumbprint != "" || c.KeyThumbprint != "" || c.Unknown
}

// Methods returns the names of the members of the claim (RFC 7800 §6.2), separated by a space; empty for a bearer
// token. It does not name an unknown one.
func (c *Confirmation) Methods() string {
	switch {
	case c.CertificateThumbprint != "" && c.KeyThumbprint != "":
		return "x5t#S256 jkt"
	case c.CertificateThumbprint != "":
		return "x5t#S256"
	case c.KeyThumbprint != "":
		return "jkt"
	}
	return ""
}

// confirmation is the signed form of Confirmation.
type confirmation struct {
	CertificateThumbprint string `json:"x5t#S256,omitempty"`
	KeyThumbprint         string `json:"jkt,omitempty"`
}

// marshal returns the signed form; nil for the zero value.
func (c *Confirmation) marshal() *confirmation {
	if !c.Bound() {
		return nil
	}
	return &confirmation{c.CertificateThumbprint, c.KeyThumbprint}
}

// parseConfirmation parses the claim "cnf".
func parseConfirmation(raw json.RawMessage) (c Confirmation, err error) {
	if raw == nil {
		return c, nil
	}
	// A map, so that names are compared with their letter case.
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || len(members) == 0 {
		return c, errors.New("the claim cnf is not an object with members")
	}
	for name, value := range members {
		ok := true
		switch name {
		case "x5t#S256":
			ok = jws.String(value, &c.CertificateThumbprint) && c.CertificateThumbprint != ""
		case "jkt":
			ok = jws.String(value, &c.KeyThumbprint) && c.KeyThumbprint != ""
		default:
			c.Unknown = true
		}
		if !ok {
			return c, errors.New("a member of the claim cnf is not a string")
		}
	}
	return c, nil
}
