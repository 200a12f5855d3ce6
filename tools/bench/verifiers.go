package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/tools/local"
)

// revocationResult is the response of the process of the verifiers to a line on its standard input.
type revocationResult struct {
	// Took lists the milliseconds from the request that revokes until the revocation is in effect at a verifier, for each
	// revocation and each verifier.
	Took []float64 `json:"took"`
	// Bytes is the number of bytes that the verifiers received, and Seconds the time until all of them had received all
	// revocations.
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// verifierGroup is a number of verifiers in one process, and a client that revokes tokens at the first replica.
type verifierGroup struct {
	verifiers []*verify.Verifier
	tokens    grantorv1.TokenServiceClient
	secret    string
	received  atomic.Int64
	// known is the number of revocations that all verifiers have received.
	known int
}

// runVerifiers runs the process of the verifiers. Its arguments are the issuer and the gRPC ports of the replicas, over which
// the verifiers are spread. For each line of input, "one N" or "burst N", it revokes N tokens, one after another or as fast as
// possible, and writes a [revocationResult] as a line of JSON. It writes an empty one first, once all verifiers follow.
//
// With a single argument, the gRPC port of a replica, it runs light followers instead ([runFollowers]), and with "tcp:" before an
// address, connections that are only read from.
func runVerifiers(ctx context.Context, verifiers int, args []string) error {
	if len(args) == 1 {
		if address, ok := strings.CutPrefix(args[0], readersPrefix); ok {
			return runReaders(ctx, verifiers, address)
		}
		return runFollowers(ctx, verifiers, args[0])
	}
	if len(args) < 2 {
		return errors.New("-verifiers requires an issuer and the gRPC ports of its replicas as arguments")
	}
	c := &verifierGroup{secret: os.Getenv("GRANTOR_CLIENT_SECRET")}
	for i := range verifiers {
		conn, err := c.dial(args[1+i%(len(args)-1)])
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		v, err := verify.New(ctx, args[0], verify.Audience(ordersAPI), verify.OverGRPC(conn), verify.HTTPClient(&http.Client{}))
		if err != nil {
			return err
		}
		defer v.Close()
		c.verifiers = append(c.verifiers, v)
	}
	conn, err := grpc.NewClient("passthrough:///"+args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	c.tokens = grantorv1.NewTokenServiceClient(conn)
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(revocationResult{}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var mode string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &mode, &n); err != nil {
			return err
		}
		answer, err := c.revoke(ctx, n, mode == "burst")
		if err != nil {
			return err
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// dial opens a connection whose received bytes are counted.
func (c *verifierGroup) dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			return countingConn{conn, &c.received}, err
		}))
}

// countingConn counts the bytes that are read.
type countingConn struct {
	net.Conn

	bytes *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// revoke revokes n tokens, at once or one after another, and measures the time until every verifier has received each.
func (c *verifierGroup) revoke(ctx context.Context, n int, atOnce bool) (*revocationResult, error) {
	tokens := make([]string, n)
	for i := range tokens {
		issued, err := c.tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: oauth.GrantClientCredentials, ClientId: loadClient, ClientSecret: c.secret, Scope: ordersScope,
		})
		if err != nil {
			return nil, err
		}
		tokens[i] = issued.GetAccessToken()
	}
	answer, received, began := &revocationResult{}, c.received.Load(), time.Now()
	group := 1
	if atOnce {
		group = n
	}
	for at := 0; at < n; at += group {
		sent := time.Now()
		if err := c.send(ctx, tokens[at:at+group]); err != nil {
			return nil, err
		}
		took, err := c.awaitRevocations(ctx, sent, c.known+group)
		if err != nil {
			return nil, err
		}
		answer.Took, c.known = append(answer.Took, took...), c.known+group
	}
	answer.Bytes, answer.Seconds = c.received.Load()-received, time.Since(began).Seconds()
	return answer, nil
}

// send revokes tokens, up to 32 concurrently, and waits for the responses.
func (c *verifierGroup) send(ctx context.Context, tokens []string) error {
	var failed atomic.Pointer[error]
	var sending sync.WaitGroup
	slots := make(chan struct{}, 32)
	for _, token := range tokens {
		slots <- struct{}{}
		sending.Go(func() {
			_, err := c.tokens.RevokeToken(ctx, &grantorv1.RevokeTokenRequest{Token: token, ClientId: loadClient, ClientSecret: c.secret})
			if err != nil {
				failed.Store(&err)
			}
			<-slots
		})
	}
	sending.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// awaitRevocations returns for each verifier the milliseconds until it has received the number of revocations. It polls
// every 0.25 ms.
func (c *verifierGroup) awaitRevocations(ctx context.Context, since time.Time, revocations int) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	waiting := append([]*verify.Verifier(nil), c.verifiers...)
	var took []float64
	ticker := time.NewTicker(time.Millisecond / 4)
	defer ticker.Stop()
	for len(waiting) > 0 {
		now := float64(time.Since(since).Microseconds()) / 1000
		remaining := waiting[:0]
		for _, v := range waiting {
			if v.Feed().Live >= revocations {
				took = append(took, now)
			} else {
				remaining = append(remaining, v)
			}
		}
		waiting = remaining
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%d verifiers have not received %d revocations: %w", len(waiting), revocations, ctx.Err())
		}
	}
	return took, nil
}

// verifierProcess is the process of the verifiers, seen from its parent.
type verifierProcess struct {
	*local.Process

	in  io.WriteCloser
	out *bufio.Reader
	// joined is the number of seconds until all verifiers followed.
	joined float64
}

// stop ends the process by closing its input.
func (a *verifierProcess) stop() {
	_ = a.in.Close()
	a.Stop()
}

// startVerifiers starts the process of the verifiers and returns when all of them follow a replica.
func (l *lab) startVerifiers(ctx context.Context, verifiers int, issuer string, replicas ...string) (*verifierProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append([]string{"-verifiers", strconv.Itoa(verifiers), issuer}, replicas...)
	c := exec.CommandContext(ctx, self, args...) //nolint:gosec // this program
	c.Env = l.env
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := local.StartCommand(c)
	if err != nil {
		return nil, err
	}
	a := &verifierProcess{Process: p, in: in, out: bufio.NewReader(out)}
	first, err := a.read()
	if err != nil {
		a.stop()
		return nil, err
	}
	a.joined = first.Seconds
	return a, nil
}

// revoke makes the process revoke n tokens. mode is one or burst.
func (a *verifierProcess) revoke(mode string, n int) (*revocationResult, error) {
	if _, err := fmt.Fprintln(a.in, mode, n); err != nil {
		return nil, err
	}
	return a.read()
}

// read reads a result.
func (a *verifierProcess) read() (*revocationResult, error) {
	line, err := a.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("reading from the verifiers: %w", err)
	}
	var answer revocationResult
	return &answer, json.Unmarshal(line, &answer)
}
