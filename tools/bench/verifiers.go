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
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/oauth"
)

// reached is what the process of the verifiers answers to "revoke N ..." on its standard input.
type reached struct {
	// Took has the milliseconds from the request that revokes to its being in force at a verifier, for each revocation and
	// each verifier.
	Took []float64 `json:"took"`
	// Bytes are what the verifiers received meanwhile, and Seconds is how long it took until all knew all.
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// crowd is many verifiers in one process, and a client that revokes tokens at the first replica.
type crowd struct {
	verifiers []*verify.Verifier
	tokens    grantorv1.TokenServiceClient
	secret    string
	received  atomic.Int64
	// known is how many revocations all verifiers know.
	known int
}

// follow is the process of the verifiers. The arguments are the issuer and the gRPC ports of its replicas, over which the
// verifiers are spread. For each line of input, "one N" or "burst N", it revokes N tokens, one after another or as fast as it
// can, and answers with a line of JSON. The first line of output says that all verifiers follow.
func follow(ctx context.Context, verifiers int, args []string) error {
	if len(args) < 2 {
		return errors.New("-verifiers wants an issuer and the gRPC ports of its replicas")
	}
	c := &crowd{secret: os.Getenv("GRANTOR_CLIENT_SECRET")}
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
	if err := answers.Encode(reached{}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var how string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &how, &n); err != nil {
			return err
		}
		answer, err := c.revoke(ctx, n, how == "burst")
		if err != nil {
			return err
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// dial opens a connection on which what is received counts.
func (c *crowd) dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			return counted{conn, &c.received}, err
		}))
}

// counted counts the bytes that are read.
type counted struct {
	net.Conn

	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// revoke revokes tokens and measures until every verifier knows each.
func (c *crowd) revoke(ctx context.Context, n int, atOnce bool) (*reached, error) {
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
	answer, received, began := &reached{}, c.received.Load(), time.Now()
	group := 1
	if atOnce {
		group = n
	}
	for at := 0; at < n; at += group {
		sent := time.Now()
		if err := c.send(ctx, tokens[at:at+group]); err != nil {
			return nil, err
		}
		took, err := c.await(ctx, sent, c.known+group)
		if err != nil {
			return nil, err
		}
		answer.Took, c.known = append(answer.Took, took...), c.known+group
	}
	answer.Bytes, answer.Seconds = c.received.Load()-received, time.Since(began).Seconds()
	return answer, nil
}

// send revokes tokens, 32 at a time, and waits for the answers.
func (c *crowd) send(ctx context.Context, tokens []string) error {
	var failed atomic.Pointer[error]
	var sending sync.WaitGroup
	places := make(chan struct{}, 32)
	for _, token := range tokens {
		places <- struct{}{}
		sending.Go(func() {
			_, err := c.tokens.RevokeToken(ctx, &grantorv1.RevokeTokenRequest{Token: token, ClientId: loadClient, ClientSecret: c.secret})
			if err != nil {
				failed.Store(&err)
			}
			<-places
		})
	}
	sending.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// await gives for each verifier the milliseconds until it knows so many revocations. It looks every quarter of one.
func (c *crowd) await(ctx context.Context, since time.Time, revocations int) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	waiting := append([]*verify.Verifier(nil), c.verifiers...)
	var took []float64
	for ticker := time.NewTicker(time.Millisecond / 4); len(waiting) > 0; {
		now := float64(time.Since(since).Microseconds()) / 1000
		left := waiting[:0]
		for _, v := range waiting {
			if v.Feed().Live >= revocations {
				took = append(took, now)
			} else {
				left = append(left, v)
			}
		}
		waiting = left
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ticker.Stop()
			return nil, fmt.Errorf("%d verifiers do not know %d revocations: %w", len(waiting), revocations, ctx.Err())
		}
	}
	return took, nil
}

// audience is the process of the verifiers, as its parent sees it.
type audience struct {
	*process

	in  io.WriteCloser
	out *bufio.Reader
}

// stop ends the process by ending its input.
func (a *audience) stop() {
	_ = a.in.Close()
	a.process.stop()
}

// gather starts the process of the verifiers and returns when all follow.
func (l *lab) gather(ctx context.Context, verifiers int, issuer string, replicas ...string) (*audience, error) {
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
	p, err := begin(c)
	if err != nil {
		return nil, err
	}
	a := &audience{p, in, bufio.NewReader(out)}
	if _, err := a.read(); err != nil {
		a.stop()
		return nil, err
	}
	return a, nil
}

// revoke has tokens revoked; how is one or burst.
func (a *audience) revoke(how string, n int) (*reached, error) {
	if _, err := fmt.Fprintln(a.in, how, n); err != nil {
		return nil, err
	}
	return a.read()
}

func (a *audience) read() (*reached, error) {
	line, err := a.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the verifiers: %w", err)
	}
	var answer reached
	return &answer, json.Unmarshal(line, &answer)
}
