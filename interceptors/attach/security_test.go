package attach_test

import (
	"context"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/interceptors/attach"
)

// remote connects to address whatever the target, as if the server were on another machine.
func remote(address string) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	})
}

func TestPlaintextToAnotherMachineIsRefused(t *testing.T) {
	server := &orders{}
	source := numberedSource()
	address := server.serve(t)
	conn := dial(t, "passthrough:///orders.internal:443", attach.DialOptions(source, plaintext, remote(address))...)
	client := testgrpc.NewTestServiceClient(conn)
	_, unary := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
	_, stream := client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
	for _, err := range []error{unary, stream} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no transport security") ||
			!strings.Contains(err.Error(), "orders.internal") {
			t.Errorf("got %v, want a clear refusal", err)
		}
	}
	server.wantTokens(t, 0)
	if got := accessToken(t, source); got != "1" {
		t.Errorf("the token was dropped: got %q, want 1", got)
	}
	_, err := grpc.NewClient(address, plaintext, grpc.WithPerRPCCredentials(source.PerRPCCredentials()))
	if err == nil {
		t.Error("a plaintext connection took the credentials")
	}
}

func TestPlaintextToAnotherMachineByOption(t *testing.T) {
	server := &orders{}
	issuer := newTokenServer(t, nil)
	source := attach.ClientCredentials(issuer.URL, "background-service", "s3cret",
		attach.AllowInsecurePlaintextToRemoteHosts())
	conn := dial(t, "passthrough:///orders.internal:443", attach.DialOptions(source, plaintext, remote(server.serve(t)))...)
	if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
		t.Error(err)
	}
	server.wantTokens(t, 1, "token-1")
}

func TestTLS(t *testing.T) {
	// The certificate of a test server of net/http is for example.com and 127.0.0.1.
	borrowed := httptest.NewTLSServer(nil)
	defer borrowed.Close()
	roots := x509.NewCertPool()
	roots.AddCert(borrowed.Certificate())
	secure := credentials.NewClientTLSFromCert(roots, "")

	server := &orders{}
	address := server.serve(t, grpc.Creds(credentials.NewServerTLSFromCert(&borrowed.TLS.Certificates[0])))
	source := numberedSource()
	for name, options := range map[string][]grpc.DialOption{
		"interceptors": attach.DialOptions(source, grpc.WithTransportCredentials(secure), remote(address)),
		"credentials": {grpc.WithTransportCredentials(secure), remote(address),
			grpc.WithPerRPCCredentials(source.PerRPCCredentials())},
	} {
		conn := dial(t, "passthrough:///example.com:443", options...)
		if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	server.wantTokens(t, 2, "1", "1")

	// Without credentials in the options, a connection uses TLS with the system's root certificates, which do not
	// include this server's.
	conn := dial(t, "passthrough:///example.com:443", attach.DialOptions(source, remote(address))...)
	_, err := testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want a failed handshake", err)
	}
}

func TestCallThatHasAnIdentity(t *testing.T) {
	server := &orders{}
	client := server.client(t, numberedSource())
	marked := metadata.AppendToOutgoingContext(t.Context(), "Authorization", "Bearer another")
	_, inMetadata := client.UnaryCall(marked, &testgrpc.SimpleRequest{})
	_, inStream := client.StreamingOutputCall(marked, &testgrpc.StreamingOutputCallRequest{})
	_, inOption := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{},
		grpc.PerRPCCredentials(numberedSource().PerRPCCredentials()))
	for _, err := range []error{inMetadata, inStream, inOption} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "already has") {
			t.Errorf("got %v, want a refusal", err)
		}
	}
	server.wantTokens(t, 0)
}

func TestCallWithoutAToken(t *testing.T) {
	expired, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		err  error
		code codes.Code
	}{
		{"unreachable", t.Context(), errDown, codes.Unavailable},
		{"refused", t.Context(), attach.Refusal("invalid_client", "wrong", ""), codes.Unauthenticated},
		{"issuer in trouble", t.Context(), attach.Refusal("temporarily_unavailable", "later", ""), codes.Unavailable},
		{"caller gave up", expired, nil, codes.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := &orders{}
			client := server.client(t, attach.NewSource((&issuer{down: test.err}).fetch, 0))
			_, unary := client.UnaryCall(test.ctx, &testgrpc.SimpleRequest{})
			_, stream := client.StreamingOutputCall(test.ctx, &testgrpc.StreamingOutputCallRequest{})
			for _, err := range []error{unary, stream} {
				if status.Code(err) != test.code || !strings.Contains(err.Error(), "no access token") {
					t.Errorf("got %v, want code %v", err, test.code)
				}
			}
			server.wantTokens(t, 0)
		})
	}
}

func TestLoopback(t *testing.T) {
	for target, want := range map[string]bool{
		"localhost:1":                     true,
		"localhost":                       true,
		"127.0.0.1:1":                     true,
		"127.9.9.9:1":                     true,
		"[::1]:1":                         true,
		"dns:///localhost:1":              true,
		"dns:localhost:1":                 true,
		"dns:///[::1]:1":                  true,
		"passthrough:///127.0.0.1:1":      true,
		"unix:/run/orders.sock":           true,
		"unix:///run/orders.sock":         true,
		"unix-abstract:orders":            true,
		"orders.internal:443":             false,
		"localhost.example.com:1":         false,
		"127.0.0.1.example.com:1":         false,
		"10.0.0.1:1":                      false,
		"[2001:db8::1]:1":                 false,
		"dns:///orders.internal":          false,
		"dns://192.0.2.1/localhost:1":     false,
		"passthrough:///localhost.evil:1": false,
		"passthrough:///0.0.0.0:1":        false,
	} {
		if got := attach.Loopback(dial(t, target, plaintext)); got != want {
			t.Errorf("%s: got %v, want %v", target, got, want)
		}
	}
	if attach.Loopback(nil) {
		t.Error("no connection: got true, want false")
	}
}

func TestTokenRefused(t *testing.T) {
	for value, want := range map[string]bool{
		`Bearer error="invalid_token"`:                                      true,
		`bearer error=invalid_token`:                                        true,
		`Bearer realm="a, b", error="invalid_token", error_description="x"`: true,
		`Basic realm="x", Bearer error="invalid_token"`:                     true,
		`Negotiate, Bearer realm="x", error="invalid_token"`:                true,
		`Bearer`:                            false,
		``:                                  false,
		`Bearer error="insufficient_scope"`: false,
		`Bearer realm="x, Bearer error=invalid_token"`:                         false,
		`Bearer realm="\", error=\"invalid_token"`:                             false,
		`DPoP error="invalid_token"`:                                           false,
		`Bearer realm="x", DPoP error="invalid_token"`:                         false,
		`Bearer error_description="invalid_token"`:                             false,
		`Bearer realm="x", Basic realm="y", error="invalid_token"`:             false,
		`Bearer realm="x"` + strings.Repeat(",", 50) + `error="invalid_token"`: true,
		`Bearer error = "invalid_token"`:                                       true,
	} {
		if got := attach.TokenRefused([]string{"Basic", value}); got != want {
			t.Errorf("%s: got %v, want %v", value, got, want)
		}
	}
}

// TestProtocolWords checks that the words of the protocol have no letter case in ASCII, and that no other letters fold to
// them.
func TestProtocolWords(t *testing.T) {
	for kind, ok := range map[string]bool{"bearer": true, "BEARER": true, "Beare\u0280": false, "Bearer\u017f": false, "Ba\u017fic": false, "": false} {
		_, err := attach.ClientCredentials("", "a", "b", attach.TokenURL("https://auth.example.com/token"),
			attach.HTTPClient(answering(200, `{"access_token":"a","token_type":"`+kind+`"}`))).Token()
		if (err == nil) != ok {
			t.Errorf("token_type %q: got %v, want ok %v", kind, err, ok)
		}
	}
	for challenge, want := range map[string]bool{
		`BEARER ERROR="invalid_token"`: true, `bearer Error=invalid_token`: true,
		`Bearer error="INVALID_TOKEN"`: false, "Bearer error=\"invalid_to\u212aen\"": false, "\u212aearer error=\"invalid_token\"": false,
		"Bearer \u0455rror=invalid_token": false, "Bearer error\t=\tinvalid_token": true,
		"\u00a0Bearer error=invalid_token": false, "Bearer error\u2003=invalid_token": false, "Basic,\u0085Bearer error=invalid_token": false,
	} {
		if got := attach.TokenRefused([]string{challenge}); got != want {
			t.Errorf("%s: got %v, want %v", challenge, got, want)
		}
	}
}

func FuzzTokenRefused(f *testing.F) {
	f.Add(`Negotiate, Bearer realm="a\", b", error="invalid_token"`)
	f.Fuzz(func(t *testing.T, value string) {
		if attach.TokenRefused([]string{value}) && !strings.Contains(value, "invalid_token") {
			t.Errorf("%q: got true without invalid_token", value)
		}
		// The content of a quoted string is not a challenge.
		quoted := `Basic realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
		if attach.TokenRefused([]string{quoted}) {
			t.Errorf("%s: got true, want false", quoted)
		}
	})
}
