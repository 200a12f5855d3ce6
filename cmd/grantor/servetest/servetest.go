// Package servetest runs grantor serve in the process of a test. It is for tests alone.
package servetest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/grantorhq/grantor/cmd/grantor/serve"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
)

// Store returns a store on a Redis, which also reads the announcements of the replicas.
func Store(t *testing.T, redis *redistest.Server) *redisstore.Store {
	t.Helper()
	store, err := redisstore.New(redis.Client(), redisstore.DefaultPrefix, registry.MaxLifetime)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// Replica is a server that runs as grantor serve does, in the process of the test.
type Replica struct {
	*serve.Server
	// Out and Log have the output of the server.
	Out, Log must.Buffer
	// Stop stops the server as SIGTERM does. Ended is closed when it has stopped, with the error Err.
	Stop  context.CancelFunc
	Ended chan struct{}
	Err   error
}

// Dev starts a server in development mode with the arguments, on free ports. It stops when the test ends.
func Dev(t testing.TB, args ...string) *Replica {
	t.Helper()
	r, err := Try(t, append([]string{"--dev"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Try starts a server with the arguments on free ports, or returns its start-up error. The server stops when the test
// ends.
func Try(t testing.TB, args ...string) (*Replica, error) {
	t.Helper()
	r := &Replica{Ended: make(chan struct{})}
	parsed, _, err := Parse(append([]string{
		"--http-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--shutdown-delay=0s",
	}, args...)...)
	if err != nil {
		return nil, err
	}
	if r.Server, err = serve.New(t.Context(), parsed, &r.Out, &r.Log); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r.Stop = stop
	go func() {
		defer close(r.Ended)
		r.Err = r.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-r.Ended
		if r.Err != nil {
			t.Errorf("the server ended with %v", r.Err)
		}
	})
	Get(t, "http://"+r.OpsAddr()+"/healthz") // waits for the ports to serve
	return r, r.Service().CatchUp(t.Context())
}

// Parse returns the settings that grantor serve has with the arguments, and their flags.
func Parse(args ...string) (*serve.Settings, *pflag.FlagSet, error) {
	var parsed serve.Settings
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	set := parsed.Declare(flags)
	if err := flags.Parse(args); err != nil {
		return nil, nil, err
	}
	return &parsed, flags, set.Resolve(nil)
}

// URL returns the URL of a path of the REST port.
func (r *Replica) URL(path string) string { return "http://" + r.HTTPAddr() + path }

// Token requests a token as the client of development mode.
func (r *Replica) Token(t testing.TB) string {
	t.Helper()
	answer, err := http.PostForm(r.URL("/connect/token"), url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"background-service"},
		"client_secret": {"service-secret-here"}, "scope": {"api1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	body := ReadBody(t, answer)
	var issued struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &issued); err != nil || issued.Token == "" {
		t.Fatalf("got %s %s, want a token", answer.Status, body)
	}
	return issued.Token
}

// Get returns the status and the body of a response to GET.
func Get(t testing.TB, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, ReadBody(t, answer)
}

// ReadBody returns the body of a response.
func ReadBody(t testing.TB, answer *http.Response) string {
	t.Helper()
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// WriteFile writes a file in a directory of the test and returns its path.
func WriteFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// KEKFile writes a new key-encryption key to a file and returns its path.
func KEKFile(t testing.TB) string {
	t.Helper()
	return WriteFile(t, "kek", base64.StdEncoding.EncodeToString(keys.NewKEK())+"\n")
}

// Manifest is a manifest of a resource and of two clients.
const Manifest = `resources:
  - resource: https://orders.internal
    name: Orders API
    scopes: [api1, orders.read]
    access_token_lifetime: 1h
    signing_alg: ES256
clients:
  - client_id: background-service
    client_name: Background Service
    client_secret: service-secret-here
    grant_types: [client_credentials]
    scopes: [api1]
  - client_id: orders-api
    client_secret: orders-api-secret
    resources: [https://orders.internal]
`

// Start starts a server with the arguments on free ports. It stops when the test ends.
func Start(t testing.TB, args ...string) *Replica {
	t.Helper()
	r, err := Try(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Production returns the arguments of a replica on a Redis, which applies a manifest.
func Production(redis *redistest.Server, kek, manifest string) []string {
	return []string{"--redis=" + redis.URL(), "--key-encryption-key-file=" + kek, "--apply=" + manifest}
}

// Dial returns a plaintext connection that is closed when the test ends.
func Dial(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
