package attach

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// DialOptions returns the options of a connection that sends the source's token with each call: TLS with the system's
// root certificates, with the client's certificate if the source has one, then more, then [UnaryInterceptor] and
// [StreamInterceptor], which run inside all interceptors in more. Transport credentials in more replace the TLS:
//
//	grpc.NewClient("localhost:8081", attach.DialOptions(source,
//		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
//
// For a connection with a credentials bundle, use the two interceptors without DialOptions.
func DialOptions(source *Source, more ...grpc.DialOption) []grpc.DialOption {
	secure := grpc.WithTransportCredentials(TransportCredentials(source, nil))
	return append(append([]grpc.DialOption{secure}, more...),
		grpc.WithChainUnaryInterceptor(UnaryInterceptor(source)),
		grpc.WithChainStreamInterceptor(StreamInterceptor(source)))
}

// UnaryInterceptor returns an interceptor that sends the source's token with each call. The call's context bounds the
// wait for the token.
//
// A call that fails with UNAUTHENTICATED drops the token ([Source.Drop]). If its trailer also contains
// "www-authenticate: Bearer error="invalid_token"", the server refused the token before it processed the request, and
// the call is repeated once if there is another token; grpc.Header and grpc.Trailer then return the metadata of the
// second call. A call whose handler merely fails with UNAUTHENTICATED is never repeated.
//
// The token is sent without TLS only to a loopback target or a Unix socket, or with
// [AllowInsecurePlaintextToRemoteHosts]; otherwise the call fails with FAILED_PRECONDITION. A call that already has
// authorization metadata or per-RPC credentials fails with FAILED_PRECONDITION too: servers refuse two authorization
// values, and choosing one would send some calls under an identity that their author did not intend. With [DPoP], so
// does a call that already has metadata with the key dpop.
func UnaryInterceptor(source *Source) grpc.UnaryClientInterceptor {
	a := newAttacher(source)
	source = a.source
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption) error {
		if err := source.checkNoCredentials(ctx, opts); err != nil {
			return err
		}
		if source.instruments != nil {
			invoke = source.instruments.unary(invoke)
		}
		e, err := source.get(ctx)
		if err != nil {
			return err
		}
		var header, trailer metadata.MD
		attempt := func(e *entry) (_ sent, again bool, err error) {
			header, trailer = nil, nil
			sent := a.token(cc, e)
			further := []grpc.CallOption{grpc.Trailer(&trailer)}
			if sent.prover() != nil {
				further = append(further, grpc.Header(&header))
			}
			err = invoke(ctx, method, request, reply, cc, sent.callOptions(opts, further...)...)
			recordSent(opts, sent.entry())
			return sent, sent.ended() || a.nonceDemanded(sent.prover(), err, header, trailer), err
		}
		sent, again, err := attempt(e)
		if again {
			clearMetadata(opts)
			sent, _, err = attempt(e)
		}
		if status.Code(err) != codes.Unauthenticated {
			return err
		}
		e = sent.entry()
		retry, err := a.handleRefusal(cc, e, err, trailer)
		if !retry {
			return err
		}
		next := a.replacement(ctx, e)
		if next == nil {
			return err
		}
		clearMetadata(opts)
		_, _, err = attempt(next)
		return err
	}
}

// clearMetadata clears what [grpc.Header] and [grpc.Trailer] have returned. If a second call gets no answer, the
// metadata of the first must not remain.
func clearMetadata(opts []grpc.CallOption) {
	for _, opt := range opts {
		switch o := opt.(type) {
		case grpc.HeaderCallOption:
			if o.HeaderAddr != nil {
				*o.HeaderAddr = nil
			}
		case grpc.TrailerCallOption:
			if o.TrailerAddr != nil {
				*o.TrailerAddr = nil
			}
		}
	}
}

// attacher is the state of an interceptor.
type attacher struct {
	source *Source
	// last caches the decision for the connection of the last call, which is usually the only one.
	last atomic.Pointer[route]
}

// newAttacher returns the state of an interceptor. A nil source becomes one that has no token.
func newAttacher(source *Source) *attacher {
	if source == nil {
		source = new(Source)
	}
	return &attacher{source: source}
}

// route records whether a connection may carry a token in plaintext.
type route struct {
	cc        *grpc.ClientConn
	plaintext bool
}

// sent is the token of one call: that of the entry or, for a client with a certificate, the one that the connection of the
// call is for.
type sent struct {
	e      *entry
	option grpc.CallOption
	chosen *chosen // nil for a bearer token of a client without a certificate
}

// token returns the token of e for a call on the connection.
func (a *attacher) token(cc *grpc.ClientConn, e *entry) sent {
	r := a.last.Load()
	if r == nil || r.cc != cc {
		r = &route{cc, a.source.plaintext || loopback(cc)}
		a.last.Store(r)
	}
	switch {
	case e.source.certificate != nil || e.source.prover != nil:
		c := &chosen{secure: !r.plaintext}
		c.entry.Store(e)
		if e.source.prover != nil {
			c.proven = &provenCredential{prover: e.source.prover}
		}
		return sent{e, grpc.PerRPCCredentials(c), c}
	case r.plaintext:
		return sent{e: e, option: e.plaintext}
	}
	return sent{e: e, option: e.secure}
}

// callOptions returns opts, the credential for the token, and further.
func (s sent) callOptions(opts []grpc.CallOption, further ...grpc.CallOption) []grpc.CallOption {
	// The slice is new because opts may share its array with a slice to which its owner appends.
	all := make([]grpc.CallOption, 0, len(opts)+1+len(further))
	return append(append(append(all, opts...), s.option), further...)
}

// prover returns what makes the DPoP proofs of the call; nil for a bearer token.
func (s sent) prover() *provenCredential {
	if s.chosen == nil {
		return nil
	}
	return s.chosen.proven
}

// nonceDemanded remembers the nonce in the metadata of a response, and reports whether the server demands that the call
// is made again with it.
func (a *attacher) nonceDemanded(proven *provenCredential, err error, header, trailer metadata.MD) bool {
	learned := proven.learn(header, trailer)
	return learned && status.Code(err) == codes.Unauthenticated && challenged(dpop.Scheme, trailer.Get("www-authenticate"), oauth.UseDPoPNonce)
}

// entry returns the entry with the token that was sent.
func (s sent) entry() *entry {
	if s.chosen != nil {
		return s.chosen.entry.Load()
	}
	return s.e
}

// ended reports that the call was not sent, because its connection has outlived the tokens for it.
func (s sent) ended() bool { return s.chosen != nil && s.chosen.ended.Load() }

// handleRefusal handles a call that failed with UNAUTHENTICATED under the token of e. It reports whether the call may
// be repeated, and returns the error for the caller if it is not.
func (a *attacher) handleRefusal(cc *grpc.ClientConn, e *entry, err error, trailer metadata.MD) (retry bool, _ error) {
	if plain := plaintextError(cc, err); plain != nil {
		return false, plain // the call did not reach the server
	}
	challenges := trailer.Get("www-authenticate")
	if proofRefused(challenges) {
		return false, err // the token is not the reason
	}
	e.source.Drop(e.token)
	return tokenRefused(e.source.prover.scheme(), challenges), err
}

// replacement returns an entry with a token other than that of e, or nil.
func (a *attacher) replacement(ctx context.Context, e *entry) *entry {
	next, err := e.source.get(ctx)
	if err != nil || next.token == e.token {
		return nil
	}
	return next
}

// checkNoCredentials returns an error if the call already carries credentials or, if the source makes DPoP proofs, a
// proof; or if it has no context.
func (s *Source) checkNoCredentials(ctx context.Context, opts []grpc.CallOption) error {
	if ctx == nil {
		return status.Error(codes.Internal, "attach: the context of the call is nil")
	}
	if len(metadata.ValueFromOutgoingContext(ctx, "authorization")) > 0 {
		return status.Error(codes.FailedPrecondition, "attach: the call already has authorization metadata; "+
			"make it on a connection without attach")
	}
	if s.prover != nil && hasProof(ctx) {
		return errOtherProof
	}
	for _, opt := range opts {
		if _, ok := opt.(grpc.PerRPCCredsCallOption); ok {
			return status.Error(codes.FailedPrecondition, "attach: the call already has per-RPC credentials; "+
				"make it on a connection without attach")
		}
	}
	return nil
}

// PerRPCCredentials returns the source as gRPC credentials, for connections that use neither the interceptors nor their
// retry. gRPC refuses them on every plaintext connection, loopback included, unless the source has
// [AllowInsecurePlaintextToRemoteHosts]. With [DPoP], each call has a proof. The credentials see no response, though: a
// server that demands nonces accepts their calls only if a connection with the interceptors shares the source.
func (s *Source) PerRPCCredentials() credentials.PerRPCCredentials { return perRPC{s} }

type perRPC struct{ source *Source }

func (p perRPC) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	e, err := p.source.get(ctx)
	if err == nil {
		e, err = forConnection(ctx, e)
	}
	if err != nil {
		return nil, err
	}
	if p.source.prover != nil {
		return (&provenCredential{prover: e.source.prover}).prove(ctx, e.token, e.metadata, uri)
	}
	return maps.Clone(e.metadata), nil // the program may add to it in credentials of its own
}

func (p perRPC) RequireTransportSecurity() bool { return p.source == nil || !p.source.plaintext }

// bearer holds a token in every form in which it is sent, computed once.
type bearer struct {
	source    *Source // that requested the token
	token     string
	header    string            // value of Authorization (RFC 6750 §2.1, RFC 9449 §7.1)
	metadata  map[string]string // read-only: gRPC copies it
	secure    grpc.CallOption   // refused by gRPC on a plaintext connection
	plaintext grpc.CallOption
}

func newBearer(scheme, token string, source *Source) *bearer {
	b := &bearer{source: source, token: token, header: scheme + " " + token}
	b.metadata = map[string]string{"authorization": b.header}
	b.secure = grpc.PerRPCCredentials(credential{b.metadata, true})
	b.plaintext = grpc.PerRPCCredentials(credential{b.metadata, false})
	return b
}

// credential implements [credentials.PerRPCCredentials] with fixed metadata.
type credential struct {
	metadata map[string]string
	secure   bool
}

func (c credential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return c.metadata, nil
}

func (c credential) RequireTransportSecurity() bool { return c.secure }

// loopback reports whether a connection's target is this machine. A custom dialer that connects elsewhere cannot be
// detected here.
func loopback(cc *grpc.ClientConn) bool {
	if cc == nil {
		return false
	}
	return oauth.LoopbackTarget(cc.CanonicalTarget())
}

// plaintextError returns an error that names the target if err is gRPC's refusal to send a credential over a plaintext
// connection, and nil otherwise. gRPC has no status code for that refusal, so its text is compared; if that text
// changes, only the clearer error is lost.
func plaintextError(cc *grpc.ClientConn, err error) error {
	s := status.Convert(err)
	if s.Code() != codes.Unauthenticated || !strings.HasPrefix(s.Message(), "transport: cannot send secure credentials") {
		return nil
	}
	target := "the server"
	if cc != nil {
		target = fmt.Sprintf("%q", cc.CanonicalTarget())
	}
	return status.Errorf(codes.FailedPrecondition, "attach: the connection to %s has no transport security, "+
		"and its target is not loopback: nothing secret is sent over it", target)
}
