package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/oauth"
)

// runToken runs grantor token with the arguments and standard input.
func runToken(t *testing.T, stdin string, args ...string) clitest.Result {
	t.Helper()
	return runTokenOn(t, strings.NewReader(stdin), args...)
}

func runTokenOn(t *testing.T, stdin io.Reader, args ...string) clitest.Result {
	t.Helper()
	return runOn(t, stdin, append([]string{"token"}, args...)...)
}

// asDevClient starts a server and sets up the commands to be the client of development mode.
func asDevClient(t *testing.T) *servetest.Replica {
	t.Helper()
	r := servetest.Dev(t)
	issuer, err := r.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GRANTOR_ISSUER", issuer.String())
	t.Setenv("GRANTOR_CLIENT_ID", "background-service")
	t.Setenv("GRANTOR_CLIENT_SECRET", clitest.DevSecret)
	return r
}

// fields parses a JSON object.
func fields(t *testing.T, document string) map[string]any {
	t.Helper()
	var found map[string]any
	if err := json.Unmarshal([]byte(document), &found); err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	return found
}

func TestTokenIssue(t *testing.T) {
	asDevClient(t)
	issued := runToken(t, "", "issue", "--scope", "api1", "--resource", "https://orders.internal")
	if raw := issued.Works(t); !regexp.MustCompile(`^[\w-]+\.[\w-]+\.[\w-]+\n$`).MatchString(raw) {
		t.Errorf("standard output: got %q, want the token alone", raw)
	}
	if want := "scope api1; expires in 1h0m0s\n"; issued.ErrOut != want {
		t.Errorf("standard error: got %q, want %q", issued.ErrOut, want)
	}
	answer := runToken(t, "", "issue", "-o", "json", "--scope", " api1 ")
	got := fields(t, answer.Works(t))
	if got["access_token"] == "" || got["token_type"] != "Bearer" || got["expires_in"] != 3600.0 || got["scope"] != "api1" || answer.ErrOut != "" {
		t.Errorf("got %v and %q, want the whole answer and nothing else", got, answer.ErrOut)
	}
	runToken(t, "", "issue", "--scope", "api1 other", "--scope", "third").Fails(t, "invalid_scope: ")
	runToken(t, "", "issue", "--resource", "https://other.internal").Fails(t, "invalid_target: ")
}

// TestTokenSecret takes the secret from each possible source.
func TestTokenSecret(t *testing.T) {
	asDevClient(t)
	runToken(t, "", "issue").Works(t)
	right, wrong := servetest.WriteFile(t, "secret", clitest.DevSecret+"\n"), servetest.WriteFile(t, "wrong", "another-secret-instead")
	runToken(t, "", "issue", "--client-secret-file", right).Fails(t, "GRANTOR_CLIENT_SECRET, client-secret-file: both are set, by flag or environment; give one")

	t.Setenv("GRANTOR_CLIENT_SECRET", "")
	runToken(t, "", "issue", "--client-secret-file", right).Works(t)
	config := servetest.WriteFile(t, "token.yaml", "client_secret_file: "+right+"\noutput: json\n")
	fields(t, runToken(t, "", "issue", "--config", config).Works(t))
	runToken(t, runToken(t, "", "issue", "--config", config, "-o", "text").Works(t), "decode", "--config", config).Works(t)
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"none", "GRANTOR_CLIENT_SECRET", nil},
		{"none, and where to put it", "--client-secret-file", nil},
		{"wrong", "invalid_client: ", []string{"--client-secret-file", wrong}},
		{"no such file", "client-secret-file: ", []string{"--client-secret-file", "/nonexistent"}},
		{"empty", "client-secret-file: is empty", []string{"--client-secret-file", servetest.WriteFile(t, "empty", "\n")}},
		{"long", "client-secret-file: has more than 512 bytes", []string{"--client-secret-file", servetest.WriteFile(t, "long", strings.Repeat("x", 513))}},
		{"on the command line", "GRANTOR_CLIENT_SECRET", []string{"--client-secret", clitest.DevSecret}},
		{"as a shorthand", "there is no flag -p", []string{"-p" + clitest.DevSecret}},
		{"as a flag of another tool", "there is no flag --password", []string{"--password=" + clitest.DevSecret}},
		{"as an argument", "accepts 0 arg(s)", []string{clitest.DevSecret}},
		{"in the file of settings", `there is no setting "client_secret"`, []string{"--config", servetest.WriteFile(t, "bad.yaml", "client_secret: "+clitest.DevSecret+"\n")}},
		{"no client", "client-id: is required", []string{"--client-id="}},
		{"issuer in plaintext", "issuer: ", []string{"--issuer=http://auth.example.com", "--client-secret-file", right}},
		{"form of output", "output: ", []string{"--output=yaml"}},
		{"no issuer there", "no metadata of the issuer", []string{"--issuer=http://localhost:1", "--client-secret-file", right}},
	} {
		t.Run(c.name, func(t *testing.T) {
			runToken(t, "", append([]string{"issue"}, c.args...)...).Fails(t, c.want, "another-secret-instead")
		})
	}
	runToken(t, "", "isue", clitest.DevSecret).Fails(t, `token: there is no command "isue"; did you mean issue?`)
	runToken(t, "", clitest.DevSecret).Fails(t, "token: the commands are issue, introspect, revoke and decode")
}

func TestTokenIntrospect(t *testing.T) {
	r := asDevClient(t)
	raw := r.Token(t)
	for _, c := range []struct {
		name, stdin string
		args        []string
	}{
		{"standard input", raw + "\n", nil},
		{"a dash", raw, []string{"-"}},
		{"an argument", "", []string{raw}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := fields(t, runToken(t, c.stdin, append([]string{"introspect", "--output=json"}, c.args...)...).Works(t))
			if got["active"] != true || got["client_id"] != "background-service" || got["scope"] != "api1" {
				t.Errorf("got %v, want an active token of background-service", got)
			}
		})
	}
	got := runToken(t, raw, "introspect").Works(t)
	for _, want := range []string{`(?m)^  active +true$`, `(?m)^  client_id +background-service$`, `(?m)^  exp +\d+  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, in (1h0m0s|59m\d\ds)$`} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("got this, without %s:\n%s", want, got)
		}
	}
	if got := runToken(t, "garbage", "introspect").Works(t); got != "  active  false\n" {
		t.Errorf("garbage: got %q, want that it is not active", got)
	}
	runToken(t, " \n", "introspect").Fails(t, "no token")
	runToken(t, strings.Repeat("x", 8193), "introspect").Fails(t, "more than 8192 bytes")
	runToken(t, "", "introspect", raw, raw).Fails(t, "accepts at most 1 arg", raw)
	t.Setenv("GRANTOR_CLIENT_SECRET", "another-secret-instead")
	runToken(t, raw, "introspect").Fails(t, "invalid_client: ", raw, "another-secret-instead")
}

func TestTokenRevoke(t *testing.T) {
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"one", "If it was an active token of background-service, it is revoked.\n", nil},
		{"one, for scripts", "{}\n", []string{"-", "--output=json"}},
		{"all", "All tokens that were issued to background-service until now are revoked.\n", []string{"--all"}},
		{"all, for scripts", "{}\n", []string{"--all", "--output=json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := asDevClient(t)
			raw, other := r.Token(t), r.Token(t)
			if got := runToken(t, raw, append([]string{"revoke"}, c.args...)...).Works(t); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := runToken(t, raw, "introspect").Works(t); got != "  active  false\n" {
				t.Errorf("introspection after the revocation: got %q", got)
			}
			all := strings.HasPrefix(c.name, "all")
			if got := fields(t, runToken(t, other, "introspect", "-o", "json").Works(t)); got["active"] == all {
				t.Errorf("the client's other token: got %v", got)
			}
		})
	}
	raw := asDevClient(t).Token(t)
	runToken(t, "", "revoke", raw, "--all").Fails(t, "give a token or --all, not both", raw)
	runToken(t, "", "revoke").Fails(t, "no token")
	t.Setenv("GRANTOR_ALL", "true") // --all is an argument, not a setting: the environment cannot widen a revocation
	runToken(t, "", "revoke").Fails(t, "no token")
	t.Setenv("GRANTOR_CLIENT_SECRET", "another-secret-instead")
	runToken(t, raw, "revoke").Fails(t, "invalid_client: ", raw, "another-secret-instead")
	runToken(t, "", "revoke", "--all").Fails(t, "invalid_client: ", "another-secret-instead")
}

// TestTokenDecode decodes without a client, a secret or an issuer.
func TestTokenDecode(t *testing.T) {
	t.Setenv("GRANTOR_ISSUER", "http://localhost:1")
	jwt := func(header, claims string) string {
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(header)) + "." + encode([]byte(claims)) + "."
	}
	raw := jwt(`{"typ":"JWT","alg":"none"}`, `{"sub":"a\u001b[2J\u0085","exp":0,"aud":["x","y"],"sub":"twice","iat":1e300}`)
	want := `Header
  typ  JWT
  alg  none

Claims
  sub  a?[2J?
  exp  0  1970-01-01T00:00:00Z, `
	got := runToken(t, raw, "decode").Works(t)
	if !strings.HasPrefix(got, want) {
		t.Errorf("got this, want it to begin with\n%s\n%s", want, got)
	}
	for _, want := range []string{" ago\n", `  aud  ["x","y"]` + "\n", "  sub  twice\n", "  iat  1e300\n",
		"\nNOT VERIFIED: anyone can write this. Check signature, issuer and times with --verify.\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got this, without %q:\n%s", want, got)
		}
	}
	answer := fields(t, runToken(t, "", "decode", "-o", "json", raw).Works(t))
	header, _ := answer["header"].(map[string]any)
	claims, _ := answer["claims"].(map[string]any)
	if answer["verified"] != false || header["alg"] != "none" || claims["exp"] != 0.0 {
		t.Errorf("got %v, want header, claims and that nothing is verified", answer)
	}
	for _, c := range []struct{ name, raw, want string }{
		{"nothing", "", "no token"},
		{"one part", "garbage", "1 parts"},
		{"encrypted", "a.b.c.d.e", "5 parts"},
		{"no base64", "ga!rbage.ga!rbage.x", "its header is not base64url"},
		{"no JSON", jwt("garbage", "{}"), "its header is not a JSON object"},
		{"a list", jwt("{}", "[1]"), "its payload is not a JSON object"},
		{"cut short", jwt("{}", `{"garbage":`), "its payload is not a JSON object"},
		{"null", jwt("{}", `null`), "its payload is not a JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) { runToken(t, c.raw, "decode").Fails(t, c.want, "garbage") })
	}
}

func TestTokenDecodeVerify(t *testing.T) {
	r := asDevClient(t)
	raw := r.Token(t)
	if got := runToken(t, raw, "decode").Works(t); !strings.Contains(got, "NOT VERIFIED") {
		t.Errorf("without --verify: got this, want NOT VERIFIED:\n%s", got)
	}
	got := runToken(t, raw, "decode", "--verify").Works(t)
	want := regexp.MustCompile(`\nVerified: signed by http://localhost:\d+, and within its validity period\. ` +
		`Use grantor token introspect to see whether it was revoked\.\n$`)
	if strings.Contains(got, "NOT VERIFIED") || !want.MatchString(got) {
		t.Errorf("got this, want it to match %s:\n%s", want, got)
	}
	help := runToken(t, "", "decode", "--help").Works(t)
	for _, text := range []string{
		"With --verify the keys are fetched from --issuer, and the\nsignature, the issuer and the times are checked; a token that does not pass is an error",
		"fetch the issuer's keys and check signature, issuer and times\n",
	} {
		if !strings.Contains(help, text) {
			t.Errorf("got this help, without %q:\n%s", text, help)
		}
	}
	if got := fields(t, runToken(t, raw, "decode", "--verify", "-o", "json").Works(t)); got["verified"] != true {
		t.Errorf("got %v, want it verified", got)
	}
	parts := strings.Split(raw, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	widened := bytes.Replace(payload, []byte("api1"), []byte("root"), 1)
	tampered := parts[0] + "." + base64.RawURLEncoding.EncodeToString(widened) + "." + parts[2]
	runToken(t, tampered, "decode", "--verify").Fails(t, "wrong signature", tampered, parts[2])
	foreign := servetest.Dev(t).Token(t)
	runToken(t, foreign, "decode", "--verify").Fails(t, "signed by no key of the issuer", foreign)
	runToken(t, raw, "decode", "--verify", "--issuer=http://localhost:1").Fails(t, "the issuer's keys: ", raw)
}

// TestTokenHostileIssuer uses issuers that misbehave. Their text is bounded and harmless, and the secret goes nowhere
// else.
func TestTokenHostileIssuer(t *testing.T) {
	var answer func(w http.ResponseWriter, r *http.Request)
	metadata := func(base string) oauth.Metadata {
		return oauth.Metadata{
			Issuer: base, TokenEndpoint: base + "/do", IntrospectionEndpoint: base + "/do", RevocationEndpoint: base + "/do",
			GRPCEndpoint: "auth.example.com:443:1",
		}
	}
	var base string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/do":
			answer(w, r)
		case oauth.WellKnownServer:
			_ = json.NewEncoder(w).Encode(metadata(base))
		default:
			t.Errorf("a request came to %s, with the credentials %q", r.URL.Path, r.Header.Get("Authorization"))
		}
	}))
	t.Cleanup(server.Close)
	base = server.URL
	t.Setenv("GRANTOR_ISSUER", base)
	t.Setenv("GRANTOR_CLIENT_ID", "a:b")
	secret := `s e:c+r%t`
	t.Setenv("GRANTOR_CLIENT_SECRET", secret)
	says := func(status int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, c := range []struct {
		name, command, want string
		answer              func(w http.ResponseWriter, r *http.Request)
	}{
		{"a redirection", "issue", "307", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, base+"/elsewhere", http.StatusTemporaryRedirect)
		}},
		{"an echo", "introspect", "invalid_request: *** *** ***", func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			_ = r.ParseForm()
			_, basic, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_request", "error_description": r.Form.Get("token") + " " + password + " " + basic})
		}},
		{"control characters", "issue", "a?b: ?[2J?", says(http.StatusBadRequest, `{"error":"a\nb","error_description":"\u001b[2J\u009b"}`)},
		{"a long text", "issue", strings.Repeat("x", 256), says(http.StatusBadRequest, `{"error":"x","error_description":"`+strings.Repeat("x", 300)+`"}`)},
		{"too much", "issue", "more than 65536 bytes", says(http.StatusOK, strings.Repeat(" ", 65537))},
		{"a page", "issue", "the token_endpoint returned 502", says(http.StatusBadGateway, "<html>")},
		{"a page for a token", "issue", "RFC 6749", says(http.StatusOK, "<html>")},
		{"no token", "issue", "RFC 6749", says(http.StatusOK, `{"token_type":"Bearer"}`)},
		{"a token of another type", "issue", "not Bearer", says(http.StatusOK, `{"access_token":"x","token_type":"MAC"}`)},
		{"a token of two lines", "issue", "not visible ASCII", says(http.StatusOK, `{"access_token":"x\ny","token_type":"Bearer"}`)},
		{"no word on active", "introspect", "RFC 7662", says(http.StatusOK, `{}`)},
		{"a malformed gRPC endpoint", "revoke --all", "is not host:port", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer = c.answer
			runToken(t, "a-token", strings.Fields(c.command)...).Fails(t, c.want, secret, "a-token", "s+e", "s e")
		})
	}
	answer = func(w http.ResponseWriter, r *http.Request) {
		id, password, _ := r.BasicAuth()
		_, _ = fmt.Fprintf(w, `{"access_token":"%s","token_type":"bearer"}`, id+"/"+password)
	}
	got := runToken(t, "", "issue")
	if want := "a%3Ab/s+e%3Ac%2Br%25t\n"; got.Works(t) != want || got.ErrOut != "no scope in the response; no lifetime in the response\n" {
		t.Errorf("got %q and %q, want the form-encoded credentials %q", got.Out, got.ErrOut, want)
	}
}

// TestTokenEndpointsInPlaintext uses metadata that would send the secret in plaintext to another machine.
func TestTokenEndpointsInPlaintext(t *testing.T) {
	t.Setenv("GRANTOR_CLIENT_ID", "background-service")
	t.Setenv("GRANTOR_CLIENT_SECRET", clitest.DevSecret)
	for _, endpoint := range []string{"token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks_uri"} {
		var base string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": base, endpoint: "http://auth.example.com/"})
		}))
		t.Cleanup(server.Close)
		base = server.URL
		runToken(t, "a-token", "introspect", "--issuer", base).Fails(t, "neither https nor loopback", "a-token")
	}
}
