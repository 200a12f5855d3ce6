package serve_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
)

// keptConn is a connection to the REST port that carries several requests.
type keptConn struct {
	net.Conn
	answers *bufio.Reader
}

func keep(t *testing.T, r *servetest.Replica) *keptConn {
	t.Helper()
	conn, err := net.Dial("tcp", r.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &keptConn{conn, bufio.NewReader(conn)}
}

// ask requests the key set and reports whether the connection ends with the response.
func (k *keptConn) ask(t *testing.T) (last bool) {
	t.Helper()
	_, _ = io.WriteString(k, "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
	answer, err := http.ReadResponse(k.answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body := servetest.ReadBody(t, answer); answer.StatusCode != http.StatusOK || !strings.Contains(body, `"keys"`) {
		t.Fatalf("got %s %s", answer.Status, body)
	}
	return answer.Close
}

// TestLeave checks a server between the signal and its end: it reports on both ports that it is not to be used, still
// answers its clients, and sends them elsewhere.
func TestLeave(t *testing.T) {
	r := servetest.Dev(t)
	conn := servetest.Dial(t, r.GRPCAddr())
	watch, err := grantorv1.NewRevocationServiceClient(conn).WatchRevocations(t.Context(), &grantorv1.WatchRevocationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	before := keep(t, r)
	if before.ask(t) {
		t.Error("the connection ends while the server runs")
	}
	r.Leave()
	if code, body := servetest.Get(t, "http://"+r.OpsAddr()+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "stopping") {
		t.Errorf("readyz: got %d %s", code, body)
	}
	for _, service := range []string{"", "grantor.v1.TokenService"} {
		answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || answer.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("the health of %q: got %v, %v", service, answer, err)
		}
	}
	for name, connection := range map[string]*keptConn{"one of before": before, "a new one": keep(t, r)} {
		if !connection.ask(t) {
			t.Errorf("%s: the connection goes on", name)
		}
		if _, err := connection.answers.ReadByte(); err != io.EOF {
			t.Errorf("%s: got %v, want its end", name, err)
		}
	}
	if err := servetest.GetKeySet(t, conn); err != nil {
		t.Errorf("over gRPC: %v", err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Errorf("the stream ended early: %v", err)
	}
	r.Stop()
	for err = nil; err == nil; {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v, want UNAVAILABLE", err)
	}
}

// localOfCall returns the client's own address in a call.
func localOfCall(t *testing.T, conn *grpc.ClientConn) string {
	t.Helper()
	var p peer.Peer
	if _, err := grantorv1.NewTokenServiceClient(conn).GetKeySet(t.Context(), &grantorv1.GetKeySetRequest{}, grpc.Peer(&p)); err != nil {
		t.Fatal(err)
	}
	return p.LocalAddr.String()
}

// localOfRequest returns the client's own address in a request.
func localOfRequest(t *testing.T, client *http.Client, url string) (local string, answer *http.Response) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { local = info.Conn.LocalAddr().String() },
	})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer, err = client.Do(request); err != nil {
		t.Fatal(err)
	}
	servetest.ReadBody(t, answer)
	return local, answer
}

// TestConnectionAge expects connections to end by age, over HTTP/1.1, HTTP/2 and gRPC, and no call to fail because of
// it.
func TestConnectionAge(t *testing.T) {
	ours := servetest.NewAuthority(t)
	cert, key := ours.WriteLeaf(t, t.TempDir(), 2)
	r := servetest.Dev(t, "--connection-age=1s")
	aged := keep(t, r)
	must.Eventually(t, "ending the connection", func() bool { return aged.ask(t) })
	conn := servetest.Dial(t, r.GRPCAddr())
	before := localOfCall(t, conn)
	must.Eventually(t, "another connection", func() bool { return localOfCall(t, conn) != before })

	secure := servetest.Dev(t, "--connection-age=1s", "--tls-cert-file="+cert, "--tls-key-file="+key)
	client := &http.Client{Transport: servetest.Transport(t, &tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS12}, true)}
	used := make(map[string]bool)
	must.Eventually(t, "another connection over HTTP/2", func() bool {
		local, answer := localOfRequest(t, client, "https://"+secure.HTTPAddr()+"/.well-known/jwks.json")
		used[local] = true
		if answer.ProtoMajor != 2 || answer.StatusCode != http.StatusOK {
			t.Fatalf("got %s %s", answer.Proto, answer.Status)
		}
		return len(used) > 1
	})
}
