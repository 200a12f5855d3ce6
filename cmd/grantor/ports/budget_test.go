package ports_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
)

// TestMemoryProduct adds up what all defaults together allow, as docs/limits.md does, and compares it with the limit of the
// container that deploy/kubernetes has.
func TestMemoryProduct(t *testing.T) {
	number := func(path, pattern string) int {
		t.Helper()
		found := regexp.MustCompile(pattern).FindSubmatch(must.Get(os.ReadFile(path)))
		if found == nil {
			t.Fatalf("%s has no %s", path, pattern)
		}
		return must.Get(strconv.Atoi(string(found[1])))
	}
	const (
		perConnection = 85 << 10 // with TLS and a stream of revocations, as BENCHMARKS.md measured
		slowHash      = 19 << 20
		processors    = 2
		rest          = 64 << 20 // the program, its caches and tables, before anybody calls
	)
	connections := number("../../../docs/settings.md", "`max-connections` \\| (\\d+) ")
	sum := connections*perConnection + limit.MaxIntake + processors*slowHash + rest
	container := number("../../../deploy/kubernetes/deployment.yaml", `(?s)limits:\s+memory: (\d+)Mi`) << 20
	collected := number("../../../deploy/kubernetes/deployment.yaml", `(?s)GOMEMLIMIT\s+value: (\d+)MiB`) << 20
	if t.Logf("the defaults allow for %d MiB", sum>>20); sum > collected || collected > container*8/10 {
		t.Errorf("the defaults allow for %d MiB; the collector keeps to %d MiB of the container's %d MiB", sum>>20, collected>>20, container>>20)
	}
}

// TestHalfSentBodies opens 70 connections of HTTP/2 with 100 bodies of 64 KiB each, all but the last byte of which is sent.
func TestHalfSentBodies(t *testing.T) {
	t.Run("TLS", func(t *testing.T) {
		authority := servetest.NewAuthority(t)
		cert, key := authority.WriteLeaf(t, t.TempDir(), 2)
		r := servetest.Dev(t, "--tls-cert-file="+cert, "--tls-key-file="+key)
		config := &tls.Config{RootCAs: authority.Pool(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
		sendHalf(t, "https://"+r.HTTPAddr(), func() net.Conn { return must.Get(tls.Dial("tcp", r.HTTPAddr(), config)) })
	})
	t.Run("plaintext", func(t *testing.T) {
		r := servetest.Dev(t, "--http-h2c")
		sendHalf(t, r.URL(""), func() net.Conn { return must.Get(net.Dial("tcp", r.HTTPAddr())) })
	})
}

// sendHalf sends the bodies to the server at url and checks how much memory this process takes.
func sendHalf(t *testing.T, url string, dial func() net.Conn) {
	t.Helper()
	runtime.GC()
	before := heap()
	for range 70 {
		conn := dial()
		t.Cleanup(func() { _ = conn.Close() })
		client, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(conn)
		must.Succeed(t, err)
		for range 100 {
			body, half := net.Pipe()
			request := must.Get(http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/connect/token", body))
			request.ContentLength = 64 << 10
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			t.Cleanup(func() { _ = half.Close() })
			go func() { _, _ = half.Write(make([]byte, 64<<10-1)) }()
			go func() {
				if response, err := client.RoundTrip(request); err == nil {
					_, _ = io.Copy(io.Discard, response.Body)
					_ = response.Body.Close()
				}
			}()
		}
	}
	most := before
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		most = max(most, heap())
	}
	// The callers are in this process too, with a pipe, a goroutine and buffers for each of their 7,000 bodies.
	const callers = 7000 * 24 << 10
	if most > before+limit.MaxIntake+callers {
		t.Errorf("memory grew from %d to %d MiB", before>>20, most>>20)
	}
	t.Logf("memory %d MiB, attacked %d MiB", before>>20, most>>20)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
