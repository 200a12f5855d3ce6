//go:build conformance

package conformance_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/grantorhq/grantor/service/must"
)

var record = flag.Bool("record", false, "write what the proxies send to interceptors/guard/testdata, instead of comparing it")

// recording is what a proxy made of the hostile requests, with an authorization service that allows all of them. The fast tests
// of interceptors/guard read it from interceptors/guard/testdata; the README there has the format.
type recording struct {
	Proxy     string     `json:"proxy"`
	Version   string     `json:"version"`
	Exchanges []exchange `json:"exchanges"`
}

// exchange is a hostile request and what became of it. Bytes of HTTP are the code points of a string (Latin-1).
type exchange struct {
	Name   string `json:"name"`
	Sent   string `json:"sent"`
	Status int    `json:"status"`
	// Asked lists the authorization requests over HTTP, Checks those over gRPC, Upstream the requests that the service received.
	Asked    []string          `json:"asked,omitempty"`
	Checks   []json.RawMessage `json:"checks,omitempty"`
	Upstream []string          `json:"upstream,omitempty"`
}

// maxSent is the number of bytes of a sent request that is recorded.
const maxSent = 1000

// TestConformanceProxyRecordings compares what each proxy sends to an authorization service with the recordings that the fast
// tests of the guard read:
//
//	GOWORK=off go test -C tools/conformance -tags conformance -run ConformanceProxyRecordings . -record
//
// writes them. Other versions of a proxy may send something else: only those of the recording are compared.
func TestConformanceProxyRecordings(t *testing.T) {
	forEachProxy(t, func(t *testing.T, p proxy) {
		recorder := newRecorder(t)
		f := p.start(t, behind{guardGRPC: recorder.checks, guardHTTP: recorder.authorize.address, service: recorder.service.address})
		got := recording{Proxy: p.name, Version: version(t, p)}
		for _, h := range hostileRequests() {
			got.Exchanges = append(got.Exchanges, recorder.exchange(t, f, h))
		}
		file := "../../interceptors/guard/testdata/" + p.name + ".json"
		if *record {
			must.Succeed(t, os.WriteFile(file, indented(t, got), 0o600))
			return
		}
		var want recording
		must.Succeed(t, json.Unmarshal(must.Get(os.ReadFile(file)), &want))
		if got.Version != want.Version {
			t.Skipf("this is %s, the recording is of %s", got.Version, want.Version)
		}
		if diff := cmp.Diff(string(indented(t, want)), string(indented(t, got))); diff != "" {
			t.Errorf("the recording differs (-recorded +sent now):\n%s", diff)
		}
	})
}

func indented(t *testing.T, v any) []byte {
	t.Helper()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	must.Succeed(t, encoder.Encode(v))
	return out.Bytes()
}

var number = regexp.MustCompile(`\d+\.\d+\.\d+`)

// version returns the version of a proxy, such as 1.40.0.
func version(t *testing.T, p proxy) string {
	t.Helper()
	output := must.Get(exec.CommandContext(t.Context(), p.find(t), p.version).CombinedOutput())
	return number.FindString(string(output))
}

// recorder has an authorization service over HTTP and one over gRPC, which allow everything, and a service.
type recorder struct {
	authv3.UnimplementedAuthorizationServer

	authorize, service *wire
	checks             string

	mu    sync.Mutex
	calls []*authv3.CheckRequest
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	const allowed = "HTTP/1.1 200 OK\r\nX-Grantor-Client-Id: recorder\r\nX-Grantor-Scopes: orders.read\r\nContent-Length: 0\r\n\r\n"
	r := &recorder{authorize: newWire(t, allowed), service: newWire(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, r)
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	r.checks = listener.Addr().String()
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return r
}

// Check implements [authv3.AuthorizationServer].
func (r *recorder) Check(_ context.Context, request *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, request)
	set := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption{set("x-grantor-client-id", "recorder"), set("x-grantor-scopes", "orders.read")},
	}}}, nil
}

// exchange sends a request to a proxy and returns what was received meanwhile.
func (r *recorder) exchange(t *testing.T, f *front, h hostile) exchange {
	t.Helper()
	e := exchange{Name: h.name, Sent: latin1(h.raw)}
	if len(h.raw) > maxSent {
		e.Sent = latin1(h.raw[:maxSent]) + "…"
	}
	e.Status = f.send(t, h.raw, time.Second).status
	e.Asked, e.Upstream = r.authorize.take(), r.service.take()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, call := range r.calls {
		e.Checks = append(e.Checks, stable(t, call))
	}
	r.calls = nil
	return e
}

// stable returns a CheckRequest in JSON without what differs from run to run.
func stable(t *testing.T, call *authv3.CheckRequest) json.RawMessage {
	t.Helper()
	attributes := call.GetAttributes()
	attributes.GetRequest().Time = nil
	attributes.GetRequest().GetHttp().Id = "1"
	for _, header := range attributes.GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		if key := header.GetKey(); key == "x-request-id" || key == "x-forwarded-for" {
			header.RawValue = []byte("1")
		}
	}
	for _, peer := range []*authv3.AttributeContext_Peer{attributes.GetSource(), attributes.GetDestination()} {
		peer.GetAddress().GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: 1}
	}
	var out bytes.Buffer
	must.Succeed(t, json.Compact(&out, must.Get(protojson.Marshal(call))))
	return out.Bytes()
}

// latin1 returns the string whose code points are the bytes of s.
func latin1(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// response is what a proxy responded to a request. status is 0 if it closed the connection, or did not respond in time.
type response struct {
	status int
	header http.Header
	body   string
}

// send sends bytes on a new connection and waits for a response.
func (f *front) send(t *testing.T, raw string, timeout time.Duration) response {
	t.Helper()
	conn := f.dial(t, "http/1.1")
	defer func() { _ = conn.Close() }()
	must.Succeed(t, conn.SetDeadline(time.Now().Add(timeout)))
	// A proxy may respond and close the connection before it has read everything.
	_, _ = io.WriteString(conn, raw)
	method, _, _ := strings.Cut(raw, " ")
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return response{}
	}
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	_ = answer.Body.Close()
	return response{answer.StatusCode, answer.Header, string(body)}
}

// wire is a server of HTTP/1.1 that records the heads of requests as they came and has one response for all.
type wire struct {
	address string

	mu    sync.Mutex
	heads []string
}

func newWire(t *testing.T, answer string) *wire {
	t.Helper()
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))
	w := &wire{address: listener.Addr().String()}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go w.serve(conn, answer)
		}
	}()
	return w
}

// serve reads the heads of requests. A body is not read: the connection is closed after it.
func (w *wire) serve(conn net.Conn, answer string) {
	defer func() { _ = conn.Close() }()
	for in := bufio.NewReaderSize(conn, 1<<20); ; {
		var head strings.Builder
		for !strings.HasSuffix(head.String(), "\r\n\r\n") {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
		}
		w.mu.Lock()
		w.heads = append(w.heads, head.String())
		w.mu.Unlock()
		if _, err := io.WriteString(conn, answer); err != nil || hasBody.MatchString(head.String()) {
			return
		}
	}
}

var hasBody = regexp.MustCompile(`(?i)\r\n(content-length: *[1-9]|transfer-encoding:)`)

// variable matches what differs from run to run: ports, the identifier of a request, and names of the machine.
var variable = regexp.MustCompile(`(?i)((?:127\.0\.0\.1|localhost):)\d+|((?:x-forwarded-server|x-forwarded-for|x-request-id): )[^\r]*`)

// take returns the heads that were received since the last call, in Latin-1. Headers are in alphabetical order, because HAProxy's
// script sends them in any.
func (w *wire) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var heads []string
	for _, head := range w.heads {
		lines := strings.SplitAfter(strings.TrimSuffix(variable.ReplaceAllString(head, "${1}${2}1"), "\r\n"), "\r\n")
		slices.SortStableFunc(lines[1:], func(a, b string) int {
			a, _, _ = strings.Cut(a, ":")
			b, _, _ = strings.Cut(b, ":")
			return strings.Compare(a, b)
		})
		heads = append(heads, latin1(strings.Join(lines, "")+"\r\n"))
	}
	w.heads = nil
	return heads
}
