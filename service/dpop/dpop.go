// Package dpop signs and verifies proofs of possession of a key: JWTs that are sent with one request each, and that only the
// holder of the key can make. It implements RFC 9449 (OAuth 2.0 Demonstrating Proof of Possession, DPoP).
//
// A [Signer] is the client's half and a [Verifier] the server's:
//
//	signer, err := dpop.NewSigner(private)
//	proof, err := signer.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.com/orders", Token: token, Time: time.Now()})
//
//	verifier := &dpop.Verifier{Replays: dpop.NewReplays(dpop.DefaultReplays)}
//	result, err := verifier.Verify(proof, &dpop.Request{Method: "GET", URLs: []string{"https://api.example.com/orders"}, Token: token})
//
// # gRPC
//
// RFC 9449 is about HTTP requests. A gRPC call is one (POST to /package.Service/Method), so that its proof is as the RFC says:
// it travels in the metadata "dpop", its "htm" is POST, and its "htu" is https://AUTHORITY/package.Service/Method. AUTHORITY is
// the one of the call, which a client of grpc-go takes from the connection's target. The scheme is https, as in the URI that
// grpc-go passes to per-RPC credentials, also where the connection has no TLS.
package dpop

import (
	"errors"
	"fmt"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
)

const (
	// Scheme is the authentication scheme of a token that is bound to the key of a proof, and the "token_type" of the answer
	// that contains one (RFC 9449 §5, §7.1).
	Scheme = "DPoP"
	// Header is the header of a proof (RFC 9449 §4.1). In lower case it is the key of gRPC metadata.
	Header = "DPoP"
	// NonceHeader is the header of the nonce for the next proof (RFC 9449 §8). In lower case it is the key of gRPC metadata.
	NonceHeader = "DPoP-Nonce"
	// MediaType is the "typ" of a proof (RFC 9449 §4.2).
	MediaType = "dpop+jwt"
)

const (
	// MaxSize is the maximum size of a proof, in bytes. It is checked before any part of the proof is parsed. A proof with an
	// RSA key of 8192 bits, the largest that verifies, fits in.
	MaxSize = 4 << 10
	// MaxAge is how old a proof may be, by its "iat". A proof is made for one request and sent at once.
	MaxAge = time.Minute
	// Leeway is how far the client's clock may be from the server's: a proof is accepted until MaxAge and Leeway have passed
	// since its "iat", and Leeway before.
	Leeway = 30 * time.Second
	// maxID and maxNonce are the maximum sizes of "jti" and "nonce", in bytes.
	maxID, maxNonce = 256, 256
)

var (
	// ErrProof reports that a proof is not one for the request.
	ErrProof = errors.New("the DPoP proof is not valid")
	// ErrKey reports that a proof is made with another key than that of Request.KeyThumbprint.
	ErrKey = errors.New("the DPoP proof is made with another key")
	// ErrNonce reports that a proof is to be made again, with a nonce that the server provides (RFC 9449 §8).
	ErrNonce = errors.New("the DPoP proof does not have a current nonce of this server")
)

// fail returns an error that wraps [ErrProof], with details for the log.
func fail(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProof, fmt.Sprintf(format, args...))
}

// Algorithms returns the names of all algorithms that proofs can be signed with, sorted: no symmetric one, and not "none".
func Algorithms() []string {
	all := jwks.Algorithms()
	names := make([]string, len(all))
	for i, algorithm := range all {
		names[i] = string(algorithm)
	}
	return names
}

// One returns the proof among the values of the header, or "" if there is none. More than one value is an error (RFC 9449
// §4.3).
func One(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		if values[0] == "" {
			return "", fail("it is empty")
		}
		return values[0], nil
	}
	return "", fail("%d values of the header", len(values))
}
