package connectrpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/oauth"
)

// prefixSize is the size of the prefix of a message in gRPC and gRPC-Web: one byte for flags, four for its length.
const prefixSize = 5

// flagCompressed is the flag of a compressed message. No other flag is one of requests.
const flagCompressed = 1

// read checks the headers of a request and reads its body, which is one message of at most limit bytes. It returns a
// request with the message, uncompressed, and with the headers that count: connect-go would act on others, which are
// meant for proxies or pages.
func read(w http.ResponseWriter, r *http.Request, limit int) (*http.Request, *oauth.Error) {
	name := mediaType(r.Header)
	p := protocols[name]
	if version := r.Header["Connect-Protocol-Version"]; p == connectProtocol && len(version) > 0 && (len(version) > 1 || version[0] != "1") {
		return nil, unreadable("Connect-Protocol-Version must be 1.", nil)
	}
	compressed, refusal := p.compression(r.Header)
	if refusal != nil {
		return nil, refusal
	}
	timeout, refusal := p.parseTimeout(r.Header[p.timeout])
	if refusal != nil {
		return nil, refusal
	}
	body, refusal := p.readBody(w, r, limit, compressed)
	if refusal != nil {
		return nil, refusal
	}
	header := http.Header{contentType: {name}}
	for _, kept := range []string{"Authorization", dpopHeader} {
		if values := r.Header[kept]; len(values) > 0 {
			header[kept] = values
		}
	}
	inner := &http.Request{
		Method: r.Method, URL: &url.URL{Path: r.URL.Path}, Host: r.Host, Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	return inner.WithContext(context.WithValue(r.Context(), timeoutKey{}, timeout)), nil
}

// isCompressed reports whether the message of a request may be compressed.
func isCompressed(header http.Header) bool {
	return len(header["Content-Encoding"]) > 0 || len(header["Grpc-Encoding"]) > 0
}

// compression reports whether the message of a request may be compressed, by gzip. Every other compression is refused,
// also one of the body as a whole where the message has one of its own.
func (p *protocol) compression(header http.Header) (compressed bool, _ *oauth.Error) {
	for _, name := range []string{"Content-Encoding", "Grpc-Encoding"} {
		for _, coding := range header[name] {
			switch coding = strings.Trim(coding, " \t"); {
			case coding == "" || oauth.EqualFold(coding, "identity"):
			case name == p.encoding && len(header[name]) == 1 && oauth.EqualFold(coding, "gzip"):
				compressed = true
			case name == p.encoding:
				return false, unreadable("The message may be compressed by gzip alone, and once.", nil)
			default:
				return false, unreadable(oauth.Text(name+" is not of this protocol; only identity is accepted."), nil)
			}
		}
	}
	return compressed, nil
}

// timeoutUnits maps the last letter of a Grpc-Timeout to its unit.
var timeoutUnits = map[byte]time.Duration{
	'n': time.Nanosecond, 'u': time.Microsecond, 'm': time.Millisecond, 'S': time.Second, 'M': time.Minute, 'H': time.Hour,
}

// parseTimeout returns the maximum duration of a call, at most [maxTimeout], from the values of the header with the
// timeout: at most ten digits in Connect, at most eight and a unit in the other protocols.
func (p *protocol) parseTimeout(values []string) (time.Duration, *oauth.Error) {
	if len(values) == 0 {
		return maxTimeout, nil
	}
	malformed := unreadable(oauth.Text(p.timeout+" is not well-formed."), nil)
	text, unit, maxDigits := values[0], time.Millisecond, 10
	if p.enveloped {
		if text == "" {
			return 0, malformed
		}
		unit, maxDigits = timeoutUnits[text[len(text)-1]], 8
		text = text[:len(text)-1]
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if len(values) > 1 || len(text) > maxDigits || err != nil || unit == 0 {
		return 0, malformed
	}
	if n > uint64(maxTimeout/unit) { //nolint:gosec // both are positive
		return maxTimeout, nil
	}
	return time.Duration(n) * unit, nil //nolint:gosec // at most maxTimeout
}

// readBody returns the body of a request with its message uncompressed.
func (p *protocol) readBody(w http.ResponseWriter, r *http.Request, limit int, compressed bool) ([]byte, *oauth.Error) {
	maxBody := limit
	if p.enveloped {
		maxBody += prefixSize
	}
	if r.ContentLength > int64(maxBody) {
		return nil, tooLarge(limit)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(maxBody)))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge(limit)
	}
	if err != nil {
		return nil, unreadable("The body could not be read.", err)
	}
	if !p.enveloped {
		if compressed && len(body) > 0 {
			return decompress(body, limit)
		}
		return body, nil
	}
	message, flagged, refusal := openEnvelope(body)
	switch {
	case refusal != nil:
		return nil, refusal
	case !flagged:
		return body, nil
	case !compressed:
		return nil, unreadable("The message is flagged as compressed, and Grpc-Encoding does not say how.", nil)
	}
	if message, refusal = decompress(message, limit); refusal != nil {
		return nil, refusal
	}
	prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) //nolint:gosec // at most limit
	return append(prefix, message...), nil
}

// openEnvelope returns the message of a body, which must be exactly one, and whether it is flagged as compressed.
func openEnvelope(body []byte) (message []byte, compressed bool, _ *oauth.Error) {
	if len(body) < prefixSize {
		return nil, false, unreadable("The body has no message.", nil)
	}
	message = body[prefixSize:]
	switch size := binary.BigEndian.Uint32(body[1:prefixSize]); {
	case body[0]&^flagCompressed != 0:
		return nil, false, unreadable("The message has a flag that no request has.", nil)
	case int64(size) != int64(len(message)):
		return nil, false, unreadable("The body is not one message of the length in its prefix.", nil)
	}
	return message, body[0] == flagCompressed, nil
}

// decompress returns the data that is compressed by gzip (RFC 1952). It stops reading beyond limit bytes, so that a
// small request costs no more than a large one.
func decompress(data []byte, limit int) ([]byte, *oauth.Error) {
	reader, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, unreadable("The message is not compressed by gzip.", err)
	}
	message, err := io.ReadAll(io.LimitReader(reader, int64(limit)+1))
	switch {
	case len(message) > limit:
		return nil, tooLarge(limit)
	case err != nil:
		return nil, unreadable("The message is not compressed by gzip.", err)
	}
	return message, nil
}

// tooLarge returns the refusal of a message of more than limit bytes.
func tooLarge(limit int) *oauth.Error {
	return unreadable(oauth.Text("The message has more than "+strconv.Itoa(limit)+" bytes."), nil)
}
