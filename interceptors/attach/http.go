package attach

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/grantorhq/grantor/service/oauth"
)

// RoundTrip sends a request with the source's token over [http.DefaultTransport]; see [Source.Transport].
func (s *Source) RoundTrip(request *http.Request) (*http.Response, error) {
	return s.Transport(nil).RoundTrip(request)
}

// Transport sends requests with the source's token over base; nil means [http.DefaultTransport].
//
// A request that [http.Client] makes because of a redirect carries the token only while every hop so far had the first
// one's scheme and host: what another host asks for does not speak for the client. A request over plain http to a host
// that is not loopback fails, unless [AllowInsecurePlaintextToRemoteHosts] is given. So does one that already has an
// Authorization header, as no request should leave under an identity that its author did not mean.
//
// An answer of 401 drops the token ([Source.Drop]). If it also has "WWW-Authenticate: Bearer error="invalid_token"", if
// there is another token and if the body can be read again (http.Request.GetBody), the request is made once more.
func (s *Source) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	if s.instruments != nil {
		base = s.instruments.roundTripper(base)
	}
	return &transport{s, base}
}

type transport struct {
	source *Source
	base   http.RoundTripper
}

// RoundTrip keeps the contract of [http.RoundTripper]: the request is not changed and its body is always closed.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if astray(request) {
		return t.base.RoundTrip(request)
	}
	e, err := t.prepare(request)
	if err != nil {
		if request.Body != nil {
			_ = request.Body.Close()
		}
		return nil, err
	}
	answer, err := t.base.RoundTrip(with(e, request))
	if err != nil || answer.StatusCode != http.StatusUnauthorized {
		return answer, err
	}
	t.source.Drop(e.token)
	if !tokenRefused(answer.Header.Values("WWW-Authenticate")) {
		return answer, nil
	}
	body, replayable := bodyAgain(request)
	if !replayable || !idempotent(request) {
		return answer, nil
	}
	next, err := t.source.get(request.Context())
	if err != nil || next.token == e.token {
		if body != nil {
			_ = body.Close()
		}
		return answer, nil
	}
	again := with(next, request)
	again.Body = body
	_ = answer.Body.Close() // unread, for a body that does not end would hold up the second request
	return t.base.RoundTrip(again)
}

// prepare checks that the request may carry the token, and gets it.
func (t *transport) prepare(request *http.Request) (*entry, error) {
	if request.Header.Get("Authorization") != "" {
		return nil, errors.New("attach: the request already has an Authorization header; use a client without attach")
	}
	// The host alone: a path or a query may hold what does not belong in a log.
	place := request.URL.Scheme + "://" + request.URL.Host
	if err := oauth.SecureURL(place); err != nil && !t.source.plaintext {
		return nil, fmt.Errorf("attach: no token is sent in plaintext: %w", err)
	}
	return t.source.get(request.Context())
}

// with gives a copy of the request that carries the token.
func with(e *entry, request *http.Request) *http.Request {
	own := request.Clone(request.Context())
	if own.Header == nil {
		own.Header = make(http.Header, 1)
	}
	own.Header.Set("Authorization", e.header)
	return own
}

// idempotent reports whether sending the request twice does no more than sending it once (RFC 9110 §9.2.2). Unlike a gRPC
// trailer, a challenge need not be from the server itself: a handler may have acted and then passed on what another
// server said. A request with an idempotency key says that it may be repeated, as for [http.Transport].
func idempotent(request *http.Request) bool {
	switch request.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return request.Header.Get("Idempotency-Key") != "" || request.Header.Get("X-Idempotency-Key") != ""
}

// bodyAgain gives the request's body once more, where that can be done.
func bodyAgain(request *http.Request) (_ io.ReadCloser, ok bool) {
	if request.Body == nil || request.Body == http.NoBody {
		return request.Body, true
	}
	if request.GetBody == nil {
		return nil, false
	}
	body, err := request.GetBody()
	return body, err == nil
}

// astray reports whether redirects have led the request through another origin than the first one's, or it cannot be
// told.
func astray(request *http.Request) bool {
	for hop := request; hop.Response != nil; {
		hop = hop.Response.Request
		if hop == nil || hop.URL.Scheme != request.URL.Scheme || hop.URL.Host != request.URL.Host {
			return true
		}
	}
	return false
}
