package secretvar_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gocloud.dev/runtimevar"
	_ "gocloud.dev/runtimevar/constantvar"
	_ "gocloud.dev/runtimevar/filevar"
	_ "gocloud.dev/runtimevar/httpvar"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/secretvar"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, rawURL string) *secretvar.Variable {
	t.Helper()
	variable, err := secretvar.Open(t.Context(), rawURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := variable.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return variable
}

// replace replaces the file at path by one with the content.
func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(content), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// await waits until the variable has the value want.
func await(t *testing.T, variable *secretvar.Variable, want string) {
	t.Helper()
	must.Eventually(t, fmt.Sprintf("the secret is %q", want), func() bool {
		got, err := variable.Secret(t.Context())
		return err == nil && got == want
	})
}

func TestSecret(t *testing.T) {
	for name, test := range map[string]struct{ url, want, text string }{
		"default decoder":    {"constant://?val=s3cret", "s3cret", ""},
		"bytes":              {"constant://?val=s3cret&decoder=bytes", "s3cret", ""},
		"string":             {"constant://?val=s3cret&decoder=string", "s3cret", ""},
		"space in the URL":   {"constant://?val=s3 cret", "s3 cret", ""},
		"line ends":          {"constant://?val=s3cret%0D%0A%0A&decoder=string", "s3cret", ""},
		"empty":              {"constant://?val=", "", "constant: is empty"},
		"line ends only":     {"constant://?val=%0A", "", "constant: is empty"},
		"not text":           {`constant://?val={"a":"s3cret"}&decoder=jsonmap`, "", "constant: is decoded to a *map[string]"},
		"the driver's error": {"constant://?err=AccessDenied", "", "constant:: runtimevar (code=Unknown): AccessDenied"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := open(t, test.url).Secret(t.Context())
			if got != test.want || (err != nil) != (test.text != "") {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
			if err != nil && (!strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "s3cret")) {
				t.Errorf("got %q, want %q in it and no secret", err, test.text)
			}
		})
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	variable := open(t, "file://"+path+"?wait=5ms")
	began := time.Now()
	_, err := variable.Secret(t.Context())
	if err == nil || !strings.Contains(err.Error(), path) || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %v, want an error at once that names the file", err, time.Since(began))
	}
	replace(t, path, "first\n")
	await(t, variable, "first")
	replace(t, path, "second\n")
	await(t, variable, "second")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(100 * time.Millisecond); time.Now().Before(deadline); <-tick.C {
		if got, err := variable.Secret(t.Context()); got != "second" {
			t.Errorf("without the file: got %q, %v, want the last secret", got, err)
		}
	}
}

func TestURLsThatCannotBeOpened(t *testing.T) {
	for name, test := range map[string]struct{ url, text string }{
		"no URL":            {"https://robot:s3cret@exa mple.com", "is not a URL"},
		"no scheme":         {"//robot:s3cret@example.com/a?val=s3cret", "no scheme in URL"},
		"no driver":         {"vault://robot:s3cret@example.com/a?val=s3cret", `no driver registered for "vault" for URL "vault://example.com/a"`},
		"unknown parameter": {`constant://robot:s3cret@example.com/a?val="a s3cret"&way=1`, `open variable constant://example.com/a invalid query parameter "way"`},
		"unknown decoder":   {"https://robot:s3cret@example.com/a?val=s3cret&decoder=rot13", `unsupported decoder "rot13"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := secretvar.Open(t.Context(), test.url)
			if err == nil || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v, want %q in it and no secret", err, test.text)
			}
		})
	}
}

// The error for an unreachable server shows its address, but no credentials.
func TestErrorsOfTheDriver(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	address := server.Listener.Addr().String()
	variable := open(t, "http://robot:s3cret@"+address+"/a?token=s3cret")
	_, err := variable.Secret(t.Context())
	if err == nil || !strings.Contains(err.Error(), address+"/a") || strings.Contains(err.Error(), "s3cret") ||
		strings.Contains(err.Error(), "robot") {
		t.Errorf("got %v, want %s in it and no secret", err, address)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if got, want := fmt.Sprintf(verb, variable), `secretvar.Variable("http://`+address+`/a")`; got != want {
			t.Errorf("%s: got %s, want %s", verb, got, want)
		}
	}
}

func TestSecretManagerThatHangs(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(release)
	variable := open(t, server.URL+"/a?token=s3cret")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := variable.Secret(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v, want the deadline and no secret", err)
	}
}

func TestClose(t *testing.T) {
	variable := open(t, "constant://?val=s3cret")
	await(t, variable, "s3cret")
	if err := errors.Join(variable.Close(), variable.Close()); err != nil {
		t.Error(err)
	}
	if got, err := variable.Secret(t.Context()); err == nil || got != "" {
		t.Errorf("after Close: got %q, %v, want an error", got, err)
	}
}

// With a real issuer: a token under the first secret, and one under the second when the first is no longer valid.
func TestTokens(t *testing.T) {
	issuer := tokentest.New(t)
	issuer.AddClient(t, "billing", "https://orders.internal", "orders.read")
	path := filepath.Join(t.TempDir(), "secret")
	replace(t, path, tokentest.Secret+"\n")
	variable := open(t, "file://"+path)
	token := func() error {
		source := attach.ClientCredentials(issuer.URL, "billing", "", attach.SecretFunc(variable.Secret))
		_, err := source.TokenContext(t.Context())
		return err
	}
	if err := token(); err != nil {
		t.Error(err)
	}
	next := clientsecret.New()
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{{Secret: next, Client: registry.Client{
		ID: must.Get(oauth.ParseClientID("billing")), Scopes: must.Get(oauth.ParseScopes("orders.read")), GrantTypes: []string{oauth.GrantClientCredentials},
	}}}})
	if refused := (*attach.Error)(nil); !errors.As(token(), &refused) || refused.Code != oauth.InvalidClient {
		t.Errorf("with the old secret: got %v, want invalid_client", refused)
	}
	replace(t, path, next+"\n")
	await(t, variable, next)
	if err := token(); err != nil {
		t.Error(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// A Variable that Open did not return has no secret, and a missing context bounds nothing.
func TestVariableThatWasNotOpened(t *testing.T) {
	var none context.Context
	for name, variable := range map[string]*secretvar.Variable{"nil": nil, "zero": new(secretvar.Variable)} {
		if got, err := variable.Secret(none); got != "" || err == nil {
			t.Errorf("%s: got %q, %v, want an error", name, got, err)
		}
		if err := variable.Close(); err == nil {
			t.Errorf("%s: Close returned no error", name)
		}
		_ = fmt.Sprint(variable)
	}
	variable, err := secretvar.Open(none, "constant://?val=s3cret&decoder=string")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := variable.Secret(none); got != "s3cret" || err != nil {
		t.Errorf("got %q, %v, want s3cret", got, err)
	}
	for range 2 {
		if err := variable.Close(); err != nil {
			t.Error(err)
		}
	}
}

// faultyDriver panics, or returns nothing for the host "nothing".
type faultyDriver struct{}

func (faultyDriver) OpenVariableURL(_ context.Context, u *url.URL) (*runtimevar.Variable, error) {
	if u.Host != "nothing" {
		panic(u.String())
	}
	return nil, nil
}

// A driver that panics or returns nothing makes Open fail.
func TestFaultyDriver(t *testing.T) {
	runtimevar.DefaultURLMux().RegisterVariable("faulty", faultyDriver{})
	var none context.Context
	for raw, want := range map[string]string{"faulty://a:s3cret@host?x=s3cret": "panicked with a string", "faulty://nothing": "no variable"} {
		if _, err := secretvar.Open(none, raw); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// FuzzOpen opens any URL of a driver that needs no network, and of drivers that there are not.
func FuzzOpen(f *testing.F) {
	f.Add("constant", "user:s3cret@host/path", "s3cret", "string")
	f.Add("constant", "", "\x00\xff", "decrypt+bytes")
	f.Add("constant", "%zz", `a"b c`, "json")
	f.Add("nosuch", "user:s3cret@host", "service-secret", "")
	f.Add("", "@?#", "service-secret", "constant://")
	f.Add("CONSTANT", "[::1%25", "service-secret", "gob")
	f.Fuzz(func(t *testing.T, scheme, rest, value, decoder string) {
		if scheme != "constant" && runtimevar.DefaultURLMux().ValidVariableScheme(strings.ToLower(scheme)) {
			return // a driver with a network or a file
		}
		query := url.Values{"val": {value}, "decoder": {decoder}}.Encode()
		variable, err := secretvar.Open(t.Context(), scheme+"://"+rest+"?"+query)
		if err != nil {
			if shown := url.QueryEscape(value); len(value) >= 8 && !strings.Contains(scheme+rest+decoder, value) && strings.Contains(err.Error(), shown) {
				t.Errorf("the query is in %v", err)
			}
			return
		}
		got, err := variable.Secret(t.Context())
		if err == nil && got == "" {
			t.Error("got an empty secret without an error")
		}
		_ = fmt.Sprintf("%v %#v", variable, variable)
		if err := variable.Close(); err != nil {
			t.Error(err)
		}
	})
}
