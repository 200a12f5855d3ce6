package attach

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// RoundTrip implements [http.RoundTripper]. It sends the request with the source's token over [http.DefaultTransport];
// see [Source.Transport].
func (s *Source) RoundTrip(request *http.Request) (*http.Response, error) {
	return s.Transport(nil).RoundTrip(request)
}

// Transport returns a transport that sends requests with the source's token over base. If base is nil, or a nil
// *http.Transport, [http.DefaultTransport] is used.
//
// If the source has a certificate ([Certificate]), requests with its token are sent over copies of base that present
// the certificate, one for each certificate. A base that is not an *http.Transport cannot be copied: it is used as it
// is and has to present the certificate itself.
//
// When [http.Client] follows redirects, a request carries the token only while every hop so far had the scheme and host
// of the first: a request that another host asked for is not made in the client's name. A request over plain HTTP to a
// host that is not loopback fails, unless the source has [AllowInsecurePlaintextToRemoteHosts]. A request that already
// has an Authorization header fails too, because no request should be sent under an identity that its author did not
// intend.
//
// A response with status 401 drops the token ([Source.Drop]). The request is repeated once if the response also has
// "WWW-Authenticate: Bearer error="invalid_token"", there is another token, the method is idempotent (RFC 9110 §9.2.2)
// or the request has an Idempotency-Key header, and the body can be read again (http.Request.GetBody).
func (s *Source) Transport(base http.RoundTripper) http.RoundTripper {
	if own, ok := base.(*http.Transport); base == nil || ok && own == nil {
		base = http.DefaultTransport
	}
	if s == nil {
		s = new(Source)
	}
	t := &transport{source: s, own: base, base: base}
	if s.instruments != nil {
		t.base = s.instruments.roundTripper(base)
	}
	return t
}

type transport struct {
	source *Source
	// own is the program's transport, and base the same one with instruments, if there are any.
	own, base http.RoundTripper
}

// RoundTrip implements [http.RoundTripper]: it does not change the request and always closes its body.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request == nil || request.URL == nil {
		if request != nil && request.Body != nil {
			_ = request.Body.Close()
		}
		return nil, errors.New("attach: the request has no URL")
	}
	if crossedOrigin(request) {
		return roundTrip(t.base, request)
	}
	e, err := t.prepare(request)
	if err != nil {
		if request.Body != nil {
			_ = request.Body.Close()
		}
		return nil, err
	}
	answer, again, err := t.send(e, request, request.Body)
	if again {
		if body, replayable := rewindBody(request); replayable {
			closeBody(answer)
			answer, _, err = t.send(e, request, body)
		}
	}
	if err != nil || answer.StatusCode != http.StatusUnauthorized {
		return answer, err
	}
	challenges := answer.Header.Values("WWW-Authenticate")
	if proofRefused(challenges) {
		return answer, nil // the token is not the reason
	}
	e.source.Drop(e.token)
	if !tokenRefused(e.source.prover.scheme(), challenges) {
		return answer, nil
	}
	body, replayable := rewindBody(request)
	if !replayable || !idempotent(request) {
		return answer, nil
	}
	next, err := e.source.get(request.Context())
	if err != nil || next.token == e.token {
		if body != nil {
			_ = body.Close()
		}
		return answer, nil
	}
	closeBody(answer)
	answer, _, err = t.send(next, request, body)
	return answer, err
}

// send sends the request with the token of e, a DPoP proof if the source has them, and the body. again reports that the
// server demands the same with a nonce that it has provided.
func (t *transport) send(e *entry, request *http.Request, body io.ReadCloser) (_ *http.Response, again bool, _ error) {
	own := withToken(e, request)
	own.Body = body
	nonce, err := e.source.prover.proveRequest(own, e.token)
	if err != nil {
		if body != nil {
			_ = body.Close()
		}
		return nil, false, err
	}
	base := t.base
	if e.source.certificate != nil {
		base = e.source.transport(t)
	}
	answer, err := roundTrip(base, own)
	if err != nil {
		return nil, false, err
	}
	return answer, e.source.prover.learnResponse(own, nonce, answer), nil
}

// closeBody closes the body of a response that is not used. It is not read: an endless body would delay the second
// request.
func closeBody(answer *http.Response) {
	if answer.Body != nil {
		_ = answer.Body.Close()
	}
}

// roundTrip sends the request over base, and returns an error if base returns neither a response nor an error.
func roundTrip(base http.RoundTripper, request *http.Request) (*http.Response, error) {
	answer, err := base.RoundTrip(request)
	if answer == nil && err == nil {
		return nil, fmt.Errorf("attach: the base transport, a %T, returned no response and no error", base)
	}
	return answer, err
}

// prepare checks that the request may carry a token, and returns the token.
func (t *transport) prepare(request *http.Request) (*entry, error) {
	if request.Header.Get("Authorization") != "" {
		return nil, errors.New("attach: the request already has an Authorization header; use a client without attach")
	}
	if t.source.prover != nil && hasProofHeader(request.Header) {
		return nil, errors.New("attach: the request already has a DPoP header; use a client without attach")
	}
	// Only scheme and host go into the error: a path or a query may contain what does not belong in a log.
	origin := request.URL.Scheme + "://" + request.URL.Host
	if err := oauth.SecureURL(origin); err != nil && !t.source.plaintext {
		return nil, fmt.Errorf("attach: no token is sent in plaintext: %w", err)
	}
	return t.source.get(request.Context())
}

// hasProofHeader reports whether there is a DPoP proof, also under a name that the program has not put in canonical form.
func hasProofHeader(header http.Header) bool {
	for name := range header {
		if strings.EqualFold(name, dpop.Header) {
			return true
		}
	}
	return false
}

// withToken returns a copy of the request that carries the token of e.
func withToken(e *entry, request *http.Request) *http.Request {
	own := request.Clone(request.Context())
	if own.Header == nil {
		own.Header = make(http.Header, 1)
	}
	own.Header.Set("Authorization", e.header)
	return own
}

// idempotent reports whether sending the request twice has the same effect as sending it once (RFC 9110 §9.2.2). Unlike
// a gRPC trailer, a challenge may not come from the server itself: a handler may have acted on the request and then
// passed on the response of another server. A request with an idempotency key may be repeated, as [http.Transport]
// does.
func idempotent(request *http.Request) bool {
	switch request.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return request.Header.Get("Idempotency-Key") != "" || request.Header.Get("X-Idempotency-Key") != ""
}

// rewindBody returns the request's body from its start; ok is false if the body can be read only once.
func rewindBody(request *http.Request) (_ io.ReadCloser, ok bool) {
	if request.Body == nil || request.Body == http.NoBody {
		return request.Body, true
	}
	if request.GetBody == nil {
		return nil, false
	}
	body, err := request.GetBody()
	return body, err == nil
}

// maxHops is the maximum number of redirects that crossedOrigin follows back. [http.Client] makes 10.
const maxHops = 100

// crossedOrigin reports whether any redirect that led to the request was to another origin, or cannot be followed back:
// a request is missing, or there are more than maxHops, as in a circle.
func crossedOrigin(request *http.Request) bool {
	hops := 0
	for hop := request; hop.Response != nil; hops++ {
		hop = hop.Response.Request
		if hops == maxHops || hop == nil || hop.URL == nil ||
			hop.URL.Scheme != request.URL.Scheme || hop.URL.Host != request.URL.Host {
			return true
		}
	}
	return false
}
