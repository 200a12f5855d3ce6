package connectrpc

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

const contentType = "Content-Type"

// dpopHeader is the name of the header DPoP in [http.Header].
var dpopHeader = http.CanonicalHeaderKey(dpop.Header)

// protocol is a protocol of the requests.
type protocol struct {
	// enveloped reports whether a message has a prefix with its length and whether it is compressed.
	enveloped bool
	// encoding is the header with the compression of a message, timeout that with the maximum duration of the call.
	encoding, timeout string
	// needsHTTP2 reports whether answers have trailers.
	needsHTTP2 bool
}

var (
	connectProtocol = &protocol{encoding: "Content-Encoding", timeout: "Connect-Timeout-Ms"}
	webProtocol     = &protocol{enveloped: true, encoding: "Grpc-Encoding", timeout: "Grpc-Timeout"}
	grpcProtocol    = &protocol{enveloped: true, encoding: "Grpc-Encoding", timeout: "Grpc-Timeout", needsHTTP2: true}
)

// protocols maps each media type to its protocol. Those of the base64 form of gRPC-Web, application/grpc-web-text, and
// of the streams of Connect are not among them.
var protocols = map[string]*protocol{
	"application/json":           connectProtocol,
	"application/proto":          connectProtocol,
	"application/grpc-web":       webProtocol,
	"application/grpc-web+proto": webProtocol,
	"application/grpc-web+json":  webProtocol,
	"application/grpc":           grpcProtocol,
	"application/grpc+proto":     grpcProtocol,
	"application/grpc+json":      grpcProtocol,
}

// MediaTypes are the media types of requests, as the header Accept-Post lists them.
var MediaTypes = strings.Join(slices.Sorted(maps.Keys(protocols)), ", ")

// ErrNotSpoken is the refusal of a request for which [Speaks] is false.
var ErrNotSpoken = oauth.Refuse(oauth.InvalidRequest, "Content-Type must be application/json or application/proto for Connect, "+
	"application/grpc-web+proto or application/grpc-web+json for gRPC-Web, or application/grpc over HTTP/2.")

// Speaks reports whether the request is one of a protocol that a [Handler] answers: a POST with the media type of one.
func Speaks(r *http.Request) bool {
	p, ok := protocols[mediaType(r.Header)]
	return ok && r.Method == http.MethodPost && (r.ProtoMajor > 1 || !p.needsHTTP2)
}

// mediaType returns the media type of a request in lower case, or "" unless it has exactly one. The only parameter that
// matters is a charset, which must be UTF-8.
func mediaType(header http.Header) string {
	sent := header[contentType]
	if len(sent) != 1 {
		return ""
	}
	name, parameters, _ := strings.Cut(sent[0], ";")
	for parameter := range strings.SplitSeq(parameters, ";") {
		key, value, _ := strings.Cut(strings.Trim(parameter, " \t"), "=")
		if value = strings.Trim(value, `"`); oauth.EqualFold(key, "charset") && !oauth.EqualFold(value, "utf-8") {
			return ""
		}
	}
	name = strings.Trim(name, " \t")
	for known := range protocols {
		if oauth.EqualFold(name, known) {
			return known
		}
	}
	return ""
}
