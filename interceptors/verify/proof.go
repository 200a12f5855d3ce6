package verify

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/maypok86/otter/v2"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/token"
)

// Proof says which keys the caller has proven, besides sending its token.
type Proof string

// The proofs of a caller.
const (
	// NoProof is that of a bearer token.
	NoProof Proof = ""
	// ProofCertificate is a client certificate that the token is bound to (RFC 8705 §3). A token can be bound to a
	// certificate and to a key of DPoP proofs; this is then the proof of its caller, who has proven both.
	ProofCertificate Proof = "certificate"
	// ProofDPoP is a key that signs DPoP proofs and that the token is bound to (RFC 9449).
	ProofDPoP Proof = "dpop"
)

// RequireBoundTokens refuses tokens that are not bound to a key, with [token.ErrProof]: a stolen bearer token could be
// used here, and a bound one cannot. By default, only tokens that are bound require a proof.
func RequireBoundTokens() Option {
	return func(c *config) { c.requireBound = true }
}

// request is what a guard knows of a call besides its context, independently of transport.
type request struct {
	// authorization has every value of the Authorization header.
	authorization []string
	// scheme and token are what the Authorization header consists of.
	scheme, token string
	// http is the request if the call came over HTTP; otherwise method is the full name of the gRPC method, and the
	// context has the metadata and the peer.
	http   *http.Request
	method string
	// outside is the request if another server received it, and nil otherwise.
	outside *Request
	// nonce is set to the nonce that the caller should use in its next DPoP proof, if it is another than the one that it
	// used.
	nonce string
}

// certificate returns the client certificate of the connection, or nil. Whether an authority vouches for it does not
// matter: the thumbprint in the token does, and the handshake has proven that the caller has the key.
func (r *request) certificate(ctx context.Context) *x509.Certificate {
	if r.outside != nil {
		return r.outside.Certificate
	}
	var state *tls.ConnectionState
	if r.http != nil {
		state = r.http.TLS
	} else {
		p, ok := peer.FromContext(ctx)
		if !ok {
			return nil
		}
		info, ok := p.AuthInfo.(credentials.TLSInfo)
		if !ok {
			return nil
		}
		state = &info.State
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	return state.PeerCertificates[0]
}

// admitted is a caller that has proven a key. The context of another caller has its claims alone.
type admitted struct {
	claims      *token.Claims
	proof       Proof
	certificate *x509.Certificate
	// token and dpop are the token and the DPoP proof as they were sent, if there was a proof.
	token, dpop string
}

// prove checks that the request proves all keys that the token is bound to. It returns nil for a bearer token. The
// error is [token.ErrProof] or [ErrNonce].
func (v *Verifier) prove(ctx context.Context, r *request, claims *token.Claims) (*admitted, error) {
	bound := &claims.Confirmation
	if r.scheme == dpop.Scheme && bound.KeyThumbprint == "" {
		return nil, fmt.Errorf("%w: it is bound to no key of DPoP proofs, and was sent with the scheme DPoP", token.ErrProof)
	}
	if !bound.Bound() {
		if v.member(claims).requireBound {
			return nil, fmt.Errorf("%w: it is a bearer token, and bound tokens are required", token.ErrProof)
		}
		return nil, nil //nolint:nilnil // as documented
	}
	if bound.Unknown {
		return nil, fmt.Errorf("%w: the claim cnf has a member that is not known", token.ErrProof)
	}
	proven := &admitted{claims: claims}
	if bound.CertificateThumbprint != "" {
		if err := v.proveCertificate(ctx, r, proven); err != nil {
			return nil, err
		}
	}
	if bound.KeyThumbprint != "" {
		if err := v.member(claims).proofs.prove(ctx, r, proven); err != nil {
			return nil, err
		}
		if proven.proof == NoProof {
			proven.proof = ProofDPoP
		}
	}
	return proven, nil
}

// proveCertificate checks that the connection has the certificate that the token is bound to (RFC 8705 §3).
func (v *Verifier) proveCertificate(ctx context.Context, r *request, proven *admitted) error {
	c := r.certificate(ctx)
	switch {
	case c == nil:
		return fmt.Errorf("%w: the connection has no client certificate", token.ErrProof)
	case !v.certificates.match(c, proven.claims.Confirmation.CertificateThumbprint):
		return fmt.Errorf("%w: the client certificate of the connection is another", token.ErrProof)
	}
	proven.proof, proven.certificate = ProofCertificate, c
	return nil
}

// thumbprints computes the thumbprints of client certificates, and holds those of recent ones: a connection has the same
// certificate for all its calls, and to hash it takes longer than the rest of a call with a token that was seen before.
type thumbprints struct {
	recent *otter.Cache[*x509.Certificate, thumbprint]
}

// thumbprint is the base64url encoding of a SHA-256 hash.
type thumbprint [43]byte

// maxThumbprints is the maximum number of certificates in memory.
const maxThumbprints = 1000

func newThumbprints() *thumbprints {
	return &thumbprints{otter.Must(&otter.Options[*x509.Certificate, thumbprint]{
		MaximumSize: maxThumbprints, Executor: func(task func()) { task() }, // as that of token.Cache
	})}
}

// match reports whether want is the thumbprint of the certificate ("x5t#S256", RFC 8705 §3.1).
func (t *thumbprints) match(c *x509.Certificate, want string) bool {
	got, ok := t.recent.GetIfPresent(c)
	if !ok {
		sum := sha256.Sum256(c.Raw)
		base64.RawURLEncoding.Encode(got[:], sum[:])
		t.recent.Set(c, got)
	}
	// A copy on the stack, which a conversion would not be.
	var other thumbprint
	return len(want) == len(other) && copy(other[:], want) > 0 && subtle.ConstantTimeCompare(got[:], other[:]) == 1
}
