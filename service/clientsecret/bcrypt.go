package clientsecret

import (
	"encoding/base64"
	"errors"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// bcryptHash is a bcrypt hash.
type bcryptHash Hash

// matches rejects secrets that bcrypt cannot tell apart: it hashes only the first 72 bytes, and a secret that contains a
// NUL byte can equal a shorter one.
func (b bcryptHash) matches(secret string) bool {
	if len(secret) > 72 || strings.Contains(secret, "\x00") {
		return false
	}
	return bcrypt.CompareHashAndPassword([]byte(b), []byte(secret)) == nil
}

// bcryptEncoding is bcrypt's own base64 alphabet.
var bcryptEncoding = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// parseBcrypt parses "$2b$COST$", followed by 22 characters of salt and 31 of sum. The versions a, b and y denote bugs of
// old implementations; for a correct implementation they are the same.
func parseBcrypt(h Hash) (bcryptHash, error) {
	text := string(h)
	if len(text) != 60 || strings.IndexByte("aby", text[2]) < 0 || text[3] != '$' || text[6] != '$' {
		return "", errors.New("not a bcrypt hash")
	}
	// Cost 13 takes about 0.5 s; each step doubles the time.
	if cost := text[4:6]; cost < "04" || cost > "13" || cost[1] < '0' || cost[1] > '9' {
		return "", errors.New("a bcrypt hash with a cost out of bounds")
	}
	if _, err := bcryptEncoding.DecodeString(text[7:29]); err != nil {
		return "", errors.New("a bcrypt hash with a malformed salt")
	}
	if _, err := bcryptEncoding.Strict().DecodeString(text[29:]); err != nil || strings.ContainsAny(text, "\r\n") {
		return "", errors.New("a bcrypt hash with a malformed sum")
	}
	return bcryptHash(text), nil
}
