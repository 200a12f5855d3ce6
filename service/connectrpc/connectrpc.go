// Package connectrpc answers calls of grantor.v1.TokenService by three protocols over HTTP: Connect
// (https://connectrpc.com/docs/protocol), gRPC-Web, and gRPC itself. It checks and reads a request, runs the method of the
// service in the same process, and lets connect-go write the answer. It contains no rule about clients and tokens.
//
// Whatever a request can do wrong is found before connect-go sees it, because the texts of connect-go's own errors
// quote the request, which may contain a secret, and lack the google.rpc.ErrorInfo that every refusal has.
package connectrpc

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/metadata"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

const (
	// maxMessage is the maximum size of a request in bytes: that of a form over REST. maxBatch replaces it for
	// IntrospectTokens, whose batch of tokens over gRPC may have as many.
	maxMessage = 64 << 10
	maxBatch   = 1 << 20
	// maxTimeout is the maximum time that a call takes: as long as an answer over REST.
	maxTimeout = 30 * time.Second
)

// Config is what a [Handler] works with. Every field is required.
type Config struct {
	// Call runs the method, "/package.Service/Method", with the incoming metadata in ctx. decode decodes the request into a
	// message. The error has a gRPC status or is that of decode.
	Call func(ctx context.Context, method string, decode func(message any) error) (answer any, err error)
	// Unread records the refusal of a request of the method that could not be read, and for which no call was therefore made.
	Unread func(ctx context.Context, method string, refusal *oauth.Error)
	// Realm is the realm of the challenge to a client that is not authenticated (RFC 9110 §11.5).
	Realm string
}

// Handler is the [http.Handler] of the methods, each at the path "/grantor.v1.TokenService/Method". It is safe for
// concurrent use by multiple goroutines.
type Handler struct {
	config  Config
	methods map[string]*connect.Handler
	errors  *connect.ErrorWriter
}

// New returns the handler of the unary methods of TokenService.
func New(config Config) *Handler {
	h := &Handler{config: config, methods: make(map[string]*connect.Handler), errors: connect.NewErrorWriter()}
	service := grantorv1.TokenService_ServiceDesc
	for _, method := range service.Methods {
		path := "/" + service.ServiceName + "/" + method.MethodName
		h.methods[path] = connect.NewUnaryHandler(path, h.call, codecs()...)
	}
	return h
}

// Has reports whether there is a method at the path.
func (h *Handler) Has(path string) bool {
	_, ok := h.methods[path]
	return ok
}

// MaxSize returns the maximum number of bytes that the request for a method holds while it is read.
func (h *Handler) MaxSize(r *http.Request) int {
	limit := maxSize(r.URL.EscapedPath()) + prefixSize
	size := limit
	if r.ContentLength >= 0 {
		size = int(min(r.ContentLength, int64(limit)))
	}
	if isCompressed(r.Header) {
		size += limit
	}
	return size
}

// maxSize returns the maximum size of a request of the method, in bytes.
func maxSize(method string) int {
	if method == grantorv1.TokenService_IntrospectTokens_FullMethodName {
		return maxBatch
	}
	return maxMessage
}

// ServeHTTP implements [http.Handler] for a request for which both [Handler.Has] and [Speaks] are true.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.URL.EscapedPath()
	inner, refusal := read(w, r, maxSize(method))
	if refusal != nil {
		h.config.Unread(r.Context(), method, refusal)
		h.Refuse(w, r, refusal)
		return
	}
	noStore(w.Header())
	h.methods[method].ServeHTTP(w, inner)
}

// Refuse answers a request for which [Speaks] is true with an error, which has a gRPC status or is of the domain.
func (h *Handler) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	noStore(w.Header())
	name := mediaType(r.Header)
	// An error means that the caller is gone. The writer reads nothing of the request but what is here.
	_ = h.errors.Write(w, &http.Request{Method: http.MethodPost, Header: http.Header{contentType: {name}}}, h.refusal(protocols[name], err))
}

// noStore keeps an answer out of every cache (RFC 6749 §5.1) and prevents content sniffing.
func noStore(header http.Header) {
	header.Set("Cache-Control", "no-store")
	header.Set("Pragma", "no-cache")
	header.Set("X-Content-Type-Options", "nosniff")
}

// timeoutKey is the key of the maximum duration of a call in the context of its request.
type timeoutKey struct{}

// call runs the method of a request that [read] has returned.
func (h *Handler) call(ctx context.Context, request *connect.Request[payload]) (*connect.Response[payload], error) {
	method, p := request.Spec().Procedure, protocols[mediaType(request.Header())]
	timeout, _ := ctx.Value(timeoutKey{}).(time.Duration)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, h.refusal(p, err)
	}
	// Exactly the two headers that the services read, as they were sent.
	ctx = metadata.NewIncomingContext(ctx, metadata.MD{"authorization": request.Header()["Authorization"], "dpop": request.Header()[dpopHeader]})
	answer, err := h.config.Call(ctx, method, func(message any) error {
		refusal := request.Msg.decode(message)
		if refusal == nil {
			return nil
		}
		h.config.Unread(ctx, method, refusal)
		return refusal
	})
	if err != nil {
		return nil, h.refusal(p, err)
	}
	response := connect.NewResponse(&payload{message: answer})
	if proof := dpop.FromContext(ctx); proof != nil && proof.NextNonce != "" {
		response.Header().Set(dpop.NonceHeader, proof.NextNonce)
	}
	return response, nil
}
