package remote

import (
	"context"
	"crypto"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/dpop"
)

// dpopUsage is the help text of the setting dpop-key-file.
const dpopUsage = "`file` with a private key in PEM to which the client's tokens are bound by DPoP (RFC 9449), besides what authenticates the client; no issuer has to know the key"

// Prover makes the DPoP proofs of token requests (RFC 9449 §5), so that the tokens are bound to its key. A nil Prover
// makes none. It is safe for concurrent use by multiple goroutines.
type Prover struct {
	key    crypto.Signer
	signer *dpop.Signer
	// nonce is the last one that the issuer provided, on either wire; nil before the first.
	nonce atomic.Pointer[string]
}

// Prover returns the prover with the key of the settings, or of the profile; nil if neither has one. The key of a
// profile is used for the issuer of the profile alone, and for its client alone if it names one.
func (c *Connection) Prover() (*Prover, error) {
	path := c.dpopKeyFile
	if path == "" && c.profile != nil && c.profile.isFor(c.Issuer, c.ClientID) {
		path = c.profile.dpopKeyFile
	}
	if path == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	key, err := clientassertion.ReadKey(path)
	var signer *dpop.Signer
	if err == nil {
		signer, err = dpop.NewSigner(key)
	}
	if err != nil {
		return nil, cli.SettingError(c.origin("dpop-key-file", c.dpopKeyFile), err)
	}
	return &Prover{key: key, signer: signer}, nil
}

// tokenType returns the token_type of the tokens.
func (p *Prover) tokenType() string {
	if p == nil {
		return "Bearer"
	}
	return dpop.Scheme
}

// Thumbprint returns the RFC 7638 thumbprint of the key, the "jkt" of the tokens; empty for a nil Prover.
func (p *Prover) Thumbprint() string {
	if p == nil {
		return ""
	}
	return p.signer.Thumbprint()
}

// sign returns a proof for a POST to a URL.
func (p *Prover) sign(url string) (string, error) {
	claims := dpop.Claims{Method: http.MethodPost, URL: url, Time: time.Now()}
	if nonce := p.nonce.Load(); nonce != nil {
		claims.Nonce = *nonce
	}
	return p.signer.Sign(claims)
}

// Prove adds a proof to a token request over REST.
func (p *Prover) Prove(request *http.Request) error {
	if p == nil {
		return nil
	}
	proof, err := p.sign(request.URL.String())
	if err == nil {
		request.Header.Set(dpop.Header, proof)
	}
	return err
}

// UnaryInterceptor returns an interceptor for a connection that makes token requests over gRPC, each of which gets a
// proof. authority is that of the connection. p must not be nil.
func (p *Prover) UnaryInterceptor(authority string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		proof, err := p.sign("https://" + authority + method)
		if err != nil {
			return err
		}
		var header, trailer metadata.MD
		ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(dpop.Header), proof)
		err = invoke(ctx, method, request, reply, cc, append(slices.Clip(opts), grpc.Header(&header), grpc.Trailer(&trailer))...)
		p.Learn(metadata.Join(header, trailer).Get(dpop.NonceHeader))
		return err
	}
}

// Learn remembers the nonce in the values of the header DPoP-Nonce of a response, for the next proofs. It reports
// whether there is one.
func (p *Prover) Learn(values []string) bool {
	const maxNonce = 1 << 10 // a proof with a longer one would not fit into the headers that servers accept
	if p == nil || len(values) != 1 || values[0] == "" || len(values[0]) > maxNonce {
		return false
	}
	p.nonce.Store(&values[0])
	return true
}
