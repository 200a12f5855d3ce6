package dpop

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws"
)

// Claims say what a proof is for.
type Claims struct {
	// Method is the method of the request, and URL its URL. The proof contains the URL without query and fragment.
	Method, URL string
	// Token is the access token in the request; empty in a request for one.
	Token string
	// Nonce is the last nonce that the server provided, if any.
	Nonce string
	// Time is the current time.
	Time time.Time
}

// Signer signs proofs with one key. It is safe for concurrent use by multiple goroutines if its private key is.
type Signer struct {
	public jwks.Key
	// header is the encoded header, with the dot after it.
	header []byte
	sign   func([]byte) ([]byte, error)
}

// NewSigner returns a signer of proofs by a private key: an *ecdsa.PrivateKey, *rsa.PrivateKey or ed25519.PrivateKey, or
// another [crypto.Signer] with a public key of such a type. An RSA key signs with RS256.
func NewSigner(private crypto.Signer) (*Signer, error) {
	if private == nil {
		return nil, errors.New("the private key is nil")
	}
	algorithm, err := jwks.DefaultAlgorithm(private.Public())
	if err != nil {
		return nil, err
	}
	public, err := jwks.NewKey(algorithm, private.Public())
	if err != nil {
		return nil, err
	}
	sign, err := jws.Signing(algorithm, private)
	if err != nil {
		return nil, err
	}
	key, err := public.JWK()
	if err != nil {
		return nil, err
	}
	key.Use, key.Algorithm, key.ID = "", "", "" // a proof has the members of the thumbprint alone
	header, err := json.Marshal(struct {
		Type      string         `json:"typ"`
		Algorithm jwks.Algorithm `json:"alg"`
		Key       jwks.JWK       `json:"jwk"`
	}{MediaType, algorithm, key})
	if err != nil {
		return nil, err
	}
	return &Signer{public, append(base64.RawURLEncoding.AppendEncode(nil, header), '.'), sign}, nil
}

// Thumbprint returns the RFC 7638 thumbprint of the key with SHA-256, in base64url: the "jkt" of a token that is bound to it.
func (s *Signer) Thumbprint() string { return s.public.Thumbprint() }

// payload is the signed form of Claims (RFC 9449 §4.2).
type payload struct {
	ID       string `json:"jti"`
	Method   string `json:"htm"`
	URL      string `json:"htu"`
	IssuedAt int64  `json:"iat"`
	Hash     string `json:"ath,omitempty"`
	Nonce    string `json:"nonce,omitempty"`
}

// Sign returns a proof with the claims. Each has an ID of its own.
func (s *Signer) Sign(c Claims) (string, error) {
	p := payload{ID: rand.Text(), Method: c.Method, URL: withoutQuery(c.URL), IssuedAt: c.Time.Unix(), Nonce: c.Nonce}
	if c.Token != "" {
		p.Hash = hash(c.Token)
	}
	data, err := json.Marshal(&p)
	if err != nil {
		return "", err
	}
	const signatureSpace = 1 + 86
	text := make([]byte, 0, len(s.header)+base64.RawURLEncoding.EncodedLen(len(data))+signatureSpace)
	text = base64.RawURLEncoding.AppendEncode(append(text, s.header...), data)
	signature, err := s.sign(text)
	if err != nil {
		return "", fmt.Errorf("signing the DPoP proof: %w", err)
	}
	return string(base64.RawURLEncoding.AppendEncode(append(text, '.'), signature)), nil
}

// hash returns the "ath" of an access token.
func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
