package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/service/keys"
)

// TestMain has the process trust one authority as it does those of the system: nothing else can name it to go-redis. It is
// also what the processes run that attack.
func TestMain(m *testing.M) {
	if name := os.Getenv("ATTACK"); name != "" {
		attack(name)
	}
	forget := trust()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		forget()
		os.Exit(code)
	}))
}

// replica is a server that a test started as `grantor serve` does, in this process.
type replica struct {
	*server
	out, log text
	// stop ends it as SIGTERM does; ended is closed when it has, with err what it ended with.
	stop  context.CancelFunc
	ended chan struct{}
	err   error
}

// serveDev starts a server in dev mode, with the arguments, on free ports. It is stopped when the test ends.
func serveDev(t testing.TB, args ...string) *replica {
	t.Helper()
	r, err := tryServe(t, append([]string{"--dev"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tryServe starts a server with the arguments on free ports, or gives its start-up error.
func tryServe(t testing.TB, args ...string) (*replica, error) {
	t.Helper()
	r := &replica{ended: make(chan struct{})}
	settings, err := parseServe(append([]string{
		"--http-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--shutdown-delay=0s",
	}, args...)...)
	if err != nil {
		return nil, err
	}
	if r.server, err = newServer(t.Context(), settings, &r.out, &r.log); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		defer close(r.ended)
		r.err = r.run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-r.ended
		if r.err != nil {
			t.Errorf("the server ended with %v", r.err)
		}
	})
	get(t, "http://"+r.ports.ops.Addr().String()+"/healthz") // waits for the ports to serve
	return r, r.service.CatchUp(t.Context())
}

// parseServe gives the settings that `grantor serve` has with the arguments.
func parseServe(args ...string) (*serveSettings, error) {
	var settings serveSettings
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	settings.declare(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return &settings, resolve(flags)
}

func (r *replica) url(path string) string { return "http://" + r.ports.http.Addr().String() + path }

// token asks for a token as dev mode's client.
func (r *replica) token(t testing.TB) string {
	t.Helper()
	answer, err := http.PostForm(r.url("/connect/token"), url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"background-service"},
		"client_secret": {"service-secret-here"}, "scope": {"api1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	body := read(t, answer)
	var issued struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &issued); err != nil || issued.Token == "" {
		t.Fatalf("got %s %s, want a token", answer.Status, body)
	}
	return issued.Token
}

// get gives the status and the body of an answer to GET.
func get(t testing.TB, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, read(t, answer)
}

func read(t testing.TB, answer *http.Response) string {
	t.Helper()
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// file writes a file for the test and gives its path.
func file(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// kekFile writes a new key-encryption key.
func kekFile(t testing.TB) string {
	t.Helper()
	return file(t, "kek", base64.StdEncoding.EncodeToString(keys.NewKEK())+"\n")
}

// text is what a server writes, read while it runs.
type text struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}
