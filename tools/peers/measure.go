package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/tools/bench/loader"
	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// contestant is a server under some settings.
type contestant struct {
	name, settings string
	// algorithm is that of the tokens, or opaque.
	algorithm string
	// work says what is stored, and how the secret is checked, for each token.
	work string
	// java says that the program gets faster while it runs.
	java  bool
	start func(context.Context, *lab) (*server, error)
}

const opaque = "opaque"

// contestants lists the servers in the order of the report.
var contestants = []contestant{
	{"Grantor", "defaults", "ES256", grantorWork, false, grantor("ES256", false)},
	{"Grantor, gRPC", "defaults", "ES256", grantorWork, false, grantor("ES256", true)},
	{"Grantor", "RS256", "RS256", grantorWork, false, grantor("RS256", false)},
	{"Grantor", "EdDSA", "EdDSA", grantorWork, false, grantor("EdDSA", false)},
	{"Hydra", "defaults", opaque, "token stored in SQLite in memory; secret hashed with PBKDF2, 25,000 iterations", false, hydra(false)},
	{"Hydra", "best: JWT, cheapest hash", "ES256", "token stored in SQLite in memory, signing key read and decrypted; secret hashed with PBKDF2, 1 iteration", false, hydra(true)},
	{"Keycloak", "defaults", "RS256", "nothing stored; secret compared as text", true, keycloak(false)},
	{"Keycloak", "best: ES256, one scope", "ES256", "nothing stored; secret compared as text", true, keycloak(true)},
	{"Spring", "defaults", "RS256", "token kept in a map in memory; secret hashed with bcrypt, cost 10", true, spring(false)},
	{"Spring", "best: ES256, secret in text, virtual threads, no map", "ES256", "nothing stored; secret compared as text", true, spring(true)},
}

const grantorWork = "token not stored, audit event in Redis; secret hashed with HMAC-SHA-256"

// result is what was measured of a contestant.
type result struct {
	*contestant

	server *server
	// start is in seconds, and idle and peak are in bytes.
	start, idle, peak    float64
	rates, cpu, p50, p99 []float64
}

// measure starts all servers, which are idle beside the one that is measured, and measures them in turn.
func (l *lab) measure(ctx context.Context) (results []*result, err error) {
	defer func() {
		for _, r := range results {
			r.server.stop()
		}
	}()
	for i := range contestants {
		c := &contestants[i]
		if !l.only.MatchString(c.name + ", " + c.settings) {
			continue
		}
		r := &result{contestant: c}
		if r.server, err = c.start(ctx, l); r.server != nil {
			results = append(results, r)
		}
		if err == nil {
			err = l.warm(ctx, r)
		}
		if err != nil {
			return results, fmt.Errorf("%s, %s: %w", c.name, c.settings, err)
		}
	}
	if len(results) == 0 {
		return nil, errors.New("-only matches no server")
	}
	order := slices.Clone(results)
	for range l.rounds {
		for _, r := range order {
			if err := l.round(ctx, r); err != nil {
				return results, fmt.Errorf("%s, %s: %w", r.name, r.settings, err)
			}
		}
		slices.Reverse(order)
	}
	for _, r := range results {
		if r.peak, err = r.server.memory("VmHWM"); err != nil {
			return results, err
		}
	}
	return results, nil
}

// warm waits for the first token of a server, whose time it records with the memory of the idle server, and puts a load on the
// server that is not measured.
func (l *lab) warm(ctx context.Context, r *result) (err error) {
	s := r.server
	if err := s.await(ctx, func(ctx context.Context) error { return s.check(ctx, l.secret, r.algorithm) }); err != nil {
		return err
	}
	r.start = time.Since(s.began).Seconds()
	if s.script {
		pid, err := s.processes[0].Child()
		if err != nil {
			return err
		}
		s.pids = []int{pid}
	}
	local.Sleep(ctx, l.settle)
	if r.idle, err = s.memory("VmRSS"); err != nil {
		return err
	}
	load, err := s.load(l.secret)
	if err != nil {
		return err
	}
	warmUp := l.warmUp
	if !r.java {
		warmUp /= 10
	}
	warm, err := load.Run(ctx, loader.Timing{Duration: warmUp}, s.cpu)
	if err == nil {
		progressf("%s, %s: first token after %.2f s, %s idle, %.0f tokens/s while warming up", r.name, r.settings, r.start, figures.Megabytes(r.idle), float64(warm.Calls)/warm.Seconds)
	}
	return err
}

// round measures a server once.
func (l *lab) round(ctx context.Context, r *result) error {
	load, err := r.server.load(l.secret)
	if err != nil {
		return err
	}
	window := min(l.duration, time.Second) / 2
	m, err := load.Run(ctx, loader.Timing{Window: window, WarmUp: 6 * window, Duration: l.duration}, r.server.cpu)
	if err != nil {
		return err
	}
	r.rates = append(r.rates, float64(m.Calls)/m.Seconds)
	r.cpu = append(r.cpu, float64(m.CPU.Microseconds())/float64(m.Calls))
	r.p50 = append(r.p50, figures.Percentile(m.Latencies, 50))
	r.p99 = append(r.p99, figures.Percentile(m.Latencies, 99))
	progressf("%s, %s: %.0f tokens/s, %.0f µs of processor time each", r.name, r.settings, r.rates[len(r.rates)-1], r.cpu[len(r.cpu)-1])
	return nil
}

// cpu returns the processor time that the server has used.
func (s *server) cpu() (sum time.Duration, err error) {
	for _, pid := range s.pids {
		used, err := local.CPUOf(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// memory returns a field of /proc/PID/status, in bytes.
func (s *server) memory(field string) (sum float64, err error) {
	for _, pid := range s.pids {
		used, err := local.MemoryOf(pid, field)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// The connections of HTTP/1.1, and of gRPC with the calls in flight on each: 32 calls in both cases.
const connections, grpcConnections = 32, 4

// load returns the load of requests for a token.
func (s *server) load(secret string) (*loader.Load, error) {
	if s.grpc != "" {
		message, err := proto.Marshal(&grantorv1.IssueTokenRequest{
			GrantType: oauth.GrantClientCredentials, ClientId: client, ClientSecret: secret, Scope: scope, Resource: []string{audience},
		})
		request := loader.Request(message)
		return loader.GRPC(s.grpc, grantorv1.TokenService_IssueToken_FullMethodName, grpcConnections, connections/grpcConnections, func() []byte { return request }), err
	}
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		s.path, s.address, basic(secret), len(s.form), s.form)
	return loader.HTTP1(s.address, connections, func() []byte { return request }), nil
}

// basic returns the header that authenticates the client.
func basic(secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(client+":"+secret))
}

// check requests a token, which must have the algorithm.
func (s *server) check(ctx context.Context, secret, algorithm string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+s.path, strings.NewReader(s.form))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Authorization", basic(secret))
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("got %s: %s", answer.Status, body)
	}
	got, err := algorithmOf(body)
	if err == nil && got != algorithm {
		err = fmt.Errorf("got a token of %s, want %s", got, algorithm)
	}
	return err
}

// algorithmOf returns the algorithm of the token in a response, or opaque for one that is no JWT.
func algorithmOf(response []byte) (string, error) {
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(response, &answer); err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", fmt.Errorf("the response has no token: %.100q", response)
	}
	encoded, _, _ := strings.Cut(answer.Token, ".")
	var header struct {
		Algorithm string `json:"alg"`
	}
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || json.Unmarshal(decoded, &header) != nil || header.Algorithm == "" {
		return opaque, nil //nolint:nilerr // what is not a JWT is opaque
	}
	return header.Algorithm, nil
}
