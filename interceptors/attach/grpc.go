package attach

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/oauth"
)

// DialOptions are all that a connection needs to send the source's token with each call: TLS with the system's roots,
// then the options of more, then [UnaryInterceptor] and [StreamInterceptor] inside all interceptors of more. So
// credentials in more replace the TLS:
//
//	grpc.NewClient("localhost:8081", attach.DialOptions(source,
//		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
//
// A connection that has a credentials bundle takes the two interceptors alone.
func DialOptions(source *Source, more ...grpc.DialOption) []grpc.DialOption {
	secure := grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}))
	return append(append([]grpc.DialOption{secure}, more...),
		grpc.WithChainUnaryInterceptor(UnaryInterceptor(source)),
		grpc.WithChainStreamInterceptor(StreamInterceptor(source)))
}

// UnaryInterceptor sends the source's token with each call; the call's context bounds the wait for it.
//
// A call that fails with UNAUTHENTICATED drops the token ([Source.Drop]). If the trailer also has
// "www-authenticate: Bearer error="invalid_token"", the server refused before it looked at the request, and the call is
// made once more if there is another token; what grpc.Header and grpc.Trailer give is then of that second call. A
// handler that merely fails with UNAUTHENTICATED is never called twice.
//
// The token does not leave in plaintext except to a loopback target or a Unix socket, or by
// [AllowInsecurePlaintextToRemoteHosts]: such a call fails with FAILED_PRECONDITION. A call that already has
// authorization metadata, or credentials of its own, fails with FAILED_PRECONDITION too: servers refuse two
// authorization values, and to choose one would send some call under an identity that its author did not mean.
func UnaryInterceptor(source *Source) grpc.UnaryClientInterceptor {
	a := &attacher{source: source}
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption) error {
		if err := unidentified(ctx, opts); err != nil {
			return err
		}
		if source.instruments != nil {
			invoke = source.instruments.unary(invoke)
		}
		e, err := source.get(ctx)
		if err != nil {
			return err
		}
		var trailer metadata.MD
		err = invoke(ctx, method, request, reply, cc, a.options(cc, e, opts, grpc.Trailer(&trailer))...)
		if status.Code(err) != codes.Unauthenticated {
			return err
		}
		again, err := a.refused(cc, e, err, trailer)
		if !again {
			return err
		}
		next := a.another(ctx, e)
		if next == nil {
			return err
		}
		for _, opt := range opts {
			// A second call that gets no answer would leave the first one's metadata standing.
			switch o := opt.(type) {
			case grpc.HeaderCallOption:
				*o.HeaderAddr = nil
			case grpc.TrailerCallOption:
				*o.TrailerAddr = nil
			}
		}
		return invoke(ctx, method, request, reply, cc, a.options(cc, next, opts)...)
	}
}

// attacher is what both interceptors share.
type attacher struct {
	source *Source
	// last is the connection of the last call, usually the only one.
	last atomic.Pointer[route]
}

// route is whether a connection may carry a token in plaintext.
type route struct {
	cc        *grpc.ClientConn
	plaintext bool
}

// options are those of a call with the token's credential; further ones may follow it.
func (a *attacher) options(cc *grpc.ClientConn, e *entry, opts []grpc.CallOption,
	further ...grpc.CallOption) []grpc.CallOption {
	r := a.last.Load()
	if r == nil || r.cc != cc {
		r = &route{cc, a.source.plaintext || loopback(cc)}
		a.last.Store(r)
	}
	own := e.secure
	if r.plaintext {
		own = e.plaintext
	}
	// A new slice: opts may be a part of one that its owner goes on filling.
	all := make([]grpc.CallOption, 0, len(opts)+1+len(further))
	return append(append(append(all, opts...), own), further...)
}

// refused deals with a call that ended UNAUTHENTICATED under the token of e. It says whether the call may be made once
// more, and gives the error that stands if it is not.
func (a *attacher) refused(cc *grpc.ClientConn, e *entry, err error, trailer metadata.MD) (again bool, _ error) {
	if plain := plaintextRefused(cc, err); plain != nil {
		return false, plain // the server was never asked
	}
	a.source.Drop(e.token)
	return tokenRefused(trailer.Get("www-authenticate")), err
}

// another gives a token other than the refused one of e, or nil.
func (a *attacher) another(ctx context.Context, e *entry) *entry {
	next, err := a.source.get(ctx)
	if err != nil || next.token == e.token {
		return nil
	}
	return next
}

// unidentified refuses a call that says on its own who it is from.
func unidentified(ctx context.Context, opts []grpc.CallOption) error {
	if len(metadata.ValueFromOutgoingContext(ctx, "authorization")) > 0 {
		return status.Error(codes.FailedPrecondition, "attach: the call already has authorization metadata; "+
			"make it on a connection without attach")
	}
	for _, opt := range opts {
		if _, ok := opt.(grpc.PerRPCCredsCallOption); ok {
			return status.Error(codes.FailedPrecondition, "attach: the call already has per-RPC credentials; "+
				"make it on a connection without attach")
		}
	}
	return nil
}

// PerRPCCredentials gives the source as gRPC's own credentials, for those who want neither interceptors nor their
// retry. A connection in plaintext refuses them, a loopback one too, unless the source has
// [AllowInsecurePlaintextToRemoteHosts].
func (s *Source) PerRPCCredentials() credentials.PerRPCCredentials { return perRPC{s} }

type perRPC struct{ source *Source }

func (p perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	e, err := p.source.get(ctx)
	if err != nil {
		return nil, err
	}
	return e.metadata, nil
}

func (p perRPC) RequireTransportSecurity() bool { return !p.source.plaintext }

// bearer is a token in every form in which it is sent, made once.
type bearer struct {
	token     string
	header    string            // the value of Authorization (RFC 6750 §2.1)
	metadata  map[string]string // read only: gRPC copies it
	secure    grpc.CallOption   // where gRPC must refuse plaintext
	plaintext grpc.CallOption
}

func newBearer(token string) *bearer {
	b := &bearer{token: token, header: "Bearer " + token}
	b.metadata = map[string]string{"authorization": b.header}
	b.secure = grpc.PerRPCCredentials(credential{b.metadata, true})
	b.plaintext = grpc.PerRPCCredentials(credential{b.metadata, false})
	return b
}

// credential is fixed metadata as gRPC's credentials.
type credential struct {
	metadata map[string]string
	secure   bool
}

func (c credential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return c.metadata, nil
}

func (c credential) RequireTransportSecurity() bool { return c.secure }

// loopback reports whether a connection's target is this machine; a dialer of the user's own that goes elsewhere from
// there is beyond what can be seen here.
func loopback(cc *grpc.ClientConn) bool {
	if cc == nil {
		return false
	}
	return oauth.LoopbackTarget(cc.CanonicalTarget())
}

// plaintextRefused gives a clear error where gRPC kept a credential off a plaintext connection, else nil. gRPC has no
// code of its own for that; should its text change, what is lost is the clearer wording.
func plaintextRefused(cc *grpc.ClientConn, err error) error {
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
