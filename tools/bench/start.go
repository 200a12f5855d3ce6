package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/tools/figures"
)

// starts is the number of times a start is measured.
const starts = 5

// startUp measures the time from the start of the process to the first token, with all clients registered.
func (s *scale) startUp(ctx context.Context, f *findings) error {
	s.many.Stop()
	took, fresh, used, err := s.timeStarts(ctx)
	if err != nil {
		return err
	}
	// A day after the registrations, the feed no longer contains them.
	if err := s.manyStore.client.XTrimMaxLen(ctx, "grantor:{grantor}:feed", 1).Err(); err != nil {
		return err
	}
	later, freshLater, usedLater, err := s.timeStarts(ctx)
	if err != nil {
		return err
	}
	const path = "start of serve to the first token"
	clients := figures.Count(float64(s.clients))
	bound := below(0.3, "s")
	f.judgeIn(footprintGroup, path, clients+" clients registered, all within the last day", bound, took.Median, bound.figure(took, 3, "s"))
	f.judgeIn(footprintGroup, path, clients+" clients registered, none within the last day", bound, later.Median, bound.figure(later, 3, "s"))
	f.add(fmt.Sprintf("From the start of the process to the first token over gRPC, %d times each. With %s clients that were registered before the last day: "+
		"%s s. The feed was trimmed for that, as it is a day later. Directly after the registrations: %s s. A new replica starts from a checkpoint of the feed "+
		"and reads the changes after it.",
		starts, clients, later.Text("%.3f"), took.Text("%.3f")), nil)
	f.add(fmt.Sprintf("The resident memory of the process is %s after its first token and %s after a load of %s, %.2f times as much; directly after the registrations, %s and %s, %.2f "+
		"times as much.", figures.Megabytes(freshLater), figures.Megabytes(usedLater), s.duration, usedLater/freshLater, figures.Megabytes(fresh), figures.Megabytes(used), used/fresh), nil)
	return nil
}

// timeStarts starts the issuer several times. It returns the seconds to the first token, and the resident memory of the last
// issuer after its first token and after a load.
func (s *scale) timeStarts(ctx context.Context) (took figures.Spread, fresh, used float64, err error) {
	var seconds []float64
	for i := range starts {
		began := time.Now()
		issuer, _, err := s.beginIssuer(ctx, s.manyStore, setup{})
		if err != nil {
			return took, 0, 0, err
		}
		err = s.firstToken(ctx, issuer)
		seconds = append(seconds, time.Since(began).Seconds())
		if err == nil && i == starts-1 {
			fresh, used, err = s.memoryAroundLoad(ctx, issuer)
		}
		issuer.Stop()
		if err != nil {
			return took, 0, 0, err
		}
	}
	took = figures.NewSpread(seconds)
	progressf("start to first token: %s s", took.Text("%.3f"))
	return took, fresh, used, nil
}

// firstToken requests a token until it gets one.
func (s *scale) firstToken(ctx context.Context, issuer *server) error {
	retry := backoff.Config{BaseDelay: 2 * time.Millisecond, Multiplier: 1, MaxDelay: 2 * time.Millisecond}
	conn, err := grpc.NewClient(issuer.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: time.Second}))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return issuer.Await(ctx, func(ctx context.Context) error {
		_, err := grantorv1.NewTokenServiceClient(conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{
			GrantType: oauth.GrantClientCredentials, ClientId: clientName(0), ClientSecret: s.secrets[0], Scope: ordersScope,
		}, grpc.WaitForReady(true))
		return err
	})
}

// memoryAroundLoad returns the resident memory now and after a load.
func (s *scale) memoryAroundLoad(ctx context.Context, issuer *server) (fresh, used float64, err error) {
	if fresh, err = issuer.Memory("VmRSS"); err != nil {
		return 0, 0, err
	}
	if _, err = s.timedLoad(ctx, contestant{issuer, issueArgs(ordersScope, ordersAPI), nil}); err != nil {
		return 0, 0, err
	}
	used, err = issuer.Memory("VmRSS")
	return fresh, used, err
}
