package azurekeyvault_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/interceptors/secretvar"
	_ "github.com/grantorhq/grantor/interceptors/secretvar/azurekeyvault"
	"github.com/grantorhq/grantor/interceptors/secretvar/vaulttest"
	"github.com/grantorhq/grantor/service/must"
)

// vault is the Key Vault of all tests: the credential of the process is found once.
var vault = must.Get(vaulttest.NewKeyVault())

// TestMain leads the requests to Key Vault and to Microsoft Entra to the emulator: the driver clones this transport.
func TestMain(m *testing.M) {
	http.DefaultTransport = vault.Transport()
	for name, value := range vault.Identity() {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		vault.Close()
		os.Exit(code)
	}))
}

const mark = vaulttest.Mark

// base is the beginning of the URLs of secrets.
const base = "azurekeyvault://" + vaulttest.Host + "/secrets/"

func TestValues(t *testing.T) {
	vault.Set("values", mark+"-1")
	vault.Set("values", mark+"-2\n")
	for url, want := range map[string]string{
		base + "values": mark + "-2", base + "values/1": mark + "-1", base + "values?decoder=string&wait=1s": mark + "-2",
	} {
		if got, err := vaulttest.Open(t, url).Secret(t.Context()); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", url, got, err, want)
		}
	}
	vaulttest.Fails(t, base+"none", "code=NotFound): status 404: there is no such secret or version, or it is deleted")
	vaulttest.Fails(t, base+"values/9", "code=NotFound): status 404")
}

// TestChanges follows a secret through a new version, no permission, a disabled version and a deletion.
func TestChanges(t *testing.T) {
	vault.Set("changes", mark+"-1")
	const url = base + "changes?wait=20ms"
	variable := vaulttest.Open(t, url)
	vaulttest.Await(t, variable, mark+"-1")
	vault.Set("changes", mark+"-2")
	vaulttest.Await(t, variable, mark+"-2")
	const denied = "code=PermissionDenied): status 403: this process may not get the secret, or the secret is disabled"
	vault.Deny(true)
	vaulttest.Fails(t, url, denied)
	vaulttest.Keeps(t, variable, mark+"-2")
	vault.Deny(false)
	vault.Disable("changes")
	vaulttest.Fails(t, url, denied)
	vaulttest.Keeps(t, variable, mark+"-2")
	vault.Delete("changes")
	vaulttest.Fails(t, url, "status 404: there is no such secret")
	vaulttest.Keeps(t, variable, mark+"-2")
	vault.Set("changes", mark+"-3")
	vaulttest.Await(t, variable, mark+"-3")
}

// TestOutage takes Key Vault away, and throttles, while a secret is followed.
func TestOutage(t *testing.T) {
	vault.Set("outage", mark+"-1")
	const url = base + "outage?wait=20ms"
	variable := vaulttest.Open(t, url)
	vaulttest.Await(t, variable, mark+"-1")
	t.Cleanup(func() { vault.Answer(nil) })
	for want, handler := range map[string]http.HandlerFunc{
		"the server closed the connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"code=ResourceExhausted): status 429: Key Vault throttles the requests": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"error":{"code":"Throttled","message":"`+mark+`"}}`)
		},
		"status 503: Key Vault is unavailable": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>"+mark, http.StatusServiceUnavailable)
		},
		"status 307: the server does not answer reads with it": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://"+mark+".example.com/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
	} {
		vault.Answer(handler)
		vaulttest.Keeps(t, variable, mark+"-1")
		vaulttest.Fails(t, url, want)
	}
	vault.Answer(nil)
	vault.Set("outage", mark+"-2")
	vaulttest.Await(t, variable, mark+"-2")
}

// TestServerThatHangs closes a variable whose first read waits for an answer.
func TestServerThatHangs(t *testing.T) {
	t.Cleanup(func() { vault.Answer(nil) })
	vault.Answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	variable := vaulttest.Open(t, base+"hangs")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := variable.Secret(ctx); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), mark) {
		t.Errorf("got %v, want the deadline and no secret", err)
	}
	began := time.Now()
	if err := variable.Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("closing: got %v after %v", err, time.Since(began))
	}
}

// TestChallenges answers with what no Key Vault demands. On the first, the client of Azure panics.
func TestChallenges(t *testing.T) {
	t.Cleanup(func() { vault.Answer(nil) })
	for challenge, want := range map[string]string{
		`Bearer authorization="x", resource="https://vault.azure.net"`:                                            "cannot be understood",
		`Bearer authorization="https://login.microsoftonline.com/x", resource="https://example.com/` + mark + `"`: "cannot be understood",
		`Bearer resource="%zz"`: "cannot be understood",
		mark:                    "cannot be understood",
		"":                      "status 401: Key Vault does not accept the token of this process",
	} {
		vault.Answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		})
		vaulttest.Fails(t, base+"challenges", want)
	}
}

// TestIdentity authenticates in a tenant that does not know the process.
func TestIdentity(t *testing.T) {
	t.Cleanup(func() { vault.Answer(nil) })
	vault.Answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/another", resource="https://vault.azure.net"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	vaulttest.Fails(t, base+"identity", `isn't configured to acquire tokens for tenant "another"`)
}

func TestURLsThatCannotBeOpened(t *testing.T) {
	for url, want := range map[string]string{
		"azurekeyvault://" + vaulttest.Host + "/keys/a":                    "want azurekeyvault://VAULT",
		"azurekeyvault://" + vaulttest.Host + "/secrets/":                  "want azurekeyvault://VAULT",
		"azurekeyvault://" + vaulttest.Host + "/secrets/a/b/c":             "want azurekeyvault://VAULT",
		"azurekeyvault://" + vaulttest.Host + "/secrets/a_b":               "want azurekeyvault://VAULT",
		"azurekeyvault:///secrets/a":                                       "want azurekeyvault://VAULT",
		"azurekeyvault://" + mark + "@" + vaulttest.Host + "/secrets/a":    "want azurekeyvault://VAULT",
		"azurekeyvault://" + vaulttest.Host + "/secrets/a#" + "x":          "want azurekeyvault://VAULT",
		"azurekeyvault://" + vaulttest.Host + "/secrets/a?version=1":       `invalid query parameter "version"`,
		"azurekeyvault://" + vaulttest.Host + "/secrets/a?wait=-1s":        "invalid wait",
		"azurekeyvault://" + vaulttest.Host + "/secrets/a?wait=1s&wait=2s": "duplicate query parameter",
		"azurekeyvault://" + vaulttest.Host + "/secrets/a?decoder=rot13":   "unsupported decoder",
	} {
		vaulttest.Refused(t, url, want)
	}
}

func TestLargeAnswers(t *testing.T) {
	t.Cleanup(func() { vault.Answer(nil) })
	for want, size := range map[string]int{"the secret has more than 65536 bytes": 20_000, "the server's answer has more than 1048576 bytes": 200_000} {
		vault.Answer(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"value":"`+strings.Repeat(mark, size)+`"}`)
		})
		vaulttest.Fails(t, base+"large", want)
	}
}

// FuzzAnswers lets Key Vault answer anything. Nothing panics, no error quotes the answer, and each goroutine ends.
func FuzzAnswers(f *testing.F) {
	f.Add(200, `{"value":"`+mark+`","id":"https://`+vaulttest.Host+`/secrets/a/1","attributes":{"enabled":true}}`, "")
	f.Add(200, `{"value":null}`, "")
	f.Add(200, `{"value":["`+mark+`"],"attributes":{"created":"x"}}`, "")
	f.Add(403, `{"error":{"code":"`+mark+`"}}`, "1")
	f.Add(401, mark, `Bearer authorization="x" resource="https://vault.azure.net"`)
	f.Add(404, `<Code>`+mark+`</Code>`, "3600")
	f.Fuzz(func(t *testing.T, status int, body, header string) {
		if status < 200 || status > 499 { // after a status of 5xx the client waits before it asks again
			status = 200
		}
		vault.Answer(func(w http.ResponseWriter, _ *http.Request) {
			for _, name := range []string{"WWW-Authenticate", "Retry-After", "Content-Encoding", "Content-Type", "x-ms-error-code"} {
				w.Header().Set(name, header)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		defer vault.Answer(nil)
		variable, err := secretvar.Open(t.Context(), base+"fuzz")
		if err != nil {
			t.Fatal(err)
		}
		got, err := variable.Secret(t.Context())
		if err == nil && got == "" {
			t.Error("got an empty secret without an error")
		}
		if err != nil && strings.Contains(err.Error(), mark) && !strings.Contains(header, mark) {
			t.Errorf("the error quotes the answer: %v", err)
		}
		if err := variable.Close(); err != nil {
			t.Error(err)
		}
	})
}
