package attach

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// DPoP binds the source's tokens to a key that never leaves the program (RFC 9449): an ES256 key that is made in memory
// when the source is. Whoever steals a token cannot use it without that key. Each token request and each call has a
// fresh proof, which costs one signature, some 20 µs. [DPoPKey] is for a key of the program's own.
//
// The servers that are called must support DPoP, as package verify does: a token is sent as "Authorization: DPoP …"
// with the proof in the header or metadata DPoP. A nonce that the issuer or a server demands (use_dpop_nonce) is
// remembered for each origin; the request or call is repeated once, at once, with a fresh proof, if its body can be
// read again (http.Request.GetBody), or if its gRPC method takes a single request message. Such a request may have any
// method, because the server demands the nonce before it processes the request.
//
// An issuer that answers with a bearer token does not support DPoP: its token is not used, although RFC 9449 §5 would
// permit that, since a program which asks for DPoP relies on it.
//
// A call or request to which the program has added a proof itself fails: servers refuse two proofs.
//
// A token from [Source.Token] cannot be used without the source, because it needs a proof of its key.
func DPoP() Option {
	return func(c *config) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			c.failf("DPoP: %w", err)
			return
		}
		c.proveWith(key)
	}
}

// DPoPKey is [DPoP] with a key of the program: an *ecdsa.PrivateKey, *rsa.PrivateKey or ed25519.PrivateKey, or another
// [crypto.Signer] with a public key of such a type, such as one of a TPM. The signer is called for each call that the
// program makes, concurrently and without a timeout.
func DPoPKey(key crypto.Signer) Option {
	return func(c *config) { c.proveWith(key) }
}

func (c *config) proveWith(key crypto.Signer) {
	signer, err := guard("the DPoP key", func() (*dpop.Signer, error) { return dpop.NewSigner(key) })
	switch {
	case err != nil:
		c.failf("DPoP: %w", err)
	case c.prover != nil:
		c.failf("DPoP: there are two keys; set one")
	default:
		c.prover = &prover{signer: signer}
	}
}

// prover makes the DPoP proofs of a source. It is safe for concurrent use by multiple goroutines. A nil prover makes
// none: it is that of a source of bearer tokens.
type prover struct {
	signer *dpop.Signer

	mu sync.Mutex
	// nonces maps an origin to the last nonce that its server provided.
	nonces map[string]string
}

// maxOrigins is the maximum number of origins whose nonces are remembered. Beyond it any of them is forgotten: the
// server then provides another one.
const maxOrigins = 1000

// scheme returns the authentication scheme of the source's tokens, which is their "token_type" as well.
func (p *prover) scheme() string {
	if p == nil {
		return "Bearer"
	}
	return dpop.Scheme
}

// prove returns a proof for a request that carries the token, if any, to an origin, and the nonce in the proof.
func (p *prover) prove(method, origin, path, token string) (proof, nonce string, _ error) {
	nonce = p.nonce(origin)
	proof, err := guard("the DPoP key", func() (string, error) {
		return p.signer.Sign(dpop.Claims{Method: method, URL: origin + path, Token: token, Nonce: nonce, Time: time.Now()})
	})
	if err != nil {
		return "", "", misuse("%w", err)
	}
	return proof, nonce, nil
}

// nonce returns the nonce for an origin, or "".
func (p *prover) nonce(origin string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nonces[origin]
}

// learn remembers the nonce in a response of an origin, if there is one. It reports whether that is another one than
// was sent in the proof of the request. The one that is remembered already is not compared, because a concurrent
// request may have learned it since.
func (p *prover) learn(origin, sent string, values []string) bool {
	const maxNonce = 1 << 10 // a proof with a longer one would not fit into the headers that servers accept
	if p == nil || len(values) != 1 || values[0] == "" || len(values[0]) > maxNonce {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nonces[origin] == values[0] {
		return values[0] != sent
	}
	if p.nonces == nil {
		p.nonces = make(map[string]string)
	}
	for other := range p.nonces {
		if len(p.nonces) < maxOrigins {
			break
		}
		delete(p.nonces, other)
	}
	p.nonces[origin] = values[0]
	return values[0] != sent
}

// withNonce returns the result of a token request, which it repeats once if the issuer demands a DPoP proof with a
// nonce that it has provided.
func withNonce(request func() (issuedToken, error)) (issuedToken, error) {
	answer, err := request()
	if failed := (*Error)(nil); errors.As(err, &failed) && failed.nonceProvided {
		return request()
	}
	return answer, err
}

// httpOrigin returns the origin of a request as its server sees it.
func httpOrigin(request *http.Request) string {
	host := request.Host
	if host == "" {
		host = request.URL.Host
	}
	return strings.ToLower(request.URL.Scheme + "://" + host)
}

// proveRequest adds a proof to an HTTP request with the token, and returns the nonce in the proof.
func (p *prover) proveRequest(request *http.Request, token string) (nonce string, _ error) {
	if p == nil {
		return "", nil
	}
	path := request.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	method := request.Method
	if method == "" {
		method = http.MethodGet
	}
	proof, nonce, err := p.prove(method, httpOrigin(request), path, token)
	if err != nil {
		return "", err
	}
	request.Header.Set(dpop.Header, proof)
	return nonce, nil
}

// learnResponse remembers the nonce in an HTTP response. It reports whether the server demands that the request, whose
// proof had the nonce sent, is made again with that nonce.
func (p *prover) learnResponse(request *http.Request, sent string, response *http.Response) (again bool) {
	if p == nil {
		return false
	}
	learned := p.learn(httpOrigin(request), sent, response.Header.Values(dpop.NonceHeader))
	return learned && response.StatusCode == http.StatusUnauthorized && challenged(dpop.Scheme, response.Header.Values("WWW-Authenticate"), oauth.UseDPoPNonce)
}

// provenCredential implements [credentials.PerRPCCredentials] with a proof for each attempt of one token request over
// gRPC. It makes the proofs of other calls too.
type provenCredential struct {
	prover *prover
	// metadata are further metadata of the request. They are read-only.
	metadata map[string]string
	secure   bool
	// last is where the last attempt was sent, and with which nonce.
	last atomic.Pointer[sentProof]
}

// sentProof is the origin to which a proof was sent, and the nonce in the proof.
type sentProof struct{ origin, nonce string }

// errOtherProof is the error of a call or request with a proof that the source has not made. Servers refuse two proofs,
// and the other one is not for the source's token.
var errOtherProof = status.Error(codes.FailedPrecondition, "attach: the call already has a DPoP proof; make it without attach")

// hasProof reports whether the caller has put a proof into the metadata of a call.
func hasProof(ctx context.Context) bool {
	return len(metadata.ValueFromOutgoingContext(ctx, dpopKey)) > 0
}

var errNoRequestInfo = errors.New("attach: gRPC does not name the call, so that no DPoP proof can be made for it")

// GetRequestMetadata returns the metadata with a proof. gRPC calls it for each attempt.
func (c *provenCredential) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	return c.prove(ctx, "", c.metadata, uri)
}

// prove returns metadata with a proof for the call in ctx, which carries the token, if any. The uri is what gRPC passes to
// credentials: https://AUTHORITY/SERVICE, where the authority is the one that the server sees.
func (c *provenCredential) prove(ctx context.Context, token string, metadata map[string]string, uri []string) (map[string]string, error) {
	if hasProof(ctx) {
		return nil, errOtherProof
	}
	info, ok := credentials.RequestInfoFromContext(ctx)
	if !ok || len(uri) == 0 {
		return nil, errNoRequestInfo
	}
	service := info.Method
	if i := strings.LastIndexByte(service, '/'); i >= 0 {
		service = service[:i]
	}
	origin, ok := strings.CutSuffix(uri[0], service)
	if !ok {
		return nil, errNoRequestInfo
	}
	proof, nonce, err := c.prover.prove(http.MethodPost, origin, info.Method, token)
	if err != nil {
		return nil, err
	}
	c.last.Store(&sentProof{origin, nonce})
	all := maps.Clone(metadata)
	if all == nil {
		all = make(map[string]string, 1)
	}
	all[dpopKey] = proof
	return all, nil
}

// dpopKey and dpopNonceKey are the metadata keys of a proof and of the nonce for the next one.
var dpopKey, dpopNonceKey = strings.ToLower(dpop.Header), strings.ToLower(dpop.NonceHeader)

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (c *provenCredential) RequireTransportSecurity() bool { return c.secure }

// learn remembers the nonce in the metadata of a response, and reports whether it is another one than that of the last
// attempt. A nil credential learns nothing.
func (c *provenCredential) learn(metadata ...metadata.MD) (learned bool) {
	if c == nil {
		return false
	}
	last := c.last.Load()
	if last == nil {
		return false // the call was not sent
	}
	for _, md := range metadata {
		learned = c.prover.learn(last.origin, last.nonce, md.Get(dpopNonceKey)) || learned
	}
	return learned
}
