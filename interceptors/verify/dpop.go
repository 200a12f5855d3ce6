package verify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/recovery"
	"github.com/grantorhq/grantor/service/token"
)

// dpopHeader and dpopNonceHeader are the metadata keys of a proof and of the nonce for the next one.
var dpopHeader, dpopNonceHeader = strings.ToLower(dpop.Header), strings.ToLower(dpop.NonceHeader)

// dpopConfig is what the options of this file set.
type dpopConfig struct {
	origins  []string
	nonceKey []byte
	// nonces is true with [RequireDPoPNonce].
	nonces  bool
	replays int
}

// DPoPOrigin sets the origins under which callers know this server, such as "https://orders.example.com". A DPoP proof
// (RFC 9449) must then be for one of them. By default the host that the request names counts, with https, and also with
// http if the connection has no TLS. A server whose callers' tokens are valid at other servers too should set its
// origins: whatever host is named is otherwise accepted, so that another server could send a proof on that it received.
// A server behind a proxy that changes the Host header must set them. Repeated use adds origins.
//
// The proof of a gRPC call is for https://AUTHORITY/package.Service/Method.
func DPoPOrigin(origins ...string) Option {
	return func(c *config) {
		for _, origin := range origins {
			u, err := url.Parse(origin)
			if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || origin != u.Scheme+"://"+u.Host {
				c.fail(fmt.Sprintf("DPoPOrigin: %.200q is not a scheme and a host, such as https://orders.example.com", oauth.RedactURL(origin)))
			}
		}
		c.dpop.origins = append(c.dpop.origins, origins...)
	}
}

// RequireDPoPNonce requires a nonce of this server in each DPoP proof (RFC 9449 §9): a caller that could only use its
// key for a moment cannot make proofs for later then. A caller without one gets 401 (UNAUTHENTICATED) with the error
// use_dpop_nonce and a nonce, and repeats its request; interceptors/attach does so by itself.
//
// Replicas of a server that share the key accept each other's nonces. Take 32 random bytes. With a nil key the verifier
// makes one, and its nonces are its own. Any other key that is empty is a mistake, such as a variable that is not set:
// the replicas would refuse each other's nonces.
func RequireDPoPNonce(key []byte) Option {
	return func(c *config) {
		if key != nil && len(key) == 0 {
			c.fail("RequireDPoPNonce: the key is empty; take 32 random bytes, or nil for a key of this process alone")
		}
		c.dpop.nonces, c.dpop.nonceKey = true, slices.Clone(key)
	}
}

// DPoPReplays sets the number of DPoP proofs that the verifier remembers, so that none is accepted twice: those of the
// last 90 seconds. The default is 1,048,576, which suffices for 11,000 calls per second and takes 40 MB once there are
// that many. A verifier with more proofs to remember refuses those that are as old as the oldest one that it has
// forgotten. The memory is that of one process: at another replica, a proof can be used once more (RFC 9449 §11.1
// permits that).
func DPoPReplays(proofs int) Option {
	return func(c *config) {
		if proofs <= 0 {
			c.fail("DPoPReplays: the number of proofs must be positive")
		}
		c.dpop.replays = proofs
	}
}

// newProofs returns the checker of DPoP proofs.
func (c *config) newProofs() *proofs {
	p := &proofs{origins: c.dpop.origins}
	p.verifier.Now = c.now
	p.verifier.Replays = dpop.NewReplays(c.dpop.replays)
	if c.dpop.nonces {
		key := c.dpop.nonceKey
		if key == nil {
			key = make([]byte, 32)
			_, _ = rand.Read(key) // never fails (crypto/rand)
		}
		p.verifier.Nonces = dpop.NewNonces(key)
	}
	return p
}

// proofs checks DPoP proofs.
type proofs struct {
	verifier dpop.Verifier
	origins  []string
}

// dpopProofs returns the values of the header DPoP.
func (r *request) dpopProofs(ctx context.Context) []string {
	switch {
	case r.outside != nil:
		return r.outside.DPoP
	case r.http != nil:
		return r.http.Header[http.CanonicalHeaderKey(dpop.Header)]
	}
	return metadata.ValueFromIncomingContext(ctx, dpopHeader)
}

// target returns what a DPoP proof must be for.
func (r *request) target(ctx context.Context, origins []string) dpop.Request {
	if o := r.outside; o != nil {
		return dpop.Request{Method: o.Method, URLs: urls(origins, o.Host, o.Path, o.Secure), Token: r.token}
	}
	if r.http != nil {
		path := r.http.RequestURI // as it was sent, whatever a handler before this one has stripped
		if !strings.HasPrefix(path, "/") {
			path = r.http.URL.EscapedPath()
		}
		return dpop.Request{Method: r.http.Method, URLs: urls(origins, r.http.Host, path, r.http.TLS != nil), Token: r.token}
	}
	if outer := dpop.FromContext(ctx); outer != nil {
		return dpop.Request{Method: outer.Method, URLs: outer.URLs, Token: r.token}
	}
	authority := ""
	if values := metadata.ValueFromIncomingContext(ctx, ":authority"); len(values) == 1 {
		authority = values[0]
	}
	secure := false
	if p, ok := peer.FromContext(ctx); ok {
		_, secure = p.AuthInfo.(credentials.TLSInfo)
	}
	return dpop.Request{Method: http.MethodPost, URLs: urls(origins, authority, r.method, secure), Token: r.token}
}

// urls returns the URLs of a path under each origin, or, without origins, under the host that the request names.
func urls(origins []string, host, path string, secure bool) []string {
	if len(origins) == 0 {
		return dpop.URLs(host, path, secure)
	}
	all := make([]string, len(origins))
	for i, origin := range origins {
		all[i] = origin + path
	}
	return all
}

// prove checks that the request has a DPoP proof of the key that the token is bound to (RFC 9449 §7), and records it in
// proven. A bound token under another scheme is refused, since a thief would send it as a bearer token (§7.2). A proof
// that another guard around this one has accepted for the same request is not used again. The error is [token.ErrProof]
// or [ErrNonce].
func (p *proofs) prove(ctx context.Context, r *request, proven *admitted) error {
	if r.scheme != dpop.Scheme {
		return fmt.Errorf("%w: it was sent without a DPoP proof, as a bearer token", token.ErrProof)
	}
	sent, err := dpop.One(r.dpopProofs(ctx))
	if err == nil && sent == "" {
		return fmt.Errorf("%w: there is no DPoP proof", token.ErrProof)
	}
	proven.token, proven.dpop = r.token, sent
	if outer, ok := ctx.Value(callerKey{}).(*admitted); ok && err == nil && outer.dpop == sent && outer.token == r.token {
		return nil
	}
	var proof *dpop.Proof
	if err == nil {
		target := r.target(ctx, p.origins)
		target.KeyThumbprint = proven.claims.Confirmation.KeyThumbprint
		proof, err = recovery.Call("checking the DPoP proof", func() (*dpop.Proof, error) { return p.verifier.Verify(sent, &target) })
	}
	switch {
	case errors.Is(err, dpop.ErrKey): // the token is not the caller's
		return fmt.Errorf("%w: %w", token.ErrProof, err)
	case errors.Is(err, dpop.ErrNonce):
		r.nonce = p.verifier.Nonce()
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", token.ErrProof, err)
	}
	r.nonce = proof.NextNonce
	return nil
}

// dpopChallenge is the challenge of RFC 9449 §7.1.
var dpopChallenge = `DPoP algs="` + strings.Join(dpop.Algorithms(), " ") + `"`

// challengeFor completes the challenge for a caller that sent its token with the scheme. A caller that used DPoP is
// challenged for that; others learn that they may use either (RFC 9449 §7.2).
func (r *Refusal) challengeFor(scheme string) {
	switch {
	case len(r.Challenges) == 0:
	case scheme == dpop.Scheme:
		parameters := strings.TrimPrefix(r.Challenges[0], bearerScheme)
		r.Challenges[0] = dpopChallenge
		if parameters != "" {
			r.Challenges[0] += "," + parameters
		}
	case r.Status == http.StatusUnauthorized:
		r.Challenges = append(r.Challenges, dpopChallenge)
	}
}
