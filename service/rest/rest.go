// Package rest is the HTTP face of the issuer: forms, OAuth errors, headers and the /.well-known documents. It carries
// out RFC 6749 §3.2 and §5, RFC 8414 §3 and RFC 7517 §5 on top of the gRPC services, in the same process and through the
// same interceptors; it has no rule of its own about clients and tokens.
package rest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/grantorhq/grantor/gen/gateway/grantor/v1"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/telemetry"
)

// Service is what stands behind the face.
type Service interface {
	// Register adds the gRPC services to a server.
	Register(server grpc.ServiceRegistrar)
	// UnaryInterceptor is the chain that every call runs through.
	UnaryInterceptor() grpc.UnaryServerInterceptor
	// Origin gives where a request came from, by the other end of its connection and the values of X-Forwarded-For.
	Origin(peer net.Addr, forwarded []string) net.Addr
	// Admit refuses a request of a source that makes too many, with the status of a call; ctx has the peer. The calls that
	// are made for the request have the context that is given back.
	Admit(ctx context.Context) (context.Context, error)
	// Unread records, by the event of the audit that it is, the refusal of a request that could not be read, so that there
	// was no call.
	Unread(ctx context.Context, event string, refusal *oauth.Error)
}

// Where forms are taken; the documents are where their RFCs say.
const (
	tokenPath      = "/connect/token"
	introspectPath = "/connect/introspect"
	revokePath     = "/connect/revoke"
)

// eventOf has where forms are taken → the event that is the refusal of one.
var eventOf = map[string]string{
	tokenPath:      telemetry.EventTokenRefused,
	introspectPath: telemetry.EventIntrospectRefused,
	revokePath:     telemetry.EventRevokeRefused,
}

type face struct {
	// gateway translates between HTTP and the services.
	gateway http.Handler
	// admin does so for the administrative services.
	admin  http.Handler
	realm  string
	origin func(peer net.Addr, forwarded []string) net.Addr
	// admit is [Service.Admit], unread [Service.Unread].
	admit  func(ctx context.Context) (context.Context, error)
	unread func(ctx context.Context, event string, refusal *oauth.Error)
}

// New makes the handler for an issuer.
func New(ctx context.Context, issuer oauth.Issuer, service Service) (http.Handler, error) {
	conn := &local{interceptor: service.UnaryInterceptor(), methods: make(map[string]method)}
	service.Register(conn)
	f := &face{realm: issuer.String(), origin: service.Origin, admit: service.Admit, unread: service.Unread}
	forms := &formMarshaler{newDocumentMarshaler()}
	documents := newDocumentMarshaler()
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(formType, forms),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &documents),
		runtime.WithErrorHandler(f.handleError),
		// Without these two a caller could choose another method than the one it sent, by header or by form.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithMetadata(authorization),
		runtime.WithForwardResponseOption(setHeaders),
	)
	f.gateway = mux
	var err error
	if f.admin, err = f.newAdmin(ctx, conn); err != nil {
		return nil, err
	}
	return f, gatewayv1.RegisterTokenServiceHandlerClient(ctx, mux, grantorv1.NewTokenServiceClient(conn))
}

// none lets no header become metadata or the reverse.
func none(string) (string, bool) { return "", false }

// authorization hands on the one header that counts, as it was sent. The gateway would leave out a value that gRPC cannot
// carry; without it the request could mean something else, and in process nothing needs to carry it.
func authorization(_ context.Context, r *http.Request) metadata.MD {
	return metadata.MD{"authorization": r.Header["Authorization"]}
}

// ServeHTTP implements [http.Handler]. Paths are compared exactly and as sent: no letter case, slash or escape is
// forgiven, since whatever stands in front of the issuer may have decided by them.
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, err := f.admit(peer.NewContext(r.Context(), f.peerOf(r)))
	if err != nil {
		failureOf(err).write(w, f.realm)
		return
	}
	r = r.WithContext(ctx)
	if strings.HasPrefix(r.URL.EscapedPath(), adminPath) {
		f.serveAdmin(w, r)
		return
	}
	r.URL.RawQuery = "" // credentials there would end up in logs, so nothing there counts (RFC 6749 §2.3.1)
	switch r.URL.EscapedPath() {
	case tokenPath, introspectPath, revokePath:
		f.serveForm(w, r)
	case oauth.WellKnownServer, oauth.WellKnownOpenID, "/.well-known/jwks.json":
		f.serveDocument(w, r)
	default:
		f.notFound(w)
	}
}

// serveForm takes a form (RFC 6749 §3.2).
func (f *face) serveForm(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		f.refuseMethod(w, "POST")
		return
	}
	body, refusal := readForm(w, r)
	if refusal != nil {
		f.unread(r.Context(), eventOf[r.URL.EscapedPath()], refusal.refusal)
		refusal.write(w, f.realm)
		return
	}
	r.Body = body
	// The rest is for whoever stands at the edge. The gateway would act on it: Accept, Grpc-Timeout, TE, X-Forwarded-For.
	r.Header = http.Header{"Content-Type": {formType}, "Authorization": r.Header["Authorization"]}
	f.gateway.ServeHTTP(w, r)
}

// serveDocument answers with a public document that may be cached (RFC 9111), to GET and HEAD.
func (f *face) serveDocument(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		f.refuseMethod(w, "GET, HEAD")
		return
	}
	r.Header.Del("Range") // a part of a key set is of no use to anybody
	inner := r.Clone(r.Context())
	inner.Method, inner.Body = http.MethodGet, http.NoBody
	inner.Header = http.Header{}
	answer := &buffer{header: http.Header{}, status: http.StatusOK}
	f.gateway.ServeHTTP(answer, inner)
	maps.Copy(w.Header(), answer.header)
	if answer.status != http.StatusOK {
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes()) // a caller that has gone away is told nothing
		return
	}
	sum := sha256.Sum256(answer.body.Bytes())
	w.Header().Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(sum[:16])+`"`)
	w.Header().Del("Content-Length")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(answer.body.Bytes()))
}

func (f *face) refuseMethod(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	refused := &failure{status: http.StatusMethodNotAllowed, refusal: oauth.Refuse(oauth.InvalidRequest, "The method is not allowed here.")}
	refused.write(w, f.realm)
}

// setHeaders puts on each answer what its RFC asks for. It runs on the face's own copy of the message.
func setHeaders(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	switch answer := m.(type) {
	case *grantorv1.GetKeySetResponse:
		w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", answer.GetMaxAge()))
		answer.MaxAge = 0 // said by the header
	case *grantorv1.GetServerMetadataResponse:
		w.Header().Set("Cache-Control", "public, max-age=300")
	default:
		noStore(w.Header())
		return nil
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return nil
}

// documentMarshaler writes messages as JSON with the field names of the RFCs.
type documentMarshaler struct{ runtime.JSONPb }

func newDocumentMarshaler() documentMarshaler {
	return documentMarshaler{runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true}}}
}

// Marshal implements [runtime.Marshaler].
func (m *documentMarshaler) Marshal(v any) ([]byte, error) {
	switch answer := v.(type) {
	case *grantorv1.IssueTokenResponse:
		// protojson takes four times as long, a quarter of what a token costs here beside its signature.
		return json.Marshal(&tokenAnswer{ //nolint:gosec // it is there to give the token
			answer.GetAccessToken(), answer.GetTokenType(), answer.GetExpiresIn(), answer.GetScope(),
		})
	case *grantorv1.GetServerMetadataResponse:
		// RFC 8414 §2 requires response_types_supported also when it is empty.
		return protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(answer)
	}
	return m.JSONPb.Marshal(v)
}

// tokenAnswer is a token as JSON (RFC 6749 §5.1), as protojson would have it.
type tokenAnswer struct {
	AccessToken string `json:"access_token,omitempty"`
	TokenType   string `json:"token_type,omitempty"`
	ExpiresIn   int32  `json:"expires_in,omitempty"`
	Scope       string `json:"scope,omitempty"`
}

// ContentType implements [runtime.Marshaler].
func (*documentMarshaler) ContentType(any) string { return "application/json;charset=UTF-8" }

// peerOf says who calls, as a gRPC server would. A header that claims another address counts only from a trusted proxy, and
// one that claims a certificate never.
func (f *face) peerOf(r *http.Request) *peer.Peer {
	p := &peer.Peer{Addr: f.origin(address(r.RemoteAddr), r.Header["X-Forwarded-For"])}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		p.LocalAddr = local
	}
	if r.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{
			State:          *r.TLS,
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}
	}
	return p
}

// address is a TCP address as net/http gives it: host:port.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// buffer holds an answer back so that its ETag can be worked out.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header            { return b.header }
func (b *buffer) WriteHeader(status int)         { b.status = status }
func (b *buffer) Write(data []byte) (int, error) { return b.body.Write(data) }
