package dpop

import (
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
)

// Request is the request that a proof came with.
type Request struct {
	// Method is the method of the request: POST for a gRPC call.
	Method string
	// URLs are the URLs under which clients may know the target of the request. The proof must be for one of them.
	URLs []string
	// Token is the access token in the request; empty at the token endpoint.
	Token string
	// KeyThumbprint is that of the key to which the token is bound. If it is empty, the proof may be made with any key.
	KeyThumbprint string
	// NextNonce is the nonce that the server provides with its response, if it is one of [NewContext].
	NextNonce string
}

// Proof is a valid proof.
type Proof struct {
	// KeyThumbprint is the RFC 7638 thumbprint of the key that signed the proof, with SHA-256, in base64url.
	KeyThumbprint string
	// NextNonce is the nonce for the next proof, if the one in this proof is not the current one; otherwise empty.
	NextNonce string
}

// Verifier verifies proofs. Its fields must not be changed after the first use, and it must not be copied. It is safe for
// concurrent use by multiple goroutines.
type Verifier struct {
	// Replays remembers the proofs that were used. It is required.
	Replays *Replays
	// Nonces are those that a proof must contain one of. If it is nil, a nonce is not required, and one that is sent is
	// ignored.
	Nonces *Nonces
	// Now returns the current time. If it is nil, time.Now is used.
	Now func() time.Time

	keys keyCache
}

// Verify checks a proof in every respect of RFC 9449 §4.3 and records its use. The caller checks that the request has one proof
// ([One]). An error wraps [ErrProof], [ErrKey] or [ErrNonce]; the rest of its text is for the log and may quote the proof.
func (v *Verifier) Verify(raw string, r *Request) (*Proof, error) {
	if len(raw) > MaxSize {
		return nil, fail("%d bytes", len(raw))
	}
	signed, signature64, ok := jws.CutLast(raw)
	header, payload64, ok2 := strings.Cut(signed, ".")
	if !ok || !ok2 {
		return nil, fail("not three parts")
	}
	key, known := v.keys.find(header)
	if !known {
		var err error
		if key, err = parseHeader(raw); err != nil {
			return nil, err
		}
	}
	if r.KeyThumbprint != "" && key.Thumbprint() != r.KeyThumbprint {
		// Before anything is recorded: whoever has stolen a token, without its key, cannot fill the memory of proofs with his own.
		return nil, ErrKey
	}
	claims, err := parseClaims(payload64)
	if err != nil {
		return nil, err
	}
	now := v.now()
	if err := claims.check(r, now); err != nil {
		return nil, err
	}
	if err := verifySignature(key, signed, signature64); err != nil {
		return nil, err
	}
	if !known {
		v.keys.add(header, key)
	}
	if v.Nonces != nil && !v.Nonces.accepts(claims.nonce, now) {
		return nil, ErrNonce
	}
	// Last, so that only a valid proof takes a place.
	oldest := now.Add(-MaxAge - Leeway).Unix()
	if err := v.Replays.use(key.Thumbprint(), claims.id, claims.issuedAt.Unix(), oldest); err != nil {
		return nil, err
	}
	return &Proof{key.Thumbprint(), v.nextNonce(claims.nonce, now)}, nil
}

// nextNonce returns the nonce to provide to a client that sent one; empty if it has the current one, or if none is required.
func (v *Verifier) nextNonce(sent string, now time.Time) string {
	if v.Nonces == nil {
		return ""
	}
	if current := v.Nonces.Current(now); current != sent {
		return current
	}
	return ""
}

// Nonce returns the nonce to provide with the answer to [ErrNonce]; empty if none is required.
func (v *Verifier) Nonce() string { return v.nextNonce("", v.now()) }

func (v *Verifier) now() time.Time {
	if v.Now == nil {
		return time.Now()
	}
	return v.Now()
}

// parseHeader returns the key in the header of a proof.
func parseHeader(raw string) (jwks.Key, error) {
	message, err := jws.ParseWithKey(raw)
	switch {
	case err != nil:
		return jwks.Key{}, fail("%v", err)
	case message.Header.Type != MediaType:
		return jwks.Key{}, fail("typ %.40q", message.Header.Type)
	case message.Header.Key == nil:
		return jwks.Key{}, fail("the header has no jwk")
	}
	return parseKey(message.Header.Key, jwks.Algorithm(message.Header.Algorithm))
}

func verifySignature(key jwks.Key, signed, signature64 string) error {
	signature, err := jws.Decode(signature64)
	if err != nil {
		return fail("%v", err)
	}
	if err := jws.Verify(key, []byte(signed), signature); err != nil {
		return fail("%v", err)
	}
	return nil
}

// received are the claims of a proof.
type received struct {
	id, method, url, hash, nonce string
	issuedAt                     time.Time
}

// parseClaims parses an encoded payload.
func parseClaims(encoded string) (*received, error) {
	data, err := jws.Decode(encoded)
	if err != nil {
		return nil, fail("%v", err)
	}
	raw, err := jws.ParseClaims(data)
	if err != nil {
		return nil, fail("%v", err)
	}
	c := &received{}
	texts := [...]struct {
		name     string
		to       *string
		max      int
		optional bool
	}{
		{"jti", &c.id, maxID, false}, {"htm", &c.method, MaxSize, false}, {"htu", &c.url, MaxSize, false},
		{"ath", &c.hash, MaxSize, true}, {"nonce", &c.nonce, maxNonce, true},
	}
	for _, claim := range texts {
		if _, ok := raw[claim.name]; !ok && claim.optional {
			continue
		}
		if *claim.to, err = raw.Text(claim.name); err != nil {
			return nil, fail("%v", err)
		}
		if len(*claim.to) > claim.max {
			return nil, fail("the claim %s has more than %d bytes", claim.name, claim.max)
		}
	}
	if c.issuedAt, err = raw.Time("iat"); err != nil {
		return nil, fail("%v", err)
	}
	return c, nil
}

// check returns why a proof with the claims is not one for the request now; nil if it is.
func (c *received) check(r *Request, now time.Time) error {
	switch age := now.Sub(c.issuedAt); {
	case c.method != r.Method:
		return fail("htm %.40q", c.method)
	case !sameTarget(c.url, r.URLs):
		return fail("htu %.200q", c.url)
	case age > MaxAge+Leeway:
		return fail("it was made %s ago", age.Round(time.Second))
	case age < -Leeway:
		return fail("it is made in %s", (-age).Round(time.Second))
	case r.Token != "" && c.hash == "":
		return fail("it has no ath")
	case r.Token != "" && c.hash != hash(r.Token):
		return fail("ath is that of another token")
	}
	return nil
}
