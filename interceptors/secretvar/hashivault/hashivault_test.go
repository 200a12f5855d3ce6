package hashivault_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/secretvar"
	_ "github.com/grantorhq/grantor/interceptors/secretvar/hashivault"
	"github.com/grantorhq/grantor/interceptors/secretvar/vaulttest"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mark = vaulttest.Mark

func TestValues(t *testing.T) {
	vaulttest.EachVault(t, func(t *testing.T, v *vaulttest.Vault) {
		v.SetEnv(t, v.Root)
		v.Put("secret/billing", map[string]any{"client_secret": mark + "-1", "user": "x"})
		v.Put("secret/billing", map[string]any{"client_secret": mark + "-2\n", "user": "x", "number": 5})
		v.Put("secret/team/a b", map[string]any{"value": mark})
		v.Put("kv1/billing", map[string]any{"client_secret": mark + "-v1", "user": "x"})
		v.Put("team/kv1/billing", map[string]any{"value": mark + "-nested"})
		for url, want := range map[string]string{
			"hashivault://secret/billing?field=client_secret":                          mark + "-2",
			"hashivault://secret/billing?field=client_secret&kv=2&decoder=string":      mark + "-2",
			"hashivault://secret/billing?field=client_secret&version=1":                mark + "-1",
			"hashivault://secret/team/a%20b":                                           mark,
			"hashivault://kv1/billing?kv=1&field=client_secret":                        mark + "-v1",
			"hashivault://team/kv1/billing?kv=1&mount=team/kv1":                        mark + "-nested",
			"hashivault://team/kv1/billing?kv=1&mount=team%2Fkv1/&field=value&wait=1s": mark + "-nested",
		} {
			if got, err := vaulttest.Open(t, url).Secret(t.Context()); got != want || err != nil {
				t.Errorf("%s: got %q, %v, want %q", url, got, err, want)
			}
		}
		for url, want := range map[string]string{
			"hashivault://secret/billing":                            "the secret has 3 fields; the parameter field must name one",
			"hashivault://secret/billing?field=password":             `the secret has no field "password"`,
			"hashivault://secret/billing?field=number":               "the field of the secret is not text",
			"hashivault://secret/billing?field=user&version=9":       "there is no such secret",
			"hashivault://secret/none":                               "there is no such secret",
			"hashivault://none/billing":                              "there is no such secret",
			"hashivault://kv1/none?kv=1":                             "there is no such secret",
			"hashivault://kv1/billing?field=client_secret":           "or the engine is of version 1, which kv=1 reads",
			"hashivault://secret/billing?kv=1&field=client_secret":   "or the engine is of version 2, which kv=2 reads",
			"hashivault://secret/billing?field=user&decoder=jsonmap": "cannot be decoded",
		} {
			vaulttest.Fails(t, url, want)
		}
	})
}

// TestChanges follows a secret through a new version, a deletion, a destruction and a restoration, in both engines.
func TestChanges(t *testing.T) {
	vaulttest.EachVault(t, func(t *testing.T, v *vaulttest.Vault) {
		v.SetEnv(t, v.Root)
		for path, parameters := range map[string]string{"secret/billing": "?wait=20ms", "kv1/billing": "?wait=20ms&kv=1"} {
			v.Put(path, map[string]any{"value": mark + "-1"})
			variable := vaulttest.Open(t, "hashivault://"+path+parameters)
			vaulttest.Await(t, variable, mark+"-1")
			v.Put(path, map[string]any{"value": mark + "-2"})
			vaulttest.Await(t, variable, mark+"-2")
			v.Delete(path)
			vaulttest.Keeps(t, variable, mark+"-2")
			reason := "there is no such secret"
			if strings.HasPrefix(path, "secret/") {
				reason = "code=NotFound): the version of the secret is deleted"
			}
			vaulttest.Fails(t, "hashivault://"+path+parameters, reason)
			v.Put(path, map[string]any{"value": mark + "-3"})
			vaulttest.Await(t, variable, mark+"-3")
		}
		v.Destroy("secret/billing", 3)
		vaulttest.Fails(t, "hashivault://secret/billing", "code=NotFound): the version of the secret is destroyed")
		vaulttest.Fails(t, "hashivault://secret/billing?version=2", "the version of the secret is deleted")
	})
}

func TestRefusals(t *testing.T) {
	vaulttest.EachVault(t, func(t *testing.T, v *vaulttest.Vault) {
		v.Put("secret/billing", map[string]any{"value": mark})
		for _, token := range []string{v.Denied, "s." + mark, ""} {
			v.SetEnv(t, token)
			vaulttest.Fails(t, "hashivault://secret/billing", "code=PermissionDenied): status 403: the token is not valid, or may not read the secret")
		}
		v.SetEnv(t, v.Root)
		variable := vaulttest.Open(t, "hashivault://secret/billing?wait=20ms")
		vaulttest.Await(t, variable, mark)
		v.Seal()
		vaulttest.Keeps(t, variable, mark)
		vaulttest.Fails(t, "hashivault://secret/billing", "status 503: the server is sealed or under maintenance")
	})
}

// TestOutage takes the server away, and throttles, while a secret is followed.
func TestOutage(t *testing.T) {
	v := vaulttest.NewVault(t)
	v.SetEnv(t, v.Root)
	v.Put("secret/billing", map[string]any{"value": mark + "-1"})
	variable := vaulttest.Open(t, "hashivault://secret/billing?wait=20ms")
	vaulttest.Await(t, variable, mark+"-1")
	for want, handler := range map[string]http.HandlerFunc{
		"the server closed the connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"code=ResourceExhausted): status 429: the server's quota is exhausted": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			http.Error(w, `{"errors":["request path \"secret/data/billing\": rate limit quota exceeded"]}`, http.StatusTooManyRequests)
		},
		"status 500: the server failed": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>"+mark, http.StatusInternalServerError)
		},
		"status 418: the server does not answer reads with it": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"errors":["`+mark+`"]}`, http.StatusTeapot)
		},
		"status 307: ": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTemporaryRedirect) },
	} {
		if strings.HasPrefix(want, "status 307") {
			want = "the server's answer cannot be understood"
		}
		v.Answer(handler)
		vaulttest.Keeps(t, variable, mark+"-1")
		vaulttest.Fails(t, "hashivault://secret/billing", want)
	}
	v.Answer(nil)
	v.Put("secret/billing", map[string]any{"value": mark + "-2"})
	vaulttest.Await(t, variable, mark+"-2")
}

// TestServerThatHangs closes a variable whose first read waits for an answer.
func TestServerThatHangs(t *testing.T) {
	v := vaulttest.NewVault(t)
	v.SetEnv(t, mark)
	v.Answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	variable := vaulttest.Open(t, "hashivault://secret/billing")
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

// TestTokens requests tokens from an issuer with a secret in Vault, which then changes at both.
func TestTokens(t *testing.T) {
	vaulttest.EachVault(t, func(t *testing.T, v *vaulttest.Vault) {
		v.SetEnv(t, v.Root)
		issuer := tokentest.New(t)
		issuer.AddClient(t, "billing", "https://orders.internal", "orders.read")
		v.Put("secret/billing", map[string]any{"value": tokentest.Secret})
		variable := vaulttest.Open(t, "hashivault://secret/billing?wait=20ms")
		token := func() error {
			source := attach.ClientCredentials(issuer.URL, "billing", "", attach.SecretFunc(variable.Secret))
			_, err := source.TokenContext(t.Context())
			return err
		}
		must.Succeed(t, token())
		next := clientsecret.New()
		issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Secret: next, Client: registry.Client{
			ID: must.Get(oauth.ParseClientID("billing")), Scopes: must.Get(oauth.ParseScopes("orders.read")), GrantTypes: []string{oauth.GrantClientCredentials},
		}}}})
		v.Put("secret/billing", map[string]any{"value": next})
		vaulttest.Await(t, variable, next)
		must.Succeed(t, token())
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
}

func TestServerThatIsNotThere(t *testing.T) {
	v := vaulttest.NewVault(t)
	for address, want := range map[string]string{
		"http://127.0.0.1:1":                             "connection refused",
		strings.Replace(v.Address, "http", "https", 1):   "the server does not speak TLS",
		"http://" + mark + ":" + mark + "@127.0.0.1:1/x": "connection refused",
	} {
		v.SetEnv(t, mark)
		t.Setenv("VAULT_ADDR", address)
		vaulttest.Fails(t, "hashivault://secret/billing", want)
	}
}

// TestEnvironment reads the variables that Go CDK reads for keys in Vault too, and leaves out what would hide the secret.
func TestEnvironment(t *testing.T) {
	v := vaulttest.NewVault(t)
	v.Put("secret/billing", map[string]any{"value": mark})
	v.SetEnv(t, "another")
	for name, value := range map[string]string{
		"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_SERVER_URL": v.Address, "VAULT_SERVER_TOKEN": v.Root, "VAULT_WRAP_TTL": "1m",
	} {
		t.Setenv(name, value)
	}
	vaulttest.Await(t, vaulttest.Open(t, "hashivault://secret/billing"), mark)
	for name, test := range map[string]struct{ value, want string }{
		"VAULT_SERVER_TOKEN": {mark + "\n", "the token contains a character that is not printable"},
		"VAULT_SERVER_URL":   {"http://" + mark + ":x y", "is not valid"},
		"VAULT_CACERT":       {"/nonexistent", "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, test.value)
			_, err := secretvar.Open(t.Context(), "hashivault://secret/billing")
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), mark) {
				t.Errorf("got %v, want %q in it and no secret", err, test.want)
			}
		})
	}
}

func TestURLsThatCannotBeOpened(t *testing.T) {
	for url, want := range map[string]string{
		"hashivault://secret":                          "needs the mount of the engine and the path",
		"hashivault://secret/":                         "needs the mount of the engine and the path",
		"hashivault:///billing":                        "needs the mount of the engine and the path",
		"hashivault:secret/billing":                    "the server is in VAULT_ADDR",
		"hashivault://secret/billing#client_secret":    "beside its parameters",
		"hashivault://secret/a//b":                     "needs the mount of the engine and the path",
		"hashivault://secret/../sys/raw/x":             "needs the mount of the engine and the path",
		"hashivault://vault.example.com:8200/secret/a": "the server is in VAULT_ADDR",
		"hashivault://" + mark + "@secret/billing":     "the server is in VAULT_ADDR",
		"hashivault://secret/billing?kv=3":             "kv is neither 1 nor 2",
		"hashivault://secret/billing?kv=1&version=2":   "has no versions",
		"hashivault://secret/billing?version=0":        "version is a number from 1 on",
		"hashivault://secret/billing?version=latest":   "version is a number from 1 on",
		"hashivault://secret/billing?mount=secret/b":   "does not begin with the mount",
		"hashivault://secret/billing?mount=other":      "does not begin with the mount",
		"hashivault://secret/billing?wait=0s":          "invalid wait",
		"hashivault://secret/billing?wait=1ns":         "invalid wait",
		"hashivault://secret/billing?wait=2562047h":    "invalid wait",
		"hashivault://secret/billing?wait=soon":        "invalid wait",
		"hashivault://secret/billing?fields=a":         `invalid query parameter "fields"`,
		"hashivault://secret/billing?field=a&field=b":  `duplicate query parameter "field"`,
		"hashivault://secret/billing?decoder=rot13":    "unsupported decoder",
	} {
		vaulttest.Refused(t, url, want)
	}
}

// TestAnswers answers what no Vault answers.
func TestAnswers(t *testing.T) {
	v := vaulttest.NewVault(t)
	v.SetEnv(t, v.Root)
	for name, body := range map[string]string{
		"nothing": "", "no JSON": mark, "null": "null", "a list": `["` + mark + `"]`, "no data": `{}`, "text as data": `{"data":"` + mark + `"}`,
		"no fields": `{"data":{"data":{},"metadata":{}}}`, "data of another type": `{"data":{"data":["` + mark + `"],"metadata":{"version":1}}}`,
		"metadata of another type": `{"data":{"data":null,"metadata":"` + mark + `"}}`, "a field that is an object": `{"data":{"data":{"a":{"` + mark + `":1}}}}`,
		"deep": strings.Repeat(`{"data":`, 20_000) + "1" + strings.Repeat("}", 20_000), "large": `{"data":{"data":{"a":"` + strings.Repeat(mark, 300_000) + `"}}}`,
		"a large secret": `{"data":{"data":{"a":"` + strings.Repeat(mark, 20_000) + `"}}}`, "wrapped": `{"wrap_info":{"token":"` + mark + `"}}`,
	} {
		for _, status := range []int{http.StatusOK, http.StatusNotFound, http.StatusForbidden} {
			v.Answer(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			})
			got, err := vaulttest.Open(t, "hashivault://secret/billing").Secret(t.Context())
			if got != "" || err == nil || strings.Contains(err.Error(), mark) {
				t.Errorf("%s, status %d: got a secret of %d bytes, %.200v, want an error without a secret", name, status, len(got), err)
			}
		}
	}
}

// FuzzAnswers lets the server answer anything. Nothing panics, no error quotes the answer, and each goroutine ends.
func FuzzAnswers(f *testing.F) {
	v := vaulttest.NewVault(f)
	f.Setenv("VAULT_ADDR", v.Address)
	f.Add(200, `{"data":{"data":{"a":"`+mark+`"},"metadata":{"version":1}}}`, "", true)
	f.Add(404, `{"data":{"data":null,"metadata":{"destroyed":true}}}`, "", true)
	f.Add(403, `{"errors":["permission denied"]}`, "1", false)
	f.Add(429, mark, "3600", false)
	f.Fuzz(func(t *testing.T, status int, body, header string, versioned bool) {
		if status < 200 || status > 499 { // after a status of 5xx the client waits before it asks again
			status = 200
		}
		v.Answer(func(w http.ResponseWriter, _ *http.Request) {
			for _, name := range []string{"Retry-After", "Content-Encoding", "Content-Type"} {
				w.Header().Set(name, header)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		url := "hashivault://secret/billing?kv=1"
		if versioned {
			url = "hashivault://secret/billing"
		}
		variable, err := secretvar.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := variable.Secret(t.Context())
		if err == nil && got == "" {
			t.Error("got an empty secret without an error")
		}
		if err != nil && strings.Contains(err.Error(), mark) {
			t.Errorf("the error quotes the answer: %v", err)
		}
		if err := variable.Close(); err != nil {
			t.Error(err)
		}
	})
}
