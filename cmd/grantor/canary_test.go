package main

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"

	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/redistest"
)

// mark is part of every canary, so that a fragment of one is found too. Nothing else contains it.
const mark = "kAnArY"

// canary returns a value for a secret field. The values for different purposes differ.
func canary(what string) string { return mark + "-" + what + "-0123456789abcdef" }

// canaries are the texts that must not leak.
type canaries struct {
	// forms maps each text, in each encoding, to its description.
	forms map[string]string
}

func newCanaries() *canaries {
	c := &canaries{forms: make(map[string]string)}
	c.add("a canary", mark)
	return c
}

// add adds a secret, as it is and in base64. The base64 forms cover each offset modulo 3 at which the secret can begin in
// a longer text.
func (c *canaries) add(what, secret string) {
	c.forms[secret] = what
	for shift := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte("xx"[:shift%3] + secret))
		from, to := []int{0, 2, 3}[shift], len(encoded)-2
		for _, form := range []string{encoded[from:to], strings.NewReplacer("+", "-", "/", "_").Replace(encoded[from:to])} {
			c.forms[form] = what + " in base64"
		}
	}
}

// find returns a description of each canary in a text, with the text around it.
func (c *canaries) find(text string) []string {
	const around = 80
	var found []string
	for form, what := range c.forms {
		if i := strings.Index(text, form); i >= 0 {
			found = append(found, fmt.Sprintf("%s: %q", what, text[max(0, i-around):min(len(text), i+len(form)+around)]))
		}
	}
	return found
}

// TestCanaryScan expects find to find secrets and nothing else: otherwise TestCanaries would prove nothing.
func TestCanaryScan(t *testing.T) {
	c := newCanaries()
	c.add("a generated secret", "grantor_cs_abcdefgh")
	for _, leak := range []string{
		canary("x"), "grantor_cs_abcdefgh", base64.StdEncoding.EncodeToString([]byte("id:" + canary("x"))),
		base64.URLEncoding.EncodeToString([]byte(`{"a":"grantor_cs_abcdefgh"}`)), base64.StdEncoding.EncodeToString([]byte("ab:grantor_cs_abcdefgh")),
		base64.StdEncoding.EncodeToString([]byte("a:grantor_cs_abcdefgh")),
	} {
		if len(c.find("before "+leak+" behind")) == 0 {
			t.Errorf("%q is not found", leak)
		}
	}
	if found := c.find("grantor_cs_ canary KANARY " + base64.StdEncoding.EncodeToString([]byte("nothing secret"))); len(found) > 0 {
		t.Errorf("found %v in a text without secrets", found)
	}
}

// leakTest is a running issuer whose secret fields hold canaries, and everything that it outputs.
type leakTest struct {
	*servetest.Replica
	*canaries

	t      *testing.T
	client *http.Client
	conn   *grpc.ClientConn
	// args are the arguments of the server, and redis is its store.
	args  []string
	redis *redistest.Server
	// collector receives all traces and metrics.
	collector *servetest.Collector
	// answers are the responses to clients, except for the secrets that were generated for them.
	answers bytes.Buffer
	// calls counts the calls. paced is when the last one was made of which pace counts in seconds.
	calls int
	paced time.Time
}

// TestCanaries puts a distinct value into every secret field, in valid and in invalid requests, and expects none of them in
// any output that others may read. The server is a real one with its three ports, TLS and a real Redis.
func TestCanaries(t *testing.T) {
	for name, more := range map[string][]string{"production": {}, "development": {"--dev"}} {
		t.Run(name, func(t *testing.T) {
			s := newLeakTest(t, more...)
			s.overREST()
			s.overConnect()
			boss := s.token("administrator", canary("administrator"))
			s.administerREST(boss)
			s.overGRPC(boss)
			s.panics()
			s.reflects()
			s.commands()
			s.startsWrong()
			places := s.places()
			for _, place := range slices.Sorted(maps.Keys(places)) {
				text := places[place]
				if text == "" {
					t.Errorf("%s is empty, so nothing was checked", place)
				}
				for _, what := range s.find(text) {
					t.Errorf("%s contains %s", place, what)
				}
			}
		})
	}
}

// newLeakTest starts the issuer with canaries in its settings and its manifest.
func newLeakTest(t *testing.T, more ...string) *leakTest {
	t.Helper()
	clitest.Isolate(t)
	s := &leakTest{t: t, canaries: newCanaries(), redis: redistest.New(t), collector: servetest.NewCollector(t)}
	s.must(s.redis.Client().Do(t.Context(), "ACL", "SETUSER", "grantor", "on", ">"+canary("redis"), "~*", "&*", "+@all").Err())
	ours := servetest.NewAuthority(t)
	cert, key := ours.WriteLeaf(t, t.TempDir(), 2)
	keyPEM, err := os.ReadFile(key)
	s.must(err)
	s.add("the key of the certificate", strings.Split(string(keyPEM), "\n")[1])
	t.Setenv("CANARY_SECRET", canary("in-env"))
	manifest := servetest.WriteFile(t, "clients.yaml", `
resources:
  - {resource: "https://orders.internal", scopes: [api1]}
clients:
  - {client_id: in-file, client_secret: `+canary("in-file")+`, scopes: [api1], resources: ["https://orders.internal"]}
  - {client_id: in-env, client_secret_env: CANARY_SECRET, scopes: [api1]}
  - {client_id: in-another-file, client_secret_file: `+servetest.WriteFile(t, "secret", canary("in-another-file"))+`, scopes: [api1]}
  - {client_id: imported, client_secret_hashes: ["`+importedHash(t, canary("imported"))+`"], scopes: [api1]}
  - client_id: administrator
    client_secret: `+canary("administrator")+`
    scopes: [grantor:clients.read, grantor:clients.write, grantor:resources.read, grantor:resources.write, grantor:keys.read, grantor:keys.write]
`)
	kek := []byte(mark + "-key-encryption-key-123456")[:32]
	previous := []byte(mark + "-previous-kek-1234567890123")[:32]
	s.args = append([]string{
		"--redis=redis://grantor:" + canary("redis") + "@" + s.redis.Addr(), "--apply=" + manifest, "--issuer=https://localhost:1",
		"--key-encryption-key=" + encode(kek), "--previous-key-encryption-key-file=" + servetest.WriteFile(t, "previous", encode(previous)),
		"--tls-cert-file=" + cert, "--tls-key-file=" + key, "--log-level=debug",
		"--otlp-endpoint=" + s.collector.URL, "--trace-sampling=1", "--profiling", "--trusted-proxies=127.0.0.1/32",
	}, more...)
	s.Replica = servetest.Start(t, s.args...)
	config := &tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS12}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	s.client, s.conn = &http.Client{Transport: transport}, servetest.DialTLS(t, s.GRPCAddr(), config)
	return s
}

func (s *leakTest) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// places stops the issuer and returns all of its output that others may read, keyed by where it is read.
func (s *leakTest) places() map[string]string {
	t := s.t
	places := make(map[string]string)
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/debug", "/debug/vars", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1"} {
		code, body := servetest.Get(t, "http://"+s.OpsAddr()+path)
		places["the operations port's "+path] = fmt.Sprint(code, body)
	}
	s.Stop()
	<-s.Ended
	places["the log"], places["standard output"] = s.Log.String(), "-"+s.Out.String()
	places["the collector's input"] = s.collector.Text()
	places["the responses to callers"] = s.answers.String()
	places["the audit"] = grantor(t, "audit -n 100000 --redis "+s.redis.URL())
	places["the audit as JSON"] = grantor(t, "audit -n 100000 -o json --redis "+s.redis.URL())
	if strings.Contains(places["the audit"], "audit.left_out") {
		t.Error("audit events were left out, and they could have contained a secret")
	}
	// Redis must contain the hashes of secrets, but no other form of them.
	hashes := maps.Clone(s.forms)
	maps.DeleteFunc(s.forms, func(_, what string) bool { return strings.HasPrefix(what, "a hash") })
	for _, what := range s.find(s.dump()) {
		t.Errorf("Redis contains %s", what)
	}
	s.forms = hashes
	return places
}

// dump returns the whole content of Redis as text.
func (s *leakTest) dump() string {
	client, ctx := s.redis.Client(), s.t.Context()
	keys, err := client.Keys(ctx, "*").Result()
	s.must(err)
	var all strings.Builder
	for _, key := range keys {
		kind, err := client.Type(ctx, key).Result()
		s.must(err)
		var found redis.Cmder
		switch kind {
		case "hash":
			found = client.HGetAll(ctx, key)
		case "zset":
			found = client.ZRange(ctx, key, 0, -1)
		case "stream":
			found = client.XRange(ctx, key, "-", "+")
		default:
			s.t.Fatalf("%s is a %s", key, kind)
		}
		s.must(found.Err())
		_, _ = io.WriteString(&all, found.String())
	}
	if !strings.Contains(all.String(), "over-grpc") || !strings.Contains(all.String(), "token.refused") {
		s.t.Error("the dump lacks the client over-grpc or the event token.refused")
	}
	return all.String()
}

// importedHash returns a hash of a secret as another server stores it.
func importedHash(t *testing.T, secret string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}
