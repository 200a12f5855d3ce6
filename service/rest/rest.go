// Package rest serves the issuer over HTTP: forms, OAuth errors, headers and the /.well-known documents. It implements
// RFC 6749 §3.2 and §5, RFC 8414 §3 and RFC 7517 §5 on top of the gRPC services, which it calls in the same process and
// through the same interceptors. It contains no rule about clients and tokens.
package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
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
	"github.com/grantorhq/grantor/service/connectrpc"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/status"
	"github.com/grantorhq/grantor/service/telemetry"
)

// Service is the part of the issuer that New serves. Its methods are safe for concurrent use by multiple goroutines.
type Service interface {
	// Register registers the gRPC services with a server.
	Register(server grpc.ServiceRegistrar)
	// UnaryInterceptor returns the interceptor that every call passes.
	UnaryInterceptor() grpc.UnaryServerInterceptor
	// Origin returns the address that a request came from, given the peer of its connection and the values of its
	// X-Forwarded-For header.
	Origin(peer net.Addr, forwarded []string) net.Addr
	// Certificates returns the peer of a request with the certificates of the client that it comes from, given the other end
	// of its connection and its headers. The error is an [oauth.Error].
	Certificates(p *peer.Peer, end net.Addr, header func(name string) []string) (*peer.Peer, error)
	// Admit returns an error with a gRPC status if the source of the request sends too many. ctx contains the peer. The
	// calls that are made for the request use the context that Admit returns.
	Admit(ctx context.Context) (context.Context, error)
	// Receive reserves memory for a request before its body is read; leave releases it. body is the maximum size of the
	// body. busy reports that the body should arrive within a second. The error has a gRPC status.
	Receive(ctx context.Context, body int) (leave func(), busy bool, err error)
	// Unread records the refusal of a request that could not be read, and for which no call was therefore made. event is
	// the name of its audit event.
	Unread(ctx context.Context, event string, refusal *oauth.Error)
}

// refusedEvents maps the path of each form endpoint, and of each method that authenticates a client, to the audit event
// of a refusal there.
var refusedEvents = map[string]string{
	tokenPath:      telemetry.EventTokenRefused,
	introspectPath: telemetry.EventIntrospectRefused,
	revokePath:     telemetry.EventRevokeRefused,

	grantorv1.TokenService_IssueToken_FullMethodName:         telemetry.EventTokenRefused,
	grantorv1.TokenService_IntrospectToken_FullMethodName:    telemetry.EventIntrospectRefused,
	grantorv1.TokenService_IntrospectTokens_FullMethodName:   telemetry.EventIntrospectRefused,
	grantorv1.TokenService_RevokeToken_FullMethodName:        telemetry.EventRevokeRefused,
	grantorv1.TokenService_RevokeClientTokens_FullMethodName: telemetry.EventRevokeRefused,
}

// handler is the [http.Handler] that New returns.
type handler struct {
	// gateway translates between HTTP and the token service, admin between HTTP and the administrative services.
	gateway, admin http.Handler
	// calls answers calls of the token service by Connect, gRPC-Web and gRPC.
	calls *connectrpc.Handler
	realm string
	// base is the path of the issuer's URL.
	base string
	// origins has the origins whose pages may read the responses of the token endpoint and of calls.
	origins map[string]bool
	// front is the answer at the root, keyed by media type.
	front map[string][]byte
	// origin is [Service.Origin], admit is [Service.Admit], unread is [Service.Unread].
	origin func(peer net.Addr, forwarded []string) net.Addr
	// certificates is [Service.Certificates].
	certificates func(p *peer.Peer, end net.Addr, header func(name string) []string) (*peer.Peer, error)
	admit        func(ctx context.Context) (context.Context, error)
	unread       func(ctx context.Context, event string, refusal *oauth.Error)
	// receive is [Service.Receive].
	receive func(ctx context.Context, body int) (leave func(), busy bool, err error)
}

// New returns the HTTP handler of an issuer. ctx is for the registration alone. Web pages of origins may read the
// responses of the token endpoint and of calls by Connect and gRPC-Web; any page may read the public documents.
func New(ctx context.Context, issuer oauth.Issuer, service Service, origins ...Origin) (http.Handler, error) {
	conn := &local{interceptor: service.UnaryInterceptor(), methods: make(map[string]method)}
	service.Register(conn)
	h := &handler{
		realm: issuer.String(), base: issuer.Path(), origin: service.Origin, certificates: service.Certificates, admit: service.Admit,
		unread: service.Unread, receive: service.Receive,
	}
	h.calls = connectrpc.New(connectrpc.Config{Call: conn.call, Unread: h.unreadCall, Realm: h.realm})
	h.front = frontPages(h.realm)
	h.origins = make(map[string]bool, len(origins))
	for _, origin := range origins {
		h.origins[origin.text] = true
	}
	mux := runtime.NewServeMux(append(h.gatewayOptions(),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &formMarshaler{newDocumentMarshaler()}),
	)...)
	h.gateway = mux
	var err error
	if h.admin, err = h.newAdmin(ctx, conn); err != nil {
		return nil, err
	}
	return h, gatewayv1.RegisterTokenServiceHandlerClient(ctx, mux, newTokenClient(conn))
}

// gatewayOptions returns the options that both gateways share.
func (h *handler) gatewayOptions() []runtime.ServeMuxOption {
	return []runtime.ServeMuxOption{
		runtime.WithErrorHandler(h.handleError),
		// Without these two a caller could choose another method than the one it sent, by header or by form.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithForwardResponseOption(setHeaders),
	}
}

// none is a [runtime.HeaderMatcherFunc] that passes no header on as metadata, and no metadata as a header.
func none(string) (string, bool) { return "", false }

// inner returns the request that a gateway gets for r. Its headers are in the context as the incoming metadata of the
// call: exactly the two that the services read, and exactly as they were sent, because without a value that gRPC cannot
// transmit the request could have another meaning. The gateway finds no header, and would act on others, which are meant
// for proxies: Accept, Grpc-Timeout, TE, X-Forwarded-For.
func inner(r *http.Request, body io.ReadCloser) *http.Request {
	ctx := metadata.NewIncomingContext(r.Context(), metadata.MD{"authorization": r.Header["Authorization"], "dpop": r.Header[dpopHeader]})
	return (&http.Request{Method: r.Method, URL: r.URL, Body: body}).WithContext(ctx)
}

// ServeHTTP implements [http.Handler]. It compares paths exactly as they were sent, without normalizing letter case,
// slashes or escapes, because a proxy in front of the issuer may have decided by them.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = h.locate(r)
	fromPage := h.admitOrigin(w, r)
	end := remoteaddr.FromText(r.RemoteAddr)
	p := h.peer(r, end)
	ctx, err := h.admit(peer.NewContext(r.Context(), p))
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	if ctx, err = h.identify(ctx, p, r, end); err != nil {
		h.refuse(w, r, err)
		return
	}
	leave, err := h.reserve(ctx, w, r)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	defer leave()
	r = h.withProof(r.WithContext(ctx))
	if strings.HasPrefix(r.URL.EscapedPath(), adminPath) && h.elsewhere(r) == "" {
		h.serveAdmin(w, r)
		return
	}
	r.URL.RawQuery = "" // ignored: credentials in a query end up in logs (RFC 6749 §2.3.1)
	switch r.URL.EscapedPath() {
	case frontPath:
		h.serveFront(w, r)
	case tokenPath, introspectPath, revokePath:
		if fromPage && isPreflight(r) {
			answerPreflight(w, "POST", "Authorization, Content-Type, DPoP")
			return
		}
		h.serveForm(w, r)
	case oauth.WellKnownServer, oauth.WellKnownOpenID, keySetPath:
		h.serveDocument(w, r)
	case authorizePath:
		h.refuseAuthorization(w, r)
	default:
		if h.calls.Has(r.URL.EscapedPath()) {
			h.serveCall(w, r, fromPage)
			return
		}
		h.notFound(w, r)
	}
}

// identify returns the context of a request whose peer has the certificates of its client.
func (h *handler) identify(ctx context.Context, p *peer.Peer, r *http.Request, end net.Addr) (context.Context, error) {
	resolved, err := h.certificates(p, end, r.Header.Values)
	if err != nil {
		event := refusedEvents[r.URL.EscapedPath()]
		if strings.HasPrefix(r.URL.EscapedPath(), adminPath) {
			event = telemetry.EventAdminRefused
		}
		if event != "" {
			h.unread(ctx, event, oauth.From(err))
		}
		return ctx, status.From(err)
	}
	if resolved == p {
		return ctx, nil
	}
	return peer.NewContext(ctx, resolved), nil
}

// locate returns the request with its path below the issuer's own.
func (h *handler) locate(r *http.Request) *http.Request {
	sent := r.URL.EscapedPath()
	path := below(h.base, sent)
	if path == sent {
		return r
	}
	located := *r
	located.URL = new(*r.URL)
	located.URL.RawPath = path
	located.URL.Path, _ = url.PathUnescape(path) // never fails for the end of a path that was unescaped before
	return &located
}

// busyTimeout is how long a body may take while many requests are under way.
const busyTimeout = time.Second

// reserve reserves memory for the request before its body is read. leave is called when the answer is written.
func (h *handler) reserve(ctx context.Context, w http.ResponseWriter, r *http.Request) (leave func(), _ error) {
	size := h.maxSize(r)
	release, busy, err := h.receive(ctx, size)
	if err != nil {
		return nil, err
	}
	if busy && size > 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(busyTimeout)) // not every writer has deadlines
	}
	if r.ProtoMajor == 1 {
		return release, nil
	}
	return func() {
		// Over HTTP/2 the answers of many streams may wait for a caller that does not read.
		_ = http.NewResponseController(w).Flush()
		release()
	}, nil
}

// maxSize returns the maximum size of the body of the request.
func (h *handler) maxSize(r *http.Request) int {
	switch {
	case h.calls.Has(r.URL.EscapedPath()):
		return h.calls.MaxSize(r)
	case r.ContentLength < 0:
		return maxForm // its size is not declared
	}
	return int(min(r.ContentLength, maxForm))
}

// serveForm answers a request whose body is a form (RFC 6749 §3.2).
func (h *handler) serveForm(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		h.refuseMethod(w, r)
		return
	}
	body, refusal := readForm(w, r)
	if refusal != nil {
		h.unread(r.Context(), refusedEvents[r.URL.EscapedPath()], refusal.refusal)
		refusal.write(w, h.realm)
		return
	}
	h.gateway.ServeHTTP(w, inner(r, body))
}

// refuseAuthorization answers at the authorization endpoint, which exists because readers of the metadata want it named.
// No client has a redirect URI, so that nothing is redirected (RFC 6749 §4.1.2.1).
func (h *handler) refuseAuthorization(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
		refused := oauth.Refuse(oauth.UnauthorizedClient, "Nobody signs in here: clients request tokens for themselves at the token endpoint.")
		(&failure{status: http.StatusBadRequest, refusal: refused}).write(w, h.realm)
	default:
		h.refuseMethod(w, r)
	}
}

// refuseMethod answers a request whose path does not take its method (RFC 9110 §15.5.6).
func (h *handler) refuseMethod(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", routes[route(r.URL.EscapedPath())])
	refused := &failure{status: http.StatusMethodNotAllowed, refusal: oauth.Refuse(oauth.InvalidRequest, "The method is not allowed here.")}
	refused.write(w, h.realm)
}

// setHeaders sets the headers that the RFC of each answer requires. It may change a key set, which is a copy that
// belongs to this package.
func setHeaders(ctx context.Context, w http.ResponseWriter, m proto.Message) error {
	switch answer := m.(type) {
	case *grantorv1.GetKeySetResponse:
		w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", answer.GetMaxAge()))
		answer.MaxAge = 0 // the header contains it
	case *grantorv1.GetServerMetadataResponse:
		w.Header().Set("Cache-Control", "public, max-age=300")
	default:
		noStore(w.Header())
		if r := dpop.FromContext(ctx); r != nil && r.NextNonce != "" {
			w.Header().Set(dpop.NonceHeader, r.NextNonce)
		}
		return nil
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return nil
}

// documentMarshaler marshals messages as JSON with the field names of the RFCs.
type documentMarshaler struct{ runtime.JSONPb }

func newDocumentMarshaler() documentMarshaler {
	return documentMarshaler{runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true}}}
}

// Marshal implements [runtime.Marshaler].
func (m *documentMarshaler) Marshal(v any) ([]byte, error) {
	switch answer := v.(type) {
	case *grantorv1.IssueTokenResponse:
		return marshalToken(answer)
	case *grantorv1.GetServerMetadataResponse:
		// An empty scopes_supported says that no scope is registered, which its absence would not.
		return protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(answer)
	}
	return m.JSONPb.Marshal(v)
}

// marshalToken returns the JSON form of a token (RFC 6749 §5.1), equal to the one that protojson writes in ten times the
// time.
func marshalToken(answer *grantorv1.IssueTokenResponse) ([]byte, error) {
	token, kind, scope := answer.GetAccessToken(), answer.GetTokenType(), answer.GetScope()
	if !isPlain(token) || !isPlain(kind) || !isPlain(scope) || answer.GetExpiresIn() == 0 {
		return json.Marshal(&tokenAnswer{token, kind, answer.GetExpiresIn(), scope}) //nolint:gosec // the answer is meant to contain the token
	}
	data := make([]byte, 0, len(token)+len(kind)+len(scope)+96)
	data = append(append(data, `{"access_token":"`...), token...)
	data = append(append(data, `","token_type":"`...), kind...)
	data = strconv.AppendInt(append(data, `","expires_in":`...), int64(answer.GetExpiresIn()), 10)
	data = append(append(data, `,"scope":"`...), scope...)
	return append(data, `"}`...), nil
}

// isPlain reports whether s is a JSON string without escapes, and not empty.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return s != ""
}

// tokenAnswer is the JSON form of a token, of which empty fields are omitted.
type tokenAnswer struct {
	AccessToken string `json:"access_token,omitempty"`
	TokenType   string `json:"token_type,omitempty"`
	ExpiresIn   int32  `json:"expires_in,omitempty"`
	Scope       string `json:"scope,omitempty"`
}

// ContentType implements [runtime.Marshaler].
func (*documentMarshaler) ContentType(any) string { return "application/json;charset=UTF-8" }

// peer returns the caller as a gRPC server would. A header that claims another address counts only if a trusted proxy
// sent it.
func (h *handler) peer(r *http.Request, end net.Addr) *peer.Peer {
	p := &peer.Peer{Addr: h.origin(end, r.Header["X-Forwarded-For"])}
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
