package guard

import (
	"net/http"
	"net/netip"
)

// ForwardHeaders says in which headers a proxy describes the request that it asks about.
type ForwardHeaders string

// The sets of headers. There is no guessing between them: a proxy that sets one passes the other on from its client.
const (
	// XForwarded is X-Forwarded-Method, X-Forwarded-Proto, X-Forwarded-Host and X-Forwarded-Uri, as of Traefik and Caddy.
	XForwarded ForwardHeaders = "x-forwarded"
	// XOriginal is X-Original-Method, X-Original-Proto, X-Original-Host and X-Original-URI, which nginx and HAProxy can set.
	XOriginal ForwardHeaders = "x-original"
)

// ForwardConfig configures [ForwardAuth].
type ForwardConfig struct {
	// Headers is required.
	Headers ForwardHeaders
	// Proxies are the networks from which a proxy may ask. A request from elsewhere is refused.
	Proxies []netip.Prefix
}

// ForwardAuth returns a handler that answers a proxy's question about a request by 200, or by the response to the client.
func ForwardAuth(guard *Guard, config ForwardConfig) (http.Handler, error) {
	return http.NotFoundHandler(), nil
}
