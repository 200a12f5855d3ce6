package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	datasyncv1 "github.com/grantorhq/grantor/examples/datasync/v1"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/attach/spiffe"
)

const (
	// callTimeout bounds one call, including the request for a token if it needs one.
	callTimeout = 10 * time.Second
	// watchInterval is the time between two streams.
	watchInterval = 2 * time.Second
)

// dataSync is the background service.
type dataSync struct {
	client *http.Client
	url    string
	conn   *grpc.ClientConn
	api    datasyncv1.SyncServiceClient
	every  time.Duration
	log    *slog.Logger
}

func newDataSync(ctx context.Context, s settings, log *slog.Logger) (*dataSync, error) {
	// Caching and renewal: the source provides one token at a time for all calls. It requests a token when the first
	// call needs one, well before the token expires, and when the API refuses it.
	secret, identity := s.identity(ctx)
	source := attach.ClientCredentials(s.issuer, "background-service", secret, identity, attach.Scopes("api1"))

	// Attaching over HTTP: the source is the client's transport.
	client := &http.Client{Transport: source}

	// Attaching over gRPC: the source is part of the connection's options. Plaintext is for this machine only; without
	// the insecure credentials the connection uses TLS. Without TLS, the source sends no token to another machine.
	conn, err := grpc.NewClient(s.grpcAPI, attach.DialOptions(source,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// gRPC's default backoff grows to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second,
		}}))...)
	if err != nil {
		return nil, err
	}
	return &dataSync{
		client: client, url: "http://" + s.httpAPI + "/api/sync/pending",
		conn: conn, api: datasyncv1.NewSyncServiceClient(conn), every: s.every, log: log,
	}, nil
}

// identity returns what the service authenticates with: an identity that it has already, or else its secret. Each is read
// again for each token request, so that it can be replaced at any time.
func (s *settings) identity(ctx context.Context) (secret string, _ attach.Option) {
	switch {
	case s.tokenFile != "":
		return "", attach.TokenFile(s.tokenFile) // attach.KubernetesToken, if the token is in its default place
	case s.spiffeSocket != "":
		return "", spiffe.JWT(ctx, spiffe.Socket(s.spiffeSocket))
	}
	return s.secret, nil
}

func (d *dataSync) run(ctx context.Context) error {
	defer func() { _ = d.conn.Close() }()
	var loops sync.WaitGroup
	loops.Go(func() { repeat(ctx, d.every, d.round) })
	loops.Go(func() { repeat(ctx, watchInterval, d.watch) })
	loops.Wait()
	return nil
}

// repeat calls work until ctx ends, with a wait in between. No failure ends it, because the next call may succeed.
func repeat(ctx context.Context, wait time.Duration, work func(context.Context)) {
	for ctx.Err() == nil {
		work(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// round requests the pending documents in both ways, independently of each other.
func (d *dataSync) round(ctx context.Context) {
	documents, err := d.overHTTP(ctx)
	d.process(ctx, "http", documents, err)
	documents, err = d.overGRPC(ctx)
	d.process(ctx, "grpc", documents, err)
}

// process is where a real service would do its work.
func (d *dataSync) process(ctx context.Context, over string, documents []string, err error) {
	switch {
	case err == nil:
		d.log.Info("synced", "over", over, "documents", documents)
	case ctx.Err() == nil: // otherwise the call ended with the program
		d.log.Error("sync failed", "over", over, "err", err)
	}
}

func (d *dataSync) overHTTP(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the API answered %s", answer.Status)
	}
	var got pending
	err = json.NewDecoder(answer.Body).Decode(&got)
	return got.Documents, err
}

func (d *dataSync) overGRPC(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := d.api.ListPending(ctx, &datasyncv1.ListPendingRequest{})
	return answer.GetDocuments(), err
}

// watch receives the pending documents whenever they change, until the stream ends.
func (d *dataSync) watch(ctx context.Context) {
	stream, err := d.api.WatchPending(ctx, &datasyncv1.WatchPendingRequest{})
	for err == nil {
		var answer *datasyncv1.WatchPendingResponse
		if answer, err = stream.Recv(); err == nil {
			d.process(ctx, "stream", answer.GetDocuments(), nil)
		}
	}
	// The API ends a stream when its token expires; the next stream has a new token.
	if !errors.Is(err, io.EOF) {
		d.process(ctx, "stream", nil, err)
	}
}
