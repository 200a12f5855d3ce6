package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// keyedIssuer is the issuer of the replicas of these tests.
const keyedIssuer = "http://localhost:1"

// newAssertion returns an assertion of the client keyed that has not been used.
func newAssertion(s jwstest.Signer) string {
	return s.Sign(jwstest.Object{"alg": string(s.Algorithm), "kid": s.Key().ID(), "typ": clientassertion.MediaType}, jwstest.Object{
		"iss": "keyed", "sub": "keyed", "aud": keyedIssuer, "iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(), "jti": rand.Text(),
	})
}

// The wires by which a test sends an assertion. Each returns the OAuth error code of the answer; "" for a token.
type assertionWire struct {
	name string
	send func(t *testing.T, r *servetest.Replica, assertion string) string
}

var assertionWires = []assertionWire{
	{"REST", func(t *testing.T, r *servetest.Replica, assertion string) string {
		t.Helper()
		answer := must.Get(http.PostForm(r.URL("/connect/token"), url.Values{
			"grant_type": {"client_credentials"}, "client_assertion": {assertion}, "client_assertion_type": {clientassertion.Type},
		}))
		var body struct {
			Error string `json:"error"`
		}
		must.Succeed(t, json.Unmarshal([]byte(servetest.ReadBody(t, answer)), &body))
		// A replica whose Redis has lost its data may forget the resources before the client: invalid_target.
		if want := map[string]int{"": 200, "invalid_target": 400, "invalid_client": 401, "temporarily_unavailable": 503}[body.Error]; answer.StatusCode != want {
			t.Errorf("got the status %d with %q, want %d", answer.StatusCode, body.Error, want)
		}
		return body.Error
	}},
	{"gRPC", func(t *testing.T, r *servetest.Replica, assertion string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := grantorv1.NewTokenServiceClient(servetest.Dial(t, r.GRPCAddr())).IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: "client_credentials", ClientAssertion: assertion, ClientAssertionType: clientassertion.Type,
		})
		code, ok := map[codes.Code]string{
			codes.OK: "", codes.InvalidArgument: "invalid_target", codes.Unauthenticated: "invalid_client", codes.Unavailable: "temporarily_unavailable",
		}[status.Code(err)]
		if !ok {
			t.Errorf("got %v", err)
		}
		return code
	}},
}

// keyedManifest is a manifest with the client keyed, which has fields.
func keyedManifest(t *testing.T, fields string) string {
	t.Helper()
	return servetest.WriteFile(t, "clients.yaml", servetest.Manifest+"  - {client_id: keyed, scopes: [api1], "+fields+"}\n")
}

// TestAssertionReplicas sends assertions to two replicas while their Redis stops, comes back with its data, and comes back
// without: none is accepted twice, and none while it is not known whether it was used.
func TestAssertionReplicas(t *testing.T) {
	for _, wire := range assertionWires {
		t.Run(wire.name, func(t *testing.T) {
			signer := jwstest.NewSigner("ES256")
			redis := redistest.New(t, "--appendonly", "yes", "--appendfsync", "always")
			manifest, kek := keyedManifest(t, "jwks: "+jwstest.Set(signer)), servetest.KEKFile(t)
			args := append(servetest.Production(redis, kek, manifest), "--issuer="+keyedIssuer, "--log-level=error")
			one, two := servetest.Start(t, args...), servetest.Start(t, args...)
			expect := func(what string, r *servetest.Replica, assertion, want string) {
				t.Helper()
				if got := wire.send(t, r, assertion); got != want {
					t.Errorf("%s: got %q, want %q", what, got, want)
				}
			}
			used, kept := newAssertion(signer), newAssertion(signer)
			expect("first", one, used, "")
			expect("at the same replica", one, used, "invalid_client")
			expect("at the other replica", two, used, "invalid_client")
			redis.Stop()
			expect("without Redis", one, kept, "temporarily_unavailable")
			expect("a used one without Redis", two, used, "temporarily_unavailable")
			redis.Start()
			must.Eventually(t, "Redis is back", func() bool {
				return wire.send(t, one, newAssertion(signer)) == "" && wire.send(t, two, newAssertion(signer)) == ""
			})
			expect("after Redis came back", one, used, "invalid_client")
			expect("after Redis came back, at the other", two, used, "invalid_client")
			expect("one that was refused meanwhile", two, kept, "")
			expect("that one again", one, kept, "invalid_client")

			// A Redis that lost its data has no clients either.
			redis.Stop()
			redis.Wipe()
			redis.Start()
			must.Eventually(t, "the client is gone", func() bool { return wire.send(t, one, newAssertion(signer)) == "invalid_client" })
			expect("after Redis lost its data", one, used, "invalid_client")
			expect("a new one after Redis lost its data", one, newAssertion(signer), "invalid_client")
		})
	}
}

// keyPlace serves the keys of a client at a URL.
type keyPlace struct {
	*httptest.Server

	answer atomic.Pointer[http.HandlerFunc]
}

func newKeyPlace(t *testing.T) *keyPlace {
	t.Helper()
	p := &keyPlace{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*p.answer.Load())(w, r) }))
	t.Cleanup(p.Close)
	return p
}

func (p *keyPlace) answers(f http.HandlerFunc) { p.answer.Store(&f) }

// TestAssertionKeysAtURL has a client whose keys are at a URL, and servers there that misbehave.
func TestAssertionKeysAtURL(t *testing.T) {
	signer := jwstest.NewSigner("ES256")
	good := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, jwstest.Set(signer)) }
	var reached atomic.Bool
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Store(true)
		good(w, r)
	}))
	t.Cleanup(private.Close)
	place := newKeyPlace(t)
	start := func(t *testing.T, args ...string) *servetest.Replica {
		t.Helper()
		return servetest.Dev(t, append([]string{"--issuer=" + keyedIssuer, "--log-level=error", "--apply=" + keyedManifest(t, "jwks_uri: \""+place.URL+"/jwks\"")}, args...)...)
	}
	for _, wire := range assertionWires {
		t.Run(wire.name, func(t *testing.T) {
			place.answers(good)
			if got := wire.send(t, start(t), newAssertion(signer)); got != "temporarily_unavailable" {
				t.Errorf("a place that is not public: got %q", got)
			}
			allowed := start(t, "--fetch-networks=127.0.0.0/8")
			if got := wire.send(t, allowed, newAssertion(signer)); got != "" {
				t.Errorf("a place in a network that is allowed: got %q", got)
			}
			place.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
			if got := wire.send(t, allowed, newAssertion(signer)); got != "" {
				t.Errorf("a place that fails later: got %q", got)
			}
			if got := wire.send(t, allowed, newAssertion(jwstest.NewSigner("ES256"))); got != "invalid_client" {
				t.Errorf("an unknown key: got %q", got)
			}
			for name, answer := range map[string]http.HandlerFunc{
				"a redirect": func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, strings.Replace(private.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1), http.StatusFound)
				},
				"10 MB":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat(" ", 10<<20)) },
				"another thing": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
				"an error":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
			} {
				place.answers(answer)
				if got := wire.send(t, start(t, "--fetch-networks=127.0.0.0/8"), newAssertion(signer)); got != "temporarily_unavailable" {
					t.Errorf("%s: got %q", name, got)
				}
			}
			if reached.Load() {
				t.Error("a redirect was followed")
			}
		})
	}
}
