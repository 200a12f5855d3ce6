package clientsecret

import (
	"encoding/base64"
	"errors"
	"strings"
)

// Hash is the stored form of a secret: "$hmac-sha256$MAC" of a generated one, the usual "$argon2id$…" of a chosen one, and
// of an imported one the hash of the server that it came from, see [ParseImported].
type Hash string

const (
	macPrefix    = "$hmac-sha256$"
	argonPrefix  = "$argon2id$"
	bcryptPrefix = "$2"
	phcPrefix    = "$pbkdf2-"
	// openIddictPrefix is ours; what OpenIddict stores has no prefix.
	openIddictPrefix = "$openiddict$"
)

// Kind is the form of a stored hash.
type Kind int

// The kinds.
const (
	// KindUnknown is a hash in no supported form. Nothing matches it.
	KindUnknown Kind = iota
	// KindGenerated is the keyed hash of a secret that [New] returned.
	KindGenerated
	// KindChosen is the Argon2id hash of a secret that a person chose.
	KindChosen
	// KindImported is a hash that another server made. An Argon2id hash at our own cost is as good as ours, and
	// [KindChosen].
	KindImported
)

// Kind returns the form of the hash.
func (h Hash) Kind() Kind {
	if strings.HasPrefix(string(h), macPrefix) {
		return KindGenerated
	}
	parsed, err := parseSlow(h)
	if err != nil {
		return KindUnknown
	}
	if argon, ok := parsed.(argonHash); ok && argon.chosen() {
		return KindChosen
	}
	return KindImported
}

// ParseImported parses the hash of a secret that another server made, and returns it in its stored form:
//
//	$2a$, $2b$, $2y$                                bcrypt, at a cost of at most 13, from Ory Hydra
//	$pbkdf2-sha256$i=25000,l=32$SALT$SUM            PBKDF2 from Ory Hydra; also sha1 and sha512
//	AQAAAAEAACcQ…                                   PBKDF2 from OpenIddict and ASP.NET Core Identity
//	$argon2id$v=19$m=65536,t=3,p=4$SALT$SUM         Argon2id
//
// An error reports that the text is none of these, and never quotes it.
func ParseImported(text string) (Hash, error) {
	if !strings.HasPrefix(text, "$") {
		text = openIddictPrefix + text
	}
	_, err := parseSlow(Hash(text))
	if err != nil {
		return "", err
	}
	return Hash(text), nil
}

// slowHash is a parsed hash that is slow by design.
type slowHash interface {
	// matches reports, in constant time, whether the hash is that of secret.
	matches(secret string) bool
}

// parseSlow parses a hash. All costs are bounded: an attacker who can write a record must not be able to exhaust the time
// or memory of a replica with it.
func parseSlow(h Hash) (slowHash, error) {
	const maxHash = 512
	text := string(h)
	switch {
	case len(text) > maxHash:
	case strings.HasPrefix(text, argonPrefix):
		return parseArgon(h)
	case strings.HasPrefix(text, bcryptPrefix):
		return parseBcrypt(h)
	case strings.HasPrefix(text, phcPrefix):
		return parsePHC(h)
	case strings.HasPrefix(text, openIddictPrefix):
		return parseOpenIddict(h)
	}
	return nil, errNotSlow
}

var errNotSlow = errors.New("not a bcrypt, PBKDF2 or Argon2id hash in a supported form")

// parseSaltAndSum parses the last two parts of a hash in the PHC string format.
func parseSaltAndSum(saltText, sumText string) (salt, sum []byte, err error) {
	if salt, err = base64.RawStdEncoding.DecodeString(saltText); err != nil {
		return nil, nil, errors.New("a malformed salt")
	}
	if sum, err = base64.RawStdEncoding.DecodeString(sumText); err != nil {
		return nil, nil, errors.New("a malformed sum")
	}
	return salt, sum, checkSizes(salt, sum)
}

func checkSizes(salt, sum []byte) error {
	switch {
	case len(salt) < 8 || len(salt) > 64:
		return errors.New("a salt of an unusual size")
	case len(sum) < 16 || len(sum) > 64:
		return errors.New("a sum of an unusual size")
	}
	return nil
}
