//go:build conformance

package conformance_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/grantorhq/grantor/service/must"
)

// hostileHTTP2 lists headers of requests over HTTP/2, each "name: value", that say different things to different readers.
var hostileHTTP2 = map[string][]string{
	"an order":                       {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /orders/1"},
	"another host":                   {":method: GET", ":scheme: https", ":authority: other.example.com", ":path: /admin/users", "host: orders.example.com"},
	"the other way round":            {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /admin/users", "host: other.example.com"},
	"a host without an authority":    {":method: GET", ":scheme: https", ":path: /admin/users", "host: orders.example.com"},
	"no host":                        {":method: GET", ":scheme: https", ":path: /admin/users"},
	"two authorities":                {":method: GET", ":scheme: https", ":authority: other.example.com", ":authority: orders.example.com", ":path: /admin/users"},
	"two paths":                      {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /public/1", ":path: /admin/users"},
	"an absolute path":               {":method: GET", ":scheme: https", ":authority: other.example.com", ":path: https://orders.example.com/admin/users"},
	"a path with a space":            {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /public/1 HTTP/1.1\r\nx: y"},
	"a line feed in a path":          {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /public/1\n/../admin"},
	"a line feed in a method":        {":method: GET /admin/users HTTP/1.1\r\nx: y", ":scheme: https", ":authority: orders.example.com", ":path: /public/1"},
	"a line feed in a value":         {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /public/1", "x: y\r\nx-grantor-client-id: admin"},
	"a name in upper case":           {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /public/1", "X-Grantor-Client-Id: admin"},
	"an imitation":                   {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /orders/1", "x-grantor-client-id: admin", "x-grantor-client-id: root"},
	"a dot segment":                  {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /public/../admin/users"},
	"an escaped slash":               {":method: GET", ":scheme: https", ":authority: orders.example.com", ":path: /public/..%2fadmin/users"},
	"another scheme":                 {":method: GET", ":scheme: http", ":authority: orders.example.com", ":path: /admin/users"},
	"a pseudo-header after a header": {":method: GET", ":scheme: https", ":authority: orders.example.com", "x: y", ":path: /admin/users"},
}

// expectNoPassageHTTP2 sends hostile requests over HTTP/2, which the proxy passes on over HTTP/1.1, if at all.
func (g *guarded) expectNoPassageHTTP2(t *testing.T) {
	token := g.token(t, "orders.read")
	for name, headers := range hostileHTTP2 {
		t.Run(name, func(t *testing.T) {
			g.service.take()
			status := g.sendHTTP2(t, append(headers, "authorization: Bearer "+token))
			arrived := g.service.take()
			t.Logf("%s, arrived %d", status, len(arrived))
			if name == "an order" && status != "200" || strings.HasPrefix(status, "5") {
				t.Errorf("got %s", status)
			}
			for _, head := range arrived {
				expectHarmless(t, head)
			}
		})
	}
}

// sendHTTP2 sends a request with headers as they are and returns the status of the response, which is empty if the stream or the
// connection is closed instead.
func (f *front) sendHTTP2(t *testing.T, headers []string) string {
	t.Helper()
	conn := f.dial(t, "h2")
	defer func() { _ = conn.Close() }()
	must.Succeed(t, conn.SetDeadline(time.Now().Add(2*time.Second)))
	_, err := io.WriteString(conn, http2.ClientPreface)
	must.Succeed(t, err)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must.Succeed(t, framer.WriteSettings())
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, header := range headers {
		at := strings.Index(header[1:], ":") + 1
		must.Succeed(t, encoder.WriteField(hpack.HeaderField{Name: header[:at], Value: strings.TrimPrefix(header[at+1:], " ")}))
	}
	must.Succeed(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}))
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return ""
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return ""
		}
	}
}
