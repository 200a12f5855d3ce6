package registry

import (
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // in an HMAC, and only to read what others wrote
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Hash is a secret as it is stored: "$hmac-sha256$MAC" for a generated one, the usual "$argon2id$…" for a chosen one, and
// for an imported one what the server wrote that it came from, see [ParseImported].
type Hash string

const (
	macPrefix    = "$hmac-sha256$"
	argonPrefix  = "$argon2id$"
	bcryptPrefix = "$2"
	phcPrefix    = "$pbkdf2-"
	// openIddictPrefix is ours; what OpenIddict stores has none.
	openIddictPrefix = "$openiddict$"
)

// Kind is what form a stored hash has.
type Kind int

// The kinds.
const (
	// KindUnknown is no hash that is known here. Nothing matches it.
	KindUnknown Kind = iota
	// KindGenerated is the keyed hash of a secret that [NewSecret] made.
	KindGenerated
	// KindChosen is the Argon2id hash of a secret that a person chose.
	KindChosen
	// KindImported is a hash that another server made. One by Argon2id at our own cost is as good as ours, and
	// [KindChosen].
	KindImported
)

// Kind tells what form the hash has.
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

// ParseImported reads a hash of a secret that another server made, and gives it as it is stored here:
//
//	$2a$, $2b$, $2y$                                bcrypt, at a cost of at most 13, as of Ory Hydra
//	$pbkdf2-sha256$i=25000,l=32$SALT$SUM            PBKDF2 as of Ory Hydra; also sha1 and sha512
//	AQAAAAEAACcQ…                                   PBKDF2 as of OpenIddict and ASP.NET Core Identity
//	$argon2id$v=19$m=65536,t=3,p=4$SALT$SUM         Argon2id
//
// An error says that the text is none of these, and never quotes it.
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

// slowHash is a hash that is slow by intention, as it was read.
type slowHash interface {
	// matches reports, in constant time, whether the hash is that of secret.
	matches(secret string) bool
}

// parseSlow reads a hash. All costs are bounded: whoever can write a record must not be able to make a replica run out of
// time or memory by it.
func parseSlow(h Hash) (slowHash, error) {
	const longest = 512
	text := string(h)
	switch {
	case len(text) > longest:
	case strings.HasPrefix(text, argonPrefix):
		return parseArgon(h)
	case strings.HasPrefix(text, bcryptPrefix):
		return parseBcrypt(h)
	case strings.HasPrefix(text, phcPrefix):
		return parsePHC(h)
	case strings.HasPrefix(text, openIddictPrefix):
		return parseOpenIddict(h)
	}
	return nil, errNoSlowHash
}

var errNoSlowHash = errors.New("not a hash by bcrypt, PBKDF2 or Argon2id in a form that is known here")

// argonCost is what a computation of Argon2id costs.
type argonCost struct {
	memory, time uint32 // KiB and passes
	threads      uint8
}

// chosenCost is the cost for a chosen secret: the first choice of OWASP's password storage guidance, about 20 ms.
var chosenCost = argonCost{memory: 19 << 10, time: 2, threads: 1}

// The sizes for a chosen secret, in bytes.
const (
	chosenSalt = 16
	chosenSum  = 32
)

// deriveChosen computes the sum of a chosen secret.
func deriveChosen(salt, secret string) []byte {
	return argon2.IDKey([]byte(secret), []byte(salt), chosenCost.time, chosenCost.memory, chosenCost.threads, chosenSum)
}

// Bounds on what an imported Argon2id hash may cost: the second choice of RFC 9106 §4, in KiB and in KiB times passes.
const (
	mostMemory = 64 << 10
	mostWork   = 3 * mostMemory
)

// argonHash is a hash by Argon2id.
type argonHash struct {
	cost      argonCost
	salt, sum string
}

// hash writes it in the form of the Argon2 reference implementation.
func (a argonHash) hash() Hash {
	return Hash(fmt.Sprintf("%sv=%d$m=%d,t=%d,p=%d$%s$%s", argonPrefix, argon2.Version, a.cost.memory, a.cost.time, a.cost.threads,
		base64.RawStdEncoding.EncodeToString([]byte(a.salt)), base64.RawStdEncoding.EncodeToString([]byte(a.sum))))
}

// chosen reports whether the hash is of the kind that is made here.
func (a argonHash) chosen() bool {
	return a.cost == chosenCost && len(a.salt) == chosenSalt && len(a.sum) == chosenSum
}

func (a argonHash) matches(secret string) bool {
	sum := argon2.IDKey([]byte(secret), []byte(a.salt), a.cost.time, a.cost.memory, a.cost.threads, uint32(len(a.sum))) //nolint:gosec // at most 64
	return subtle.ConstantTimeCompare(sum, []byte(a.sum)) == 1
}

// parseArgon reads a hash in the form of the Argon2 reference implementation.
func parseArgon(h Hash) (argonHash, error) {
	var a argonHash
	var version int
	parts := strings.Split(string(h), "$")
	if len(parts) != 6 {
		return a, errors.New("not an Argon2id hash")
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return a, errors.New("an Argon2id hash of another version")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &a.cost.memory, &a.cost.time, &a.cost.threads); err != nil {
		return a, fmt.Errorf("the costs of an Argon2id hash: %w", err)
	}
	if c := a.cost; c.memory > mostMemory || c.time == 0 || c.time > 10 || c.memory*c.time > mostWork || c.threads == 0 || c.threads > 16 {
		return a, errors.New("an Argon2id hash with costs out of bounds")
	}
	salt, sum, err := parseSaltAndSum(parts[4], parts[5])
	if err != nil {
		return a, fmt.Errorf("an Argon2id hash with %w", err)
	}
	a.salt, a.sum = string(salt), string(sum)
	if a.hash() != h {
		return a, errors.New("an Argon2id hash in an unusual form")
	}
	return a, nil
}

// parseSaltAndSum reads the end of a hash in the PHC string format.
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

// bcryptHash is a hash by bcrypt.
type bcryptHash Hash

// matches refuses what bcrypt does not tell apart: it looks at 72 bytes and no more, and a secret with a NUL byte in it
// can look like a shorter one.
func (b bcryptHash) matches(secret string) bool {
	if len(secret) > 72 || strings.Contains(secret, "\x00") {
		return false
	}
	return bcrypt.CompareHashAndPassword([]byte(b), []byte(secret)) == nil
}

// bcryptText is bcrypt's own base64.
var bcryptText = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// parseBcrypt reads "$2b$COST$" with 22 characters of salt and 31 of sum. The versions a, b and y differ in the faults
// that old programs had, and not for who has none.
func parseBcrypt(h Hash) (bcryptHash, error) {
	text := string(h)
	if len(text) != 60 || strings.IndexByte("aby", text[2]) < 0 || text[3] != '$' || text[6] != '$' {
		return "", errors.New("not a bcrypt hash")
	}
	// About 0.5 s at the most; each step doubles it.
	if cost := text[4:6]; cost < "04" || cost > "13" || cost[1] < '0' || cost[1] > '9' {
		return "", errors.New("a bcrypt hash with a cost out of bounds")
	}
	if _, err := bcryptText.DecodeString(text[7:29]); err != nil {
		return "", errors.New("a bcrypt hash with a malformed salt")
	}
	if _, err := bcryptText.Strict().DecodeString(text[29:]); err != nil || strings.ContainsAny(text, "\r\n") {
		return "", errors.New("a bcrypt hash with a malformed sum")
	}
	return bcryptHash(text), nil
}

// prf is a pseudo-random function of PBKDF2, named by the hash of its HMAC.
type prf struct {
	name string
	hash func() hash.Hash
	size int
}

// prfs are in the order in which ASP.NET Core numbers them.
var prfs = []prf{{"sha1", sha1.New, sha1.Size}, {"sha256", sha256.New, sha256.Size}, {"sha512", sha512.New, sha512.Size}}

// pbkdf2Hash is a hash by PBKDF2 (RFC 8018 §5.2).
type pbkdf2Hash struct {
	prf        prf
	iterations uint32
	salt, sum  []byte
}

func (p pbkdf2Hash) matches(secret string) bool {
	sum, err := pbkdf2.Key(p.prf.hash, secret, p.salt, int(p.iterations), len(p.sum))
	return err == nil && subtle.ConstantTimeCompare(sum, p.sum) == 1
}

// check bounds the cost, which each started block of the sum has anew.
func (p pbkdf2Hash) check() error {
	const most = 2_000_000 // about 1 s
	if err := checkSizes(p.salt, p.sum); err != nil {
		return fmt.Errorf("a PBKDF2 hash with %w", err)
	}
	blocks := (len(p.sum) + p.prf.size - 1) / p.prf.size
	if p.iterations == 0 || uint64(p.iterations)*uint64(blocks) > most { //nolint:gosec // a few blocks
		return errors.New("a PBKDF2 hash with costs out of bounds")
	}
	return nil
}

// parsePHC reads "$pbkdf2-sha256$i=25000,l=32$SALT$SUM".
func parsePHC(h Hash) (pbkdf2Hash, error) {
	var p pbkdf2Hash
	parts := strings.Split(string(h), "$")
	if len(parts) != 5 {
		return p, errors.New("not a PBKDF2 hash")
	}
	i := slices.IndexFunc(prfs, func(f prf) bool { return "pbkdf2-"+f.name == parts[1] })
	if i < 0 {
		return p, errors.New("a PBKDF2 hash with another function than SHA-1, SHA-256 or SHA-512")
	}
	p.prf = prfs[i]
	var size int
	if _, err := fmt.Sscanf(parts[2], "i=%d,l=%d", &p.iterations, &size); err != nil {
		return p, fmt.Errorf("the costs of a PBKDF2 hash: %w", err)
	}
	var err error
	if p.salt, p.sum, err = parseSaltAndSum(parts[3], parts[4]); err != nil {
		return p, fmt.Errorf("a PBKDF2 hash with %w", err)
	}
	written := fmt.Sprintf("%s%s$i=%d,l=%d$%s$%s", phcPrefix, p.prf.name, p.iterations, len(p.sum),
		base64.RawStdEncoding.EncodeToString(p.salt), base64.RawStdEncoding.EncodeToString(p.sum))
	if written != string(h) {
		return p, errors.New("a PBKDF2 hash in an unusual form")
	}
	return p, p.check()
}

// parseOpenIddict reads base64 of a byte 1, the number of the function, the iterations, the size of the salt, each in four
// bytes, the salt and the sum. OpenIddict has it from ASP.NET Core Identity.
func parseOpenIddict(h Hash) (pbkdf2Hash, error) {
	const header = 13
	var p pbkdf2Hash
	text := strings.TrimPrefix(string(h), openIddictPrefix)
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != text || len(raw) < header || raw[0] != 1 {
		return p, errors.New("not a hash of OpenIddict or ASP.NET Core Identity")
	}
	function, salt := binary.BigEndian.Uint32(raw[1:]), binary.BigEndian.Uint32(raw[9:])
	if function >= uint32(len(prfs)) || uint64(salt) > uint64(len(raw)-header) { //nolint:gosec // neither is negative
		return p, errors.New("a malformed hash of OpenIddict or ASP.NET Core Identity")
	}
	p = pbkdf2Hash{prfs[function], binary.BigEndian.Uint32(raw[5:]), raw[header : header+salt], raw[header+salt:]}
	return p, p.check()
}
