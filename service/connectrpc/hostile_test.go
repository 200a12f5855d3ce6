package connectrpc_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/connectrpc"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// The media types of the requests of most cases.
const (
	asJSON, asProto       = "application/json", "application/proto"
	asWeb, asWebJSON      = "application/grpc-web+proto", "application/grpc-web+json"
	issueToken            = grantorv1.TokenService_IssueToken_FullMethodName
	introspectTokens      = grantorv1.TokenService_IntrospectTokens_FullMethodName
	maxMessage            = 64 << 10
	notOK, ok, wrongMedia = "invalid_request", "", "415"
)

// encoded returns a valid token request for a media type.
func encoded(mediaType string) string {
	var data []byte
	if strings.HasSuffix(mediaType, "json") {
		data = must.Get(protojson.Marshal(withSecret()))
	} else {
		data = must.Get(proto.Marshal(withSecret()))
	}
	if strings.Contains(mediaType, "grpc") {
		return envelope(0, string(data))
	}
	return string(data)
}

// envelope returns a message with its prefix.
func envelope(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

// compress returns data compressed by gzip.
func compress(data string) string {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	must.Get(io.WriteString(w, data))
	_ = w.Close()
	return compressed.String()
}

// raw is a request, written as it is.
type raw struct {
	method, target string
	// headers are complete lines.
	headers []string
	body    string
	// length replaces the length of the body in its header, if it is not zero.
	length int
}

// send sends a request over a connection of its own, and returns the answer.
func (r raw) send(t *testing.T, issuer *tokentest.Issuer) (*http.Response, string) {
	t.Helper()
	conn := must.Get(net.Dial("tcp", must.Get(url.Parse(issuer.URL)).Host))
	defer func() { _ = conn.Close() }()
	must.Succeed(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	if r.method == "" {
		r.method = http.MethodPost
	}
	if r.target == "" {
		r.target = issueToken
	}
	if r.length == 0 {
		r.length = len(r.body)
	}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: issuer.test\r\nContent-Length: %d\r\n", r.method, r.target, r.length)
	for _, line := range r.headers {
		head += line + "\r\n"
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, head+"\r\n"+r.body) // a server that refuses early does not read all of it
		if r.length > len(r.body) {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	defer func() { <-sent }()
	response := must.Get(http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.method}))
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return response, string(body)
}

// outcome returns the reason of the refusal that an answer is, or "" for an answer of success.
func outcome(t *testing.T, response *http.Response, body string) string {
	t.Helper()
	if response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got the headers %v", response.Header)
	}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/grpc") {
		if response.StatusCode != http.StatusOK {
			t.Errorf("got the status %s", response.Status)
		}
		details := response.Header.Get("Grpc-Status-Details-Bin")
		if details == "" {
			return ok
		}
		return reasonOf(must.Get(base64.RawStdEncoding.DecodeString(details)))
	}
	if response.StatusCode == http.StatusOK {
		return ok
	}
	if response.StatusCode == http.StatusUnsupportedMediaType {
		if response.Header.Get("Accept-Post") != connectrpc.MediaTypes || response.Header.Get("Accept-Encoding") != "" || !strings.Contains(body, "Content-Type must be") {
			t.Errorf("got %v %s", response.Header, body)
		}
		return wrongMedia
	}
	var refusal struct {
		Details []struct {
			Value string `json:"value"`
		} `json:"details"`
	}
	must.Succeed(t, json.Unmarshal([]byte(body), &refusal))
	if len(refusal.Details) == 0 {
		t.Fatalf("got %s without details", body)
	}
	return reasonOf(must.Get(base64.RawStdEncoding.DecodeString(refusal.Details[0].Value)))
}

// reasonOf returns the reason in an encoded status or ErrorInfo. It is the code that is found in it.
func reasonOf(data []byte) string {
	for _, reason := range []string{"invalid_request", "invalid_client", "invalid_scope", "temporarily_unavailable", "server_error"} {
		if bytes.Contains(data, []byte(reason)) {
			return reason
		}
	}
	return string(data)
}

// TestHostileRequests sends requests that no client of the protocols sends, and some that are unusual and right.
func TestHostileRequests(t *testing.T) {
	issuer := newIssuer(t)
	header := func(lines ...string) []string { return lines }
	media := func(name string, more ...string) []string { return append([]string{"Content-Type: " + name}, more...) }
	bomb := compress(strings.Repeat("\x00", 60<<20)) // 60 KiB
	if len(bomb) > maxMessage {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	long := func(n int) string { // a message of n bytes, of which all but a few are a field that is unknown
		return encoded(asJSON)[:len(encoded(asJSON))-1] + `,"x":"` + strings.Repeat("x", n-len(encoded(asJSON))-len(`,"x":""`)) + `"}`
	}
	for name, c := range map[string]struct {
		raw
		want string
	}{
		"Connect JSON":     {raw{headers: media(asJSON), body: encoded(asJSON)}, ok},
		"Connect binary":   {raw{headers: media(asProto), body: encoded(asProto)}, ok},
		"gRPC-Web":         {raw{headers: media(asWeb), body: encoded(asWeb)}, ok},
		"gRPC-Web, bare":   {raw{headers: media("application/grpc-web"), body: encoded(asWeb)}, ok},
		"gRPC-Web JSON":    {raw{headers: media(asWebJSON), body: encoded(asWebJSON)}, ok},
		"names of protos":  {raw{headers: media(asJSON), body: `{"grant_type":"client_credentials","client_id":"svc","client_secret":"` + secret + `"}`}, ok},
		"an unknown field": {raw{headers: media(asJSON), body: long(1000)}, ok},

		"a charset":                  {raw{headers: media(asJSON + "; charset=utf-8"), body: encoded(asJSON)}, ok},
		"other letter case":          {raw{headers: media("Application/JSON;\tCharset=\"UTF-8\""), body: encoded(asJSON)}, ok},
		"another charset":            {raw{headers: media(asJSON + "; charset=utf-16"), body: encoded(asJSON)}, wrongMedia},
		"two charsets":               {raw{headers: media(asJSON + "; charset=utf-8; charset=utf-16"), body: encoded(asJSON)}, wrongMedia},
		"no media type":              {raw{body: encoded(asJSON)}, wrongMedia},
		"an empty media type":        {raw{headers: media(""), body: encoded(asJSON)}, wrongMedia},
		"a form":                     {raw{headers: media("application/x-www-form-urlencoded"), body: "grant_type=client_credentials"}, wrongMedia},
		"two media types":            {raw{headers: header("Content-Type: "+asJSON, "Content-Type: "+asProto), body: encoded(asJSON)}, wrongMedia},
		"two in one":                 {raw{headers: media(asJSON + ", " + asProto), body: encoded(asJSON)}, wrongMedia},
		"any":                        {raw{headers: media("*/*"), body: encoded(asJSON)}, wrongMedia},
		"text":                       {raw{headers: media("text/plain"), body: encoded(asJSON)}, wrongMedia},
		"letters glued on":           {raw{headers: media(asJSON + "x"), body: encoded(asJSON)}, wrongMedia},
		"a long s":                   {raw{headers: media("application/j\u017fon"), body: encoded(asJSON)}, wrongMedia},
		"a no-break space":           {raw{headers: media(asJSON + "\u00a0"), body: encoded(asJSON)}, wrongMedia},
		"a stream of Connect":        {raw{headers: media("application/connect+json"), body: envelope(0, encoded(asJSON))}, wrongMedia},
		"gRPC-Web in base64":         {raw{headers: media("application/grpc-web-text"), body: base64.StdEncoding.EncodeToString([]byte(encoded(asWeb)))}, wrongMedia},
		"gRPC-Web in bad base64":     {raw{headers: media("application/grpc-web-text+proto"), body: "%%%"}, wrongMedia},
		"gRPC over HTTP/1.1":         {raw{headers: media("application/grpc"), body: encoded(asWeb)}, wrongMedia},
		"another codec of gRPC-Web":  {raw{headers: media("application/grpc-web+thrift"), body: encoded(asWeb)}, wrongMedia},
		"JSON as binary":             {raw{headers: media(asProto), body: encoded(asJSON)}, notOK},
		"binary as JSON":             {raw{headers: media(asJSON), body: encoded(asProto)}, notOK},
		"Connect as gRPC-Web":        {raw{headers: media(asWeb), body: encoded(asProto)}, notOK},
		"gRPC-Web as Connect":        {raw{headers: media(asProto), body: encoded(asWeb)}, notOK},
		"base64 as gRPC-Web":         {raw{headers: media(asWeb), body: base64.StdEncoding.EncodeToString([]byte(encoded(asWeb)))}, notOK},
		"no JSON":                    {raw{headers: media(asJSON)}, notOK},
		"no message, binary":         {raw{headers: media(asProto)}, notOK}, // an empty message: no grant_type
		"an array":                   {raw{headers: media(asJSON), body: "[" + encoded(asJSON) + "]"}, notOK},
		"two values":                 {raw{headers: media(asJSON), body: encoded(asJSON) + encoded(asJSON)}, notOK},
		"a member twice":             {raw{headers: media(asJSON), body: `{"clientId":"svc","client_id":"svc"}`}, notOK},
		"not UTF-8":                  {raw{headers: media(asJSON), body: "{\"scope\":\"\xff\"}"}, notOK},
		"not UTF-8, binary":          {raw{headers: media(asProto), body: "\x0a\x01\xff"}, notOK},
		"a truncated field":          {raw{headers: media(asProto), body: encoded(asProto)[:30]}, notOK},
		"a group that never ends":    {raw{headers: media(asProto), body: strings.Repeat("\x7b", 50_000)}, notOK},
		"JSON that is deep":          {raw{headers: media(asJSON), body: `{"x":` + strings.Repeat("[", 50_000)}, notOK},
		"another type":               {raw{headers: media(asJSON), body: `{"client_secret":5}`}, notOK},
		"Connect of another version": {raw{headers: media(asJSON, "Connect-Protocol-Version: 2"), body: encoded(asJSON)}, notOK},
		"Connect of two versions":    {raw{headers: media(asJSON, "Connect-Protocol-Version: 1", "Connect-Protocol-Version: 1"), body: encoded(asJSON)}, notOK},
		"its version":                {raw{headers: media(asJSON, "Connect-Protocol-Version: 1"), body: encoded(asJSON)}, ok},

		"no prefix":                     {raw{headers: media(asWeb)}, notOK},
		"half a prefix":                 {raw{headers: media(asWeb), body: "\x00\x00\x00"}, notOK},
		"a prefix alone":                {raw{headers: media(asWeb), body: envelope(0, "")}, notOK},
		"a length beyond the body":      {raw{headers: media(asWeb), body: "\x00\xff\xff\xff\xff" + encoded(asProto)}, notOK},
		"one byte more than its length": {raw{headers: media(asWeb), body: encoded(asWeb) + "\x00"}, notOK},
		"two messages":                  {raw{headers: media(asWeb), body: encoded(asWeb) + encoded(asWeb)}, notOK},
		"trailers after the message":    {raw{headers: media(asWeb), body: encoded(asWeb) + envelope(0x80, "grpc-status: 0\r\n")}, notOK},
		"trailers alone":                {raw{headers: media(asWeb), body: envelope(0x80, "grpc-status: 0\r\n")}, notOK},
		"trailers as headers":           {raw{headers: media(asWeb, "Grpc-Status: 0", "Grpc-Message: fine", "Trailer-Authorization: "+basic("svc", secret)), body: envelope(0, "\x0a\x12client_credentials")}, "invalid_client"},
		"an unknown flag":               {raw{headers: media(asWeb), body: envelope(2, encoded(asProto))}, notOK},
		"flagged, without a coding":     {raw{headers: media(asWeb), body: envelope(1, compress(encoded(asProto)))}, notOK},
		"flagged, with identity":        {raw{headers: media(asWeb, "Grpc-Encoding: identity"), body: envelope(1, compress(encoded(asProto)))}, notOK},
		"flagged, by gzip":              {raw{headers: media(asWeb, "Grpc-Encoding: gzip"), body: envelope(1, compress(encoded(asProto)))}, ok},
		"gzip, not flagged":             {raw{headers: media(asWeb, "Grpc-Encoding: gzip"), body: encoded(asWeb)}, ok},
		"flagged, and not compressed":   {raw{headers: media(asWeb, "Grpc-Encoding: gzip"), body: envelope(1, encoded(asProto))}, notOK},

		"gzip":                       {raw{headers: media(asJSON, "Content-Encoding: gzip"), body: compress(encoded(asJSON))}, ok},
		"gzip, not compressed":       {raw{headers: media(asJSON, "Content-Encoding: gzip"), body: encoded(asJSON)}, notOK},
		"gzip, truncated":            {raw{headers: media(asJSON, "Content-Encoding: gzip"), body: compress(encoded(asJSON))[:60]}, notOK},
		"gzip, with more behind":     {raw{headers: media(asJSON, "Content-Encoding: gzip"), body: compress(encoded(asJSON)) + "x"}, notOK},
		"gzip, in two":               {raw{headers: media(asJSON, "Content-Encoding: gzip"), body: compress(encoded(asJSON)[:9]) + compress(encoded(asJSON)[9:])}, ok},
		"identity":                   {raw{headers: media(asJSON, "Content-Encoding: identity"), body: encoded(asJSON)}, ok},
		"gzip twice":                 {raw{headers: media(asJSON, "Content-Encoding: gzip, gzip"), body: compress(compress(encoded(asJSON)))}, notOK},
		"two codings":                {raw{headers: media(asJSON, "Content-Encoding: gzip", "Content-Encoding: gzip"), body: compress(encoded(asJSON))}, notOK},
		"another coding":             {raw{headers: media(asJSON, "Content-Encoding: br"), body: encoded(asJSON)}, notOK},
		"another coding of gRPC-Web": {raw{headers: media(asWeb, "Grpc-Encoding: deflate"), body: encoded(asWeb)}, notOK},
		"the coding of the other":    {raw{headers: media(asWeb, "Content-Encoding: gzip"), body: compress(encoded(asWeb))}, notOK},
		"the coding of gRPC":         {raw{headers: media(asJSON, "Grpc-Encoding: gzip"), body: encoded(asJSON)}, notOK},
		"a bomb":                     {raw{headers: media(asJSON, "Content-Encoding: gzip"), body: bomb}, notOK},
		"a bomb by gRPC-Web":         {raw{headers: media(asWeb, "Grpc-Encoding: gzip"), body: envelope(1, bomb)}, notOK},

		"64 KiB":                     {raw{headers: media(asJSON), body: long(maxMessage)}, ok},
		"64 KiB and a byte":          {raw{headers: media(asJSON), body: long(maxMessage + 1)}, notOK},
		"64 KiB by gRPC-Web":         {raw{headers: media(asWebJSON), body: envelope(0, long(maxMessage))}, ok},
		"a byte more by gRPC-Web":    {raw{headers: media(asWebJSON), body: envelope(0, long(maxMessage+1))}, notOK},
		"64 KiB by gzip":             {raw{headers: media(asJSON, "Content-Encoding: gzip"), body: compress(long(maxMessage))}, ok},
		"a byte more by gzip":        {raw{headers: media(asJSON, "Content-Encoding: gzip"), body: compress(long(maxMessage + 1))}, notOK},
		"a batch of 1 MiB":           {raw{target: introspectTokens, headers: media(asJSON), body: `{"tokens":["` + strings.Repeat("x", 1<<20-15) + `"]}`}, "invalid_client"},
		"a batch beyond":             {raw{target: introspectTokens, headers: media(asJSON), body: `{"tokens":["` + strings.Repeat("x", 1<<20-14) + `"]}`}, notOK},
		"a length that is a lie":     {raw{headers: media(asJSON), body: encoded(asJSON), length: 1 << 40}, notOK},
		"a body that does not come":  {raw{headers: media(asJSON), body: encoded(asJSON), length: len(encoded(asJSON)) + 1}, notOK},
		"a form in the query":        {raw{target: issueToken + "?client_id=svc&client_secret=" + secret, headers: media(asJSON), body: `{"grantType":"client_credentials"}`}, "invalid_client"},
		"Basic in the query":         {raw{target: issueToken + "?authorization=" + url.QueryEscape(basic("svc", secret)), headers: media(asJSON), body: `{"grantType":"client_credentials"}`}, "invalid_client"},
		"a message in the query":     {raw{target: issueToken + "?encoding=json&connect=v1&message=" + url.QueryEscape(encoded(asJSON)), headers: media(asJSON), body: "{}"}, notOK},
		"Basic in metadata":          {raw{headers: media(asJSON, "Grpc-Metadata-Authorization: "+basic("svc", secret)), body: `{"grantType":"client_credentials"}`}, "invalid_client"},
		"a timeout":                  {raw{headers: media(asJSON, "Connect-Timeout-Ms: 9999999999"), body: encoded(asJSON)}, ok},
		"a timeout of eleven digits": {raw{headers: media(asJSON, "Connect-Timeout-Ms: 10000000000"), body: encoded(asJSON)}, notOK},
		"a timeout below zero":       {raw{headers: media(asJSON, "Connect-Timeout-Ms: -1"), body: encoded(asJSON)}, notOK},
		"a timeout that is none":     {raw{headers: media(asJSON, "Connect-Timeout-Ms: soon-"+secret), body: encoded(asJSON)}, notOK},
		"an empty timeout":           {raw{headers: media(asJSON, "Connect-Timeout-Ms:"), body: encoded(asJSON)}, notOK},
		"two timeouts":               {raw{headers: media(asJSON, "Connect-Timeout-Ms: 1000", "Connect-Timeout-Ms: 1000"), body: encoded(asJSON)}, notOK},
		"no time":                    {raw{headers: media(asJSON, "Connect-Timeout-Ms: 0"), body: encoded(asJSON)}, "temporarily_unavailable"},
		"a timeout of gRPC-Web":      {raw{headers: media(asWeb, "Grpc-Timeout: 99999999H"), body: encoded(asWeb)}, ok},
		"one of nine digits":         {raw{headers: media(asWeb, "Grpc-Timeout: 100000000S"), body: encoded(asWeb)}, notOK},
		"one without a unit":         {raw{headers: media(asWeb, "Grpc-Timeout: 100"), body: encoded(asWeb)}, notOK},
		"an empty one":               {raw{headers: media(asWeb, "Grpc-Timeout:"), body: encoded(asWeb)}, notOK},
		"no time by gRPC-Web":        {raw{headers: media(asWeb, "Grpc-Timeout: 0n"), body: encoded(asWeb)}, "temporarily_unavailable"},
		"the other's timeout":        {raw{headers: media(asJSON, "Grpc-Timeout: x"), body: encoded(asJSON)}, ok},
		"1,000 headers":              {raw{headers: append(media(asJSON), strings.Split(strings.TrimSpace(strings.Repeat("X-A: b\n", 1000)), "\n")...), body: encoded(asJSON)}, ok},
		"1,000 credentials":          {raw{headers: append(media(asJSON), strings.Split(strings.TrimSpace(strings.Repeat("Authorization: Basic x\n", 1000)), "\n")...), body: encoded(asJSON)}, notOK},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			response, body := c.send(t, issuer)
			if got := outcome(t, response, body); got != c.want {
				t.Errorf("got %q, want %q: %s %v %.300q", got, c.want, response.Status, response.Header, body)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the answer took %s", took)
			}
			for name, values := range response.Header {
				if c.want != ok && strings.Contains(strings.Join(values, " "), secret) {
					t.Errorf("the header %s has the secret", name)
				}
			}
			if c.want != ok && strings.Contains(body, secret) {
				t.Errorf("the answer has the secret: %s", body)
			}
		})
	}
}

// TestOtherMethodsAndPaths expects no GET of Connect, and no method beside those of the service.
func TestOtherMethodsAndPaths(t *testing.T) {
	issuer := newIssuer(t)
	query := "?connect=v1&encoding=json&message=" + url.QueryEscape("{}")
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
		for _, target := range []string{issueToken, grantorv1.TokenService_GetKeySet_FullMethodName} {
			response, body := raw{method: method, target: target + query, headers: []string{"Content-Type: " + asJSON}}.send(t, issuer)
			if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "POST" {
				t.Errorf("%s %s: got %s %v %s", method, target, response.Status, response.Header, body)
			}
		}
	}
	for _, target := range []string{
		"/grantor.v1.TokenService/Nothing", "/grantor.v1.TokenService/issueToken", issueToken + "/", "/x" + issueToken, "/" + issueToken,
		"/grantor.v1.RevocationService/WatchRevocations", "/grantor.v1.ClientService/ListClients", "/grantor.v1.KeyService/RotateKeys",
	} {
		for _, mediaType := range []string{asJSON, asWeb} {
			response, body := raw{target: target, headers: []string{"Content-Type: " + mediaType}, body: encoded(mediaType)}.send(t, issuer)
			if response.StatusCode != http.StatusNotFound || !strings.Contains(body, "There is nothing at this path.") {
				t.Errorf("%s: got %s %s, want 404", target, response.Status, body)
			}
		}
	}
}

// TestDecodeErrors expects the name of a field of the wrong type, and nothing else of the request.
func TestDecodeErrors(t *testing.T) {
	issuer := newIssuer(t)
	for body, want := range map[string]string{
		`{"client_secret":{"a":"` + secret + `"}}`: "The message could not be read: the field clientSecret is not of its type.",
		`{"clientSecret":["` + secret + `"]}`:      "The message could not be read: the field clientSecret is not of its type.",
		`{"` + secret + `":"x",}`:                  "The message could not be read.",
		`"` + secret + `"`:                         "The message could not be read.",
	} {
		_, answer := raw{headers: []string{"Content-Type: " + asJSON}, body: body}.send(t, issuer)
		var refusal struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}
		must.Succeed(t, json.Unmarshal([]byte(answer), &refusal))
		if refusal.Code != "invalid_argument" || refusal.Message != want {
			t.Errorf("%s: got %+v", body, refusal)
		}
	}
}

// TestPlainAnswer expects the JSON of Connect to be as documented for programs that read it without a library.
func TestPlainAnswer(t *testing.T) {
	issuer := newIssuer(t)
	response, body := raw{headers: []string{"Content-Type: " + asJSON, "Accept-Encoding: gzip"}, body: encoded(asJSON)}.send(t, issuer)
	var fields map[string]any
	must.Succeed(t, json.Unmarshal([]byte(body), &fields))
	if names := slices.Sorted(maps.Keys(fields)); !slices.Equal(names, []string{"accessToken", "expiresIn", "scope", "tokenType"}) {
		t.Errorf("got the members %q", names)
	}
	if response.Header.Get("Content-Type") != asJSON || response.Header.Get("Content-Encoding") != "" || !strings.HasPrefix(body, `{"accessToken":"`) {
		t.Errorf("got %v %s", response.Header, body)
	}
	response, body = raw{headers: []string{"Content-Type: " + asJSON}, body: `{"grant_type":"client_credentials"}`}.send(t, issuer)
	const want = `{"code":"unauthenticated","message":"Client authentication failed.","details":[{"type":"google.rpc.ErrorInfo","value":`
	const debug = `"debug":{"reason":"invalid_client","domain":"grantor"}`
	if response.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(body, want) || !strings.Contains(body, debug) {
		t.Errorf("got %s %s", response.Status, body)
	}
}
