package guard

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/grantorhq/grantor/service/dpop"
)

// ForwardHeaders says in which headers a proxy describes the request that it asks about.
type ForwardHeaders string

// The sets of headers. [ForwardAuth] reads the configured one alone: a proxy that sets one passes the other on as its client
// sent it.
const (
	// XForwarded is X-Forwarded-Method, X-Forwarded-Proto, X-Forwarded-Host and X-Forwarded-Uri, which Traefik and Caddy set.
	XForwarded ForwardHeaders = "x-forwarded"
	// XOriginal is X-Original-Method, X-Original-Proto, X-Original-Host and X-Original-URI, which nginx and HAProxy are
	// configured to set.
	XOriginal ForwardHeaders = "x-original"
)

// forwardNames has the canonical names of the headers with the method, the scheme, the host and the path.
var forwardNames = map[ForwardHeaders][4]string{
	XForwarded: {"X-Forwarded-Method", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Uri"},
	XOriginal:  {"X-Original-Method", "X-Original-Proto", "X-Original-Host", "X-Original-Uri"},
}

// ForwardConfig configures [ForwardAuth].
type ForwardConfig struct {
	// Headers is required.
	Headers ForwardHeaders
	// Proxies are the networks from which proxies ask. A request from elsewhere is refused. It must not be empty, because
	// anyone can send the headers that describe a request.
	Proxies []netip.Prefix
}

// ForwardAuth returns a handler for the subrequests of a proxy, such as auth_request of nginx, ForwardAuth of Traefik and
// forward_auth of Caddy. The proxy sends the headers of its client with the subrequest; four others describe the request, each with
// exactly one value.
//
// If the request is admitted, the response is 200 with the headers for the upstream, which the proxy copies to the request,
// replacing those of the client also where the response has none. If it is refused, the response is the one for the client,
// with 401, 403, 500 or 503. The method of the subrequest does not matter, and its body is not read.
//
// The handler cannot remove headers of the client from the request. It therefore refuses a request with a header that an
// upstream could read as one of those for it, although its name is another, such as X_Grantor_Client_Id. Config.RemoveToken
// is up to the proxy's configuration, too. Client certificates are not passed on, so that tokens that are bound to one are refused.
func ForwardAuth(guard *Guard, config ForwardConfig) (http.Handler, error) {
	names, ok := forwardNames[config.Headers]
	switch {
	case guard == nil:
		return nil, errors.New("guard: the guard is missing")
	case !ok:
		return nil, fmt.Errorf("guard: %.200q is no set of headers", config.Headers)
	case len(config.Proxies) == 0:
		return nil, errors.New("guard: no networks of proxies")
	}
	return &forward{guard: guard, names: names, proxies: slices.Clone(config.Proxies)}, nil
}

// forward implements ForwardAuth.
type forward struct {
	guard   *Guard
	names   [4]string
	proxies []netip.Prefix
}

// ServeHTTP implements [http.Handler].
func (f *forward) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // otherwise the server waits for the body before it sends the response
	}
	d := f.decide(r)
	if d.Refusal != nil {
		d.Refusal.WriteHTTP(w)
		return
	}
	header := w.Header()
	for _, h := range d.Set {
		header.Set(h.Name, h.Value)
	}
	if d.NextNonce != "" {
		header.Set(dpop.NonceHeader, d.NextNonce)
	}
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// decide decides about the request that a subrequest describes.
func (f *forward) decide(r *http.Request) Decision {
	var described [4]string
	for i, name := range f.names {
		if values := r.Header[name]; len(values) == 1 {
			described[i] = values[0]
		}
	}
	request := &Request{
		Wire: Forward, Method: described[0], Scheme: described[1], Host: described[2], Path: described[3],
		Header: func(yield func(name, value string) bool) { yieldAll(r.Header, yield) },
	}
	var cause error
	switch {
	case !f.trusts(r.RemoteAddr):
		cause = ErrUntrustedProxy
	case slices.Contains(described[:], "") || !slices.Contains(schemes, request.Scheme):
		cause = errForwardForm
	default:
		return f.guard.Decide(r.Context(), request)
	}
	d := Decision{Refusal: refuse(cause)}
	f.guard.report(r.Context(), request, d.Refusal)
	return d
}

// schemes are the schemes of requests. Traefik sends ws and wss for WebSockets.
var schemes = []string{"http", "https", "ws", "wss"}

// yieldAll yields each value of a header.
func yieldAll(header http.Header, yield func(name, value string) bool) {
	for name, values := range header {
		for _, value := range values {
			if !yield(name, value) {
				return
			}
		}
	}
}

// trusts reports whether a connection comes from a trusted proxy.
func (f *forward) trusts(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(f.proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}
