// Package vaulttest runs, for tests, servers that speak the API of HashiCorp Vault and that of Azure Key Vault. For the
// first there are an emulator and a real server, OpenBao, which the same tests run against. For the second there is only an
// emulator, because no such server can be installed.
package vaulttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/freeport"
)

// Vault is a running server. It has an engine of version 2 at secret/, and engines of version 1 at kv1/ and at team/kv1/.
type Vault struct {
	Address string
	// Root is a token with every right, and Denied one without any.
	Root, Denied string

	t       testing.TB
	replace *atomic.Pointer[http.HandlerFunc]
}

// EachVault runs a test against the emulator, and against OpenBao if the command bao is installed; make test installs it.
func EachVault(t *testing.T, test func(t *testing.T, v *Vault)) {
	t.Run("emulator", func(t *testing.T) { test(t, NewVault(t)) })
	t.Run("OpenBao", func(t *testing.T) { test(t, NewOpenBao(t)) })
}

// NewVault starts the emulator.
func NewVault(t testing.TB) *Vault {
	t.Helper()
	e := &emulator{versions: make(map[string][]version), values: make(map[string]map[string]any)}
	replace := new(atomic.Pointer[http.HandlerFunc])
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler := replace.Load(); handler != nil {
			(*handler)(w, r)
			return
		}
		e.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return &Vault{Address: server.URL, Root: rootToken, Denied: "without-any-right", t: t, replace: replace}
}

// Answer has the emulator answer each further request with handler; nil ends that.
func (v *Vault) Answer(handler http.HandlerFunc) {
	if handler == nil {
		v.replace.Store(nil)
		return
	}
	v.replace.Store(&handler)
}

// SetEnv sets the environment of HashiCorp's client to this server, for the time of the test.
func (v *Vault) SetEnv(t testing.TB, token string) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "VAULT_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("VAULT_ADDR", v.Address)
	t.Setenv("VAULT_TOKEN", token)
}

// Put writes the fields of a secret. A path of an engine of version 2 makes a new version.
func (v *Vault) Put(path string, fields map[string]any) {
	v.t.Helper()
	if name, ok := strings.CutPrefix(path, "secret/"); ok {
		v.call(http.MethodPost, "secret/data/"+name, map[string]any{"data": fields})
		return
	}
	v.call(http.MethodPost, path, fields)
}

// Delete deletes a secret, or the newest version of one.
func (v *Vault) Delete(path string) {
	v.t.Helper()
	v.call(http.MethodDelete, strings.Replace(path, "secret/", "secret/data/", 1), nil)
}

// Destroy destroys a version of a secret.
func (v *Vault) Destroy(path string, number int) {
	v.t.Helper()
	v.call(http.MethodPost, strings.Replace(path, "secret/", "secret/destroy/", 1), map[string]any{"versions": []int{number}})
}

// Seal seals the server. It answers nothing more.
func (v *Vault) Seal() {
	v.t.Helper()
	v.call(http.MethodPut, "sys/seal", nil)
}

// call makes a call with every right, and returns the answer.
func (v *Vault) call(method, path string, body map[string]any) []byte {
	v.t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		v.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(v.t.Context(), method, v.Address+"/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		v.t.Fatal(err)
	}
	request.Header.Set("X-Vault-Token", v.Root)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= http.StatusMultipleChoices {
		v.t.Fatalf("%s %s: got %s %s, %v", method, path, response.Status, answer, err)
	}
	return answer
}

// NewOpenBao starts a real server in development mode, which keeps everything in memory. The test is skipped if the command
// bao is not installed.
func NewOpenBao(t testing.TB) *Vault {
	t.Helper()
	path, err := exec.LookPath("bao")
	if err != nil {
		t.Skip("the command bao is not installed; tools/install-for-tests installs it")
	}
	address := freeport.Address(t)
	var output bytes.Buffer
	command := exec.Command(path, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id="+rootToken, "-dev-listen-address="+address)
	command.Stdout, command.Stderr, command.Dir = &output, &output, t.TempDir()
	command.Env = []string{"HOME=" + command.Dir}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	v := &Vault{Address: "http://" + address, Root: rootToken, t: t}
	v.await(&output)
	for _, mount := range []string{"kv1", "team/kv1"} {
		v.call(http.MethodPost, "sys/mounts/"+mount, map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	}
	var created struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	if err := json.Unmarshal(v.call(http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"default"}}), &created); err != nil {
		t.Fatal(err)
	}
	v.Denied = created.Auth.Token
	return v
}

// await waits until the engine at secret/, which is mounted last, answers.
func (v *Vault) await(output *bytes.Buffer) {
	v.t.Helper()
	const timeout = 30 * time.Second
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); ; <-tick.C {
		request, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.Address+"/v1/secret/config", http.NoBody)
		if err != nil {
			v.t.Fatal(err)
		}
		request.Header.Set("X-Vault-Token", v.Root)
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("bao does not answer: %v\n%s", err, output)
		}
	}
}

const rootToken = "every-right"

// version is a version of a secret in an engine of version 2.
type version struct {
	data      map[string]any
	deleted   string
	destroyed bool
}

// emulator implements what the tests need of the API of HashiCorp Vault, with the bodies that OpenBao 2.7 answers.
type emulator struct {
	mu       sync.Mutex
	versions map[string][]version
	values   map[string]map[string]any
	sealed   bool
}

// ServeHTTP implements [http.Handler].
func (e *emulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	switch name, versioned := strings.CutPrefix(path, "secret/data/"); {
	case e.sealed:
		refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
	case r.Header.Get("X-Vault-Token") != rootToken:
		refuse(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	case path == "sys/seal":
		e.sealed = true
		w.WriteHeader(http.StatusNoContent)
	case versioned:
		e.serveVersions(w, r, name, body)
	case strings.HasPrefix(path, "secret/destroy/"):
		e.destroy(strings.TrimPrefix(path, "secret/destroy/"), body)
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(path, "secret/"):
		respond(w, http.StatusNotFound, nil, 0, "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use.")
	case strings.HasPrefix(path, "kv1/"), strings.HasPrefix(path, "team/kv1/"):
		e.serveValues(w, r, path, body)
	default:
		refuse(w, http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", path))
	}
}

func (e *emulator) serveVersions(w http.ResponseWriter, r *http.Request, name string, body map[string]any) {
	all := e.versions[name]
	switch r.Method {
	case http.MethodGet:
		number := len(all)
		if text := r.URL.Query().Get("version"); text != "" {
			number, _ = strconv.Atoi(text)
		}
		if number < 1 || number > len(all) {
			refuse(w, http.StatusNotFound)
			return
		}
		v, status := all[number-1], http.StatusOK
		data := any(v.data)
		if v.deleted != "" || v.destroyed {
			data, status = nil, http.StatusNotFound
		}
		respond(w, status, map[string]any{"data": data, "metadata": map[string]any{
			"created_time": "2026-11-30T12:14:19.388794493Z", "custom_metadata": nil, "deletion_time": v.deleted,
			"destroyed": v.destroyed, "version": number,
		}}, 0)
	case http.MethodDelete:
		if len(all) > 0 {
			all[len(all)-1].deleted = "2026-11-30T12:14:19.451545933Z"
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		data, _ := body["data"].(map[string]any)
		e.versions[name] = append(all, version{data: data})
		respond(w, http.StatusOK, map[string]any{"version": len(all) + 1}, 0)
	}
}

func (e *emulator) destroy(name string, body map[string]any) {
	numbers, _ := body["versions"].([]any)
	for _, number := range numbers {
		if n, ok := number.(float64); ok && n >= 1 && int(n) <= len(e.versions[name]) {
			e.versions[name][int(n)-1].destroyed = true
		}
	}
}

func (e *emulator) serveValues(w http.ResponseWriter, r *http.Request, path string, body map[string]any) {
	const lease = 2764800 // 32 days, in seconds: when to look again, which is no promise that the value stays
	switch r.Method {
	case http.MethodGet:
		if e.values[path] == nil {
			refuse(w, http.StatusNotFound)
			return
		}
		respond(w, http.StatusOK, e.values[path], lease)
	case http.MethodDelete:
		delete(e.values, path)
		w.WriteHeader(http.StatusNoContent)
	default:
		e.values[path] = body
		w.WriteHeader(http.StatusNoContent)
	}
}

func respond(w http.ResponseWriter, status int, data map[string]any, lease int, warnings ...string) {
	writeJSON(w, status, map[string]any{
		"request_id": "ae89826d-2978-6750-f7a9-f72e26ee42cf", "lease_id": "", "renewable": false, "lease_duration": lease,
		"data": data, "wrap_info": nil, "warnings": warnings, "auth": nil,
	})
}

func refuse(w http.ResponseWriter, status int, texts ...string) {
	if texts == nil {
		texts = []string{}
	}
	writeJSON(w, status, map[string]any{"errors": texts})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
