package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/tokens"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
)

// What a load can be made of.
const (
	operationIssue      = "issue"
	operationIntrospect = "introspect"
	wireGRPC            = "grpc"
	wireREST            = "rest"
)

// load say what calls are made, how many and how fast.
type load struct {
	Operation, Wire       string
	Connections, InFlight int
	Rate                  float64
	Duration, WarmUp      time.Duration
	Calls                 int64
	Scopes, Resources     []string
	Tokens                int
}

// target is what the calls go to. call makes the one of a number over a connection, counted from 0; it gives an empty
// string, or the word that a failure is counted by.
type target struct {
	Call  func(ctx context.Context, connection int, number int64) string
	Alg   string
	Close func()
}

// Reach opens the connections and prepares the calls. It issues one token at least, so that a wrong secret is told before
// any load. Each token has tokenTimeout of its own.
func (l *load) Reach(ctx context.Context, client *remote.Client, callers []caller) (*target, error) {
	wanted := 1
	if l.Operation == operationIntrospect {
		wanted = l.Tokens
		if l.Wire == wireREST && client.Metadata.IntrospectionEndpoint == "" {
			return nil, fmt.Errorf("the description of %s has no introspection_endpoint", client.Metadata.Issuer)
		}
	}
	var tokens []string
	for range wanted {
		token, err := l.token(ctx, client)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, token)
	}
	t := &target{Alg: algorithmOf(tokens[0])}
	if l.Wire == wireREST {
		l.OverREST(t, client, callers, tokens)
		return t, nil
	}
	return t, l.overGRPC(t, client, callers, tokens)
}

// token gets one of those that introspect asks about.
func (l *load) token(ctx context.Context, client *remote.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, remote.Timeout)
	defer cancel()
	_, issued, err := client.Issue(ctx, l.Scopes, l.Resources)
	if err != nil {
		return "", err
	}
	return issued.Token, nil
}

// algorithmOf gives the alg of a token's header (RFC 7515 §4.1.1), for the report.
func algorithmOf(raw string) string {
	decoded, err := tokens.Decode(raw)
	if err != nil {
		return "unknown"
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	if json.Unmarshal(decoded.Header, &header) != nil {
		return "unknown"
	}
	return cli.Printable(header.Algorithm)
}

func (l *load) overGRPC(t *target, client *remote.Client, callers []caller, tokens []string) error {
	var conns []*grpc.ClientConn
	t.Close = func() { closeAll(conns) }
	var stubs []grantorv1.TokenServiceClient
	for range l.Connections {
		conn, err := client.DialGRPC()
		if err != nil {
			t.Close()
			return err
		}
		conns = append(conns, conn)
		stubs = append(stubs, grantorv1.NewTokenServiceClient(conn))
	}
	scope := strings.Join(l.Scopes, " ")
	t.Call = func(ctx context.Context, connection int, number int64) string {
		c := &callers[number%int64(len(callers))]
		answer, err := stubs[connection].IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: oauth.GrantClientCredentials, ClientId: c.ID, ClientSecret: c.Secret, Scope: scope, Resource: l.Resources,
		})
		if err == nil && answer.GetAccessToken() == "" {
			return noToken
		}
		return failureOf(err)
	}
	if l.Operation == operationIntrospect {
		t.Call = func(ctx context.Context, connection int, number int64) string {
			c := &callers[0]
			answer, err := stubs[connection].IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{
				Token: tokens[number%int64(len(tokens))], ClientId: c.ID, ClientSecret: c.Secret,
			})
			if err == nil && !answer.GetActive() {
				return inactive
			}
			return failureOf(err)
		}
	}
	return nil
}

// closeAll closes connections, and does not wait long: gRPC takes up to 5 s over one on which the end cut off a call.
func closeAll(conns []*grpc.ClientConn) {
	closed := make(chan struct{}, len(conns))
	for _, conn := range conns {
		go func() {
			_ = conn.Close()
			closed <- struct{}{}
		}()
	}
	enough := time.After(time.Second)
	for range conns {
		select {
		case <-closed:
		case <-enough:
			return
		}
	}
}

// What an answer comes to that is none of those that are wanted.
const (
	inactive = "inactive"
	noToken  = "no token"
)

// failureOf names a failed gRPC call by its code.
func failureOf(err error) string {
	if err == nil {
		return ""
	}
	return status.Code(err).String()
}

func (l *load) OverREST(t *target, client *remote.Client, callers []caller, tokens []string) {
	perConnection := (l.InFlight + l.Connections - 1) / l.Connections
	transports := make([]*http.Transport, l.Connections)
	for i := range transports {
		transports[i] = &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: perConnection, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		}
	}
	t.Close = func() {
		for _, transport := range transports {
			transport.CloseIdleConnections()
		}
	}
	place, forms, lacks := client.Metadata.TokenEndpoint, make([][]byte, len(callers)), lacksToken
	for i, c := range callers {
		form := url.Values{"grant_type": {oauth.GrantClientCredentials}, "client_id": {c.ID}, "client_secret": {c.Secret}}
		if len(l.Scopes) > 0 {
			form.Set("scope", strings.Join(l.Scopes, " "))
		}
		form["resource"] = l.Resources
		forms[i] = []byte(form.Encode())
	}
	if l.Operation == operationIntrospect {
		place, forms, lacks = client.Metadata.IntrospectionEndpoint, make([][]byte, len(tokens)), isInactive
		for i, token := range tokens {
			forms[i] = []byte(url.Values{"token": {token}, "client_id": {callers[0].ID}, "client_secret": {callers[0].Secret}}.Encode())
		}
	}
	t.Call = func(ctx context.Context, connection int, number int64) string {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, place, bytes.NewReader(forms[number%int64(len(forms))]))
		if err != nil {
			return "request"
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := transports[connection].RoundTrip(request)
		if err != nil {
			return "connection"
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(answer.Body, mostBody))
		if err != nil {
			return "connection"
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Sprintf("HTTP %d", answer.StatusCode)
		}
		return lacks(body)
	}
}

// mostBody is how much is read of an answer over REST, in bytes. One that is longer fails.
const mostBody = 1 << 20

// lacksToken looks into an answer of the token endpoint.
func lacksToken(body []byte) string {
	var answer struct {
		Token string `json:"access_token"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Token == "" {
		return noToken
	}
	return ""
}

// isInactive looks into an answer of the introspection endpoint.
func isInactive(body []byte) string {
	var answer struct {
		Active bool `json:"active"`
	}
	if json.Unmarshal(body, &answer) != nil || !answer.Active {
		return inactive
	}
	return ""
}

// The bounds of what the histograms hold, in microseconds, and their precision in digits.
const (
	least, most = 1, int64(10 * time.Minute / time.Microsecond)
	digits      = 3
)

// tally keeps what came of calls.
type tally struct {
	mu       sync.Mutex
	latency  *hdrhistogram.Histogram
	failures map[string]int64
	// cutOff is how many calls the end cut off, and oldest how long the longest of them had been under way.
	cutOff int64
	oldest time.Duration
}

// mostTallies bounds the memory of a load, as a tally takes about 170 kB. Up to so many calls in flight have one each, so
// that measuring makes none wait for another.
const mostTallies = 64

// add keeps what came of a call.
func (r *tally) add(failure string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failure != "" {
		r.failures[failure]++
		return
	}
	_ = r.latency.RecordValue(min(max(took.Microseconds(), least), most))
}

// cut keeps that the end cut off a call.
func (r *tally) cut(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cutOff++
	r.oldest = max(r.oldest, took)
}

// underWay is what the workers of a load share.
type underWay struct {
	start, measured time.Time
	// between is the time from one call to the next in an open loop, in nanoseconds; else 0.
	between float64
	number  atomic.Int64 // of the next call
	// answered and failed count during the warm-up too.
	answered, failed atomic.Int64
}

// Run makes the load and measures it. It ends early when ctx does, or when all calls of a limited number are made.
func (l *load) Run(ctx context.Context, t *target, progress func(string)) *result {
	start := time.Now()
	u := &underWay{start: start, measured: start.Add(l.WarmUp)}
	end := u.measured.Add(l.Duration)
	// The end cancels what is under way. As a deadline it would go to the server, which would answer before the end is here.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(time.Until(end), cancel).Stop()
	if l.Rate > 0 {
		u.between = float64(time.Second) / l.Rate
	}
	tallies := make([]tally, min(l.InFlight, mostTallies))
	for i := range tallies {
		tallies[i].latency, tallies[i].failures = hdrhistogram.New(least, most, digits), map[string]int64{}
	}
	var working sync.WaitGroup
	for i := range l.InFlight {
		working.Go(func() {
			for l.next(ctx, t, u, &tallies[i%len(tallies)], i%l.Connections) {
			}
		})
	}
	stop := tell(ctx, start, l.WarmUp, &u.answered, &u.failed, progress)
	working.Wait()
	stop()
	return l.Result(tallies, t, min(time.Since(u.measured), l.Duration))
}

// next makes the next call, when it is due, and keeps what came of it; false where there is none any more.
func (l *load) next(ctx context.Context, t *target, u *underWay, r *tally, connection int) bool {
	n := u.number.Add(1) - 1
	if ctx.Err() != nil || l.Calls > 0 && n >= l.Calls {
		return false
	}
	began := time.Now()
	if u.between > 0 {
		began = u.start.Add(time.Duration(float64(n) * u.between))
		if began.Before(u.measured) && !time.Now().Before(u.measured) {
			return true // what the warm-up has left undone would keep what is measured waiting
		}
		if !sleepUntil(ctx, began) {
			return false
		}
	}
	failure := t.Call(ctx, connection, n)
	took := time.Since(began)
	if ctx.Err() != nil {
		r.cut(took) // neither an answer nor a failure
		return false
	}
	if failure == "" {
		u.answered.Add(1)
	} else {
		u.failed.Add(1)
	}
	if !began.Before(u.measured) {
		r.add(failure, took)
	}
	return true
}

// Due gives how many calls an open loop had to begin while it was measured for a time, after the warm-up.
func (l *load) Due(measured time.Duration) int64 {
	// A call is due at each multiple of the distance, so also right at the start. What is a whole number but for the
	// rounding of fractions counts as one.
	until := func(moment time.Duration) int64 { return int64(math.Ceil(moment.Seconds()*l.Rate - 1e-6)) }
	begun, all := until(l.WarmUp), until(l.WarmUp+measured)
	if l.Calls > 0 {
		begun, all = min(begun, l.Calls), min(all, l.Calls)
	}
	return all - begun
}

// sleepUntil waits for a moment; false where ctx ended first.
func sleepUntil(ctx context.Context, moment time.Time) bool {
	wait := time.Until(moment)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tell shows each second how it goes, until the function that it gives is called.
func tell(ctx context.Context, start time.Time, warmUp time.Duration, answered, failed *atomic.Int64, progress func(string)) func() {
	done := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		before := int64(0)
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			now := answered.Load()
			phase := ""
			if time.Since(start) < warmUp {
				phase = "  (warm-up)"
			}
			progress(fmt.Sprintf("%4.0fs  %8d/s  %d failed%s", time.Since(start).Seconds(), now-before, failed.Load(), phase))
			before = now
		}
	})
	return func() { close(done); telling.Wait() }
}
