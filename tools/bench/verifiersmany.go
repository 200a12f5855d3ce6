package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// followResult is the response of the process of the followers to a line on its standard input.
type followResult struct {
	// Last lists the milliseconds from the request that revokes until the last follower has received the revocation.
	Last []float64 `json:"last"`
	// Responses is the number of responses that all followers have received since the line.
	Responses int64 `json:"responses"`
	// Seconds is the time until all followers had what they follow.
	Seconds float64 `json:"seconds"`
}

// followers are streams of the revocations in one process, each with its own connection. They hold no more of a verifier than
// that, so that one machine can run thousands.
type followers struct {
	n         int
	tokens    grantorv1.TokenServiceClient
	secret    string
	responses atomic.Int64
	complete  atomic.Int64
	failed    atomic.Pointer[error]

	mu sync.Mutex
	// pending has the revocations that some followers have not received, keyed by the "jti" of the token.
	pending map[string]*pendingRevocation
	last    []float64
}

// pendingRevocation is a revocation that some followers have not received.
type pendingRevocation struct {
	sent    time.Time
	missing int
}

// runFollowers runs n followers of a replica. For each line of input, "idle SECONDS" or "revoke N", it waits, or revokes N tokens
// at a rate of 10 a second, and writes a [followResult] as a line of JSON. It writes one first, once all follow.
func runFollowers(ctx context.Context, n int, address string) error {
	f := &followers{n: n, secret: os.Getenv("GRANTOR_CLIENT_SECRET"), pending: make(map[string]*pendingRevocation)}
	began := time.Now()
	var dialing errgroup.Group
	dialing.SetLimit(64)
	for range n {
		dialing.Go(func() error { return f.follow(ctx, address) })
	}
	if err := dialing.Wait(); err != nil {
		return err
	}
	for f.complete.Load() < int64(n) {
		if err := f.failed.Load(); err != nil {
			return *err
		}
		local.Sleep(ctx, time.Millisecond)
	}
	conn, err := dialFollower(address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	f.tokens = grantorv1.NewTokenServiceClient(conn)
	results := json.NewEncoder(os.Stdout)
	if err := results.Encode(followResult{Seconds: time.Since(began).Seconds()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		result, err := f.answer(ctx, lines.Text())
		if err != nil {
			return err
		}
		if err := results.Encode(result); err != nil {
			return err
		}
	}
	return nil
}

// dialFollower opens a connection with the small buffers that a follower needs.
func dialFollower(address string) (*grpc.ClientConn, error) {
	const window = 1 << 20
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithReadBufferSize(1<<10),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window))
}

// follow begins to follow a replica over a connection of its own.
func (f *followers) follow(ctx context.Context, address string) error {
	conn, err := dialFollower(address)
	if err != nil {
		return err
	}
	stream, err := grantorv1.NewRevocationServiceClient(conn).WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{HeartbeatIntervalMs: 2000})
	if err != nil {
		return err
	}
	go func() {
		defer func() { _ = conn.Close() }()
		for complete := false; ; {
			response, err := stream.Recv()
			if err != nil {
				f.failed.Store(&err)
				return
			}
			f.responses.Add(1)
			if !complete && response.GetComplete() {
				complete = true
				f.complete.Add(1)
			}
			if len(response.GetTokens()) > 0 {
				f.received(response.GetTokens())
			}
		}
	}()
	return nil
}

// received records that a follower has received revocations.
func (f *followers) received(tokens []*grantorv1.RevokedToken) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, token := range tokens {
		p, ok := f.pending[token.GetJti()]
		if !ok {
			continue
		}
		if p.missing--; p.missing == 0 {
			f.last = append(f.last, float64(now.Sub(p.sent).Microseconds())/1000)
			delete(f.pending, token.GetJti())
		}
	}
}

// answer does what a line of input says.
func (f *followers) answer(ctx context.Context, line string) (*followResult, error) {
	var mode string
	var n int
	if _, err := fmt.Sscan(line, &mode, &n); err != nil {
		return nil, err
	}
	before, began := f.responses.Load(), time.Now()
	if mode == "idle" {
		local.Sleep(ctx, time.Duration(n)*time.Second)
	} else if err := f.revoke(ctx, n); err != nil {
		return nil, err
	}
	result := &followResult{Responses: f.responses.Load() - before, Seconds: time.Since(began).Seconds()}
	f.mu.Lock()
	defer f.mu.Unlock()
	result.Last, f.last = f.last, nil
	if err := f.failed.Load(); err != nil {
		return nil, *err
	}
	return result, nil
}

// revoke revokes n tokens, 10 a second, and waits until all followers have received all.
func (f *followers) revoke(ctx context.Context, n int) error {
	const rate = 10
	ticker := time.NewTicker(time.Second / rate)
	defer ticker.Stop()
	for range n {
		issued, err := f.tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: oauth.GrantClientCredentials, ClientId: loadClient, ClientSecret: f.secret, Scope: ordersScope,
		})
		if err != nil {
			return err
		}
		id, err := tokenID(issued.GetAccessToken())
		if err != nil {
			return err
		}
		<-ticker.C
		f.mu.Lock()
		f.pending[id] = &pendingRevocation{time.Now(), f.n}
		f.mu.Unlock()
		_, err = f.tokens.RevokeToken(ctx, &grantorv1.RevokeTokenRequest{Token: issued.GetAccessToken(), ClientId: loadClient, ClientSecret: f.secret})
		if err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		f.mu.Lock()
		pending := len(f.pending)
		f.mu.Unlock()
		if pending == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d revocations have not reached all followers", pending)
		}
		local.Sleep(ctx, time.Millisecond)
	}
}

// tokenID returns the "jti" of a token, whose signature it does not check.
func tokenID(raw string) (string, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return "", errors.New("the token has no three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		ID string `json:"jti"`
	}
	return claims.ID, json.Unmarshal(payload, &claims)
}

// slowest returns the 99th percentile of the times until the last follower had a revocation, and the longest one.
func (r *followResult) slowest() (p99, longest float64) {
	return figures.Percentile(r.Last, 99), slices.Max(append(r.Last, 0))
}
