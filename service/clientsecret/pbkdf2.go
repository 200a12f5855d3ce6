package clientsecret

import (
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // in an HMAC, and only to verify imported hashes
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
)

// prf is a pseudorandom function of PBKDF2: HMAC with a hash function.
type prf struct {
	name string
	hash func() hash.Hash
	size int
}

// prfs are in the order in which ASP.NET Core numbers them.
var prfs = []prf{{"sha1", sha1.New, sha1.Size}, {"sha256", sha256.New, sha256.Size}, {"sha512", sha512.New, sha512.Size}}

// pbkdf2Hash is a PBKDF2 hash (RFC 8018 §5.2).
type pbkdf2Hash struct {
	prf        prf
	iterations uint32
	salt, sum  []byte
}

func (p pbkdf2Hash) matches(secret string) bool {
	sum, err := pbkdf2.Key(p.prf.hash, secret, p.salt, int(p.iterations), len(p.sum))
	return err == nil && subtle.ConstantTimeCompare(sum, p.sum) == 1
}

// check bounds the cost, which is the iterations times the blocks of the sum: PBKDF2 computes each block separately.
func (p pbkdf2Hash) check() error {
	const maxIterations = 2_000_000 // about 1 s
	if err := checkSizes(p.salt, p.sum); err != nil {
		return fmt.Errorf("a PBKDF2 hash with %w", err)
	}
	blocks := (len(p.sum) + p.prf.size - 1) / p.prf.size
	if p.iterations == 0 || uint64(p.iterations)*uint64(blocks) > maxIterations { //nolint:gosec // a few blocks
		return errors.New("a PBKDF2 hash with costs out of bounds")
	}
	return nil
}

// parsePHC parses "$pbkdf2-sha256$i=25000,l=32$SALT$SUM".
func parsePHC(h Hash) (pbkdf2Hash, error) {
	var p pbkdf2Hash
	parts := strings.Split(string(h), "$")
	if len(parts) != 5 {
		return p, errors.New("not a PBKDF2 hash")
	}
	i := slices.IndexFunc(prfs, func(f prf) bool { return "pbkdf2-"+f.name == parts[1] })
	if i < 0 {
		return p, errors.New("a PBKDF2 hash with a function other than SHA-1, SHA-256 and SHA-512")
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
	canonical := fmt.Sprintf("%s%s$i=%d,l=%d$%s$%s", phcPrefix, p.prf.name, p.iterations, len(p.sum),
		base64.RawStdEncoding.EncodeToString(p.salt), base64.RawStdEncoding.EncodeToString(p.sum))
	if canonical != string(h) {
		return p, errors.New("a PBKDF2 hash in an unusual form")
	}
	return p, p.check()
}

// parseOpenIddict parses base64 of a byte 1, the number of the function, the iterations and the size of the salt, each in
// four bytes, followed by the salt and the sum. OpenIddict inherits this layout from ASP.NET Core Identity.
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
