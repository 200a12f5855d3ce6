package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

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

// loadSettings say what calls are made, how many and how fast.
type loadSettings struct {
	operation, wire       string
	connections, inFlight int
	rate                  float64
	duration, warmUp      time.Duration
	calls                 int64
	scopes, resources     []string
	tokens                int
}

// target is what the calls go to. call makes the one of a number over a connection, counted from 0; it gives an empty
// string, or the word that a failure is counted by.
type target struct {
	call  func(ctx context.Context, connection int, number int64) string
	alg   string
	close func()
}

// reach opens the connections and prepares the calls. It issues one token at least, so that a wrong secret is told before
// any load.
func (l *loadSettings) reach(ctx context.Context, client *tokenClient, callers []caller) (*target, error) {
	_, first, err := client.issue(ctx, l.scopes, l.resources)
	if err != nil {
		return nil, err
	}
	tokens := []string{first.Token}
	for len(tokens) < l.tokens && l.operation == operationIntrospect {
		_, next, err := client.issue(ctx, l.scopes, l.resources)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, next.Token)
	}
	t := &target{alg: algorithmOf(first.Token)}
	if l.wire == wireREST {
		l.overREST(t, client, callers, tokens)
		return t, nil
	}
	return t, l.overGRPC(t, client, callers, tokens)
}

// algorithmOf gives the alg of a token's header (RFC 7515 §4.1.1), for the report.
func algorithmOf(raw string) string {
	decoded, err := decodeToken(raw)
	if err != nil {
		return "unknown"
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	if json.Unmarshal(decoded.Header, &header) != nil {
		return "unknown"
	}
	return visible(header.Algorithm)
}

func (l *loadSettings) overGRPC(t *target, client *tokenClient, callers []caller, tokens []string) error {
	var conns []*grpc.ClientConn
	t.close = func() { closeAll(conns) }
	var stubs []grantorv1.TokenServiceClient
	for range l.connections {
		conn, err := client.dial()
		if err != nil {
			t.close()
			return err
		}
		conns = append(conns, conn)
		stubs = append(stubs, grantorv1.NewTokenServiceClient(conn))
	}
	scope := strings.Join(l.scopes, " ")
	t.call = func(ctx context.Context, connection int, number int64) string {
		c := &callers[number%int64(len(callers))]
		_, err := stubs[connection].IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: oauth.GrantClientCredentials, ClientId: c.id, ClientSecret: c.secret, Scope: scope, Resource: l.resources,
		})
		return failureOf(err)
	}
	if l.operation == operationIntrospect {
		t.call = func(ctx context.Context, connection int, number int64) string {
			c := &callers[0]
			answer, err := stubs[connection].IntrospectToken(ctx, &grantorv1.IntrospectTokenRequest{
				Token: tokens[number%int64(len(tokens))], ClientId: c.id, ClientSecret: c.secret,
			})
			if err == nil && !answer.GetActive() {
				return "inactive"
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

// failureOf names a failed gRPC call by its code.
func failureOf(err error) string {
	if err == nil {
		return ""
	}
	return status.Code(err).String()
}

func (l *loadSettings) overREST(t *target, client *tokenClient, callers []caller, tokens []string) {
	perConnection := (l.inFlight + l.connections - 1) / l.connections
	transports := make([]*http.Transport, l.connections)
	for i := range transports {
		transports[i] = &http.Transport{
			MaxIdleConnsPerHost: perConnection, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		}
	}
	t.close = func() {
		for _, transport := range transports {
			transport.CloseIdleConnections()
		}
	}
	place, forms := client.found.TokenEndpoint, make([][]byte, len(callers))
	for i, c := range callers {
		form := url.Values{"grant_type": {oauth.GrantClientCredentials}, "client_id": {c.id}, "client_secret": {c.secret}}
		if len(l.scopes) > 0 {
			form.Set("scope", strings.Join(l.scopes, " "))
		}
		form["resource"] = l.resources
		forms[i] = []byte(form.Encode())
	}
	if l.operation == operationIntrospect {
		place, forms = client.found.IntrospectionEndpoint, make([][]byte, len(tokens))
		for i, token := range tokens {
			forms[i] = []byte(url.Values{"token": {token}, "client_id": {callers[0].id}, "client_secret": {callers[0].secret}}.Encode())
		}
	}
	t.call = func(ctx context.Context, connection int, number int64) string {
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
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return "connection"
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Sprintf("HTTP %d", answer.StatusCode)
		}
		return ""
	}
}

// The bounds of what the histograms hold, in microseconds, and their precision in digits.
const (
	least, most = 1, int64(time.Minute / time.Microsecond)
	digits      = 3
)

// worker makes one call after the other and keeps what came of them. Each has its own figures, so that measuring makes no
// worker wait for another.
type worker struct {
	latency  *hdrhistogram.Histogram
	failures map[string]int64
}

// underWay is what the workers of a load share.
type underWay struct {
	start, measured time.Time
	// between is the time from one call to the next in an open loop; else 0.
	between time.Duration
	number  atomic.Int64 // of the next call
	// answered and failed count during the warm-up too.
	answered, failed atomic.Int64
}

// run makes the load and measures it. It ends early when ctx does, or when all calls of a limited number are made.
func (l *loadSettings) run(ctx context.Context, t *target, progress func(string)) *benchResult {
	start := time.Now()
	u := &underWay{start: start, measured: start.Add(l.warmUp)}
	end := u.measured.Add(l.duration)
	// The end cancels what is under way. As a deadline it would go to the server, which would answer before the end is here.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(time.Until(end), cancel).Stop()
	if l.rate > 0 {
		u.between = time.Duration(float64(time.Second) / l.rate)
	}
	workers := make([]worker, l.inFlight)
	var working sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		w.latency, w.failures = hdrhistogram.New(least, most, digits), map[string]int64{}
		working.Go(func() {
			for l.next(ctx, t, u, w, i%l.connections) {
			}
		})
	}
	stop := tell(ctx, start, l.warmUp, &u.answered, &u.failed, progress)
	working.Wait()
	stop()
	return l.result(workers, t, min(time.Since(u.measured), l.duration))
}

// next makes the next call, when it is due, and keeps what came of it; false where there is none any more.
func (l *loadSettings) next(ctx context.Context, t *target, u *underWay, w *worker, connection int) bool {
	n := u.number.Add(1) - 1
	if ctx.Err() != nil || l.calls > 0 && n >= l.calls {
		return false
	}
	began := time.Now()
	if u.between > 0 {
		began = u.start.Add(time.Duration(n) * u.between)
		if !sleepUntil(ctx, began) {
			return false
		}
	}
	failure := t.call(ctx, connection, n)
	took := time.Since(began)
	if ctx.Err() != nil {
		return false // cut off by the end, so neither an answer nor a failure
	}
	if failure == "" {
		u.answered.Add(1)
	} else {
		u.failed.Add(1)
	}
	switch {
	case began.Before(u.measured):
	case failure != "":
		w.failures[failure]++
	default:
		_ = w.latency.RecordValue(min(max(took.Microseconds(), least), most))
	}
	return true
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
