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
)

const (
	// callTimeout is how long one call may take, with the token that it may have to get first.
	callTimeout = 10 * time.Second
	// watchPause is between two streams.
	watchPause = 2 * time.Second
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

func newDataSync(s settings, log *slog.Logger) (*dataSync, error) {
	// Caching and refreshing: the source has one token at a time for all calls. It asks the issuer when the first call
	// needs a token, again well before that one ends, and again when the API refuses it.
	source := attach.ClientCredentials(s.issuer, "background-service", s.secret, attach.Scopes("api1"))

	// Attaching, over HTTP: the source is the client's transport.
	client := &http.Client{Transport: source}

	// Attaching, over gRPC: the source goes into the options of the connection. Plaintext is for this machine alone; take
	// the insecure credentials away and it is TLS. Without TLS the source sends no token to another machine.
	conn, err := grpc.NewClient(s.grpcAPI, attach.DialOptions(source,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// gRPC would in time wait up to two minutes before it tries a server again that was away.
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

func (d *dataSync) run(ctx context.Context) error {
	defer func() { _ = d.conn.Close() }()
	var loops sync.WaitGroup
	loops.Go(func() { repeat(ctx, d.every, d.round) })
	loops.Go(func() { repeat(ctx, watchPause, d.watch) })
	loops.Wait()
	return nil
}

// repeat does the work until ctx ends. No failure ends it: what is wrong now may be mended by the next time.
func repeat(ctx context.Context, pause time.Duration, work func(context.Context)) {
	for ctx.Err() == nil {
		work(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// round asks for what waits, both ways. One does not depend on the other.
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
	case ctx.Err() == nil: // else it is the end of the program that ended the call
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

// watch is told what waits whenever it changes, until the stream ends. A stream's call is authorized when it opens.
func (d *dataSync) watch(ctx context.Context) {
	stream, err := d.api.WatchPending(ctx, &datasyncv1.WatchPendingRequest{})
	for err == nil {
		var answer *datasyncv1.WatchPendingResponse
		if answer, err = stream.Recv(); err == nil {
			d.process(ctx, "stream", answer.GetDocuments(), nil)
		}
	}
	// The API ends a stream with its token; the next one opens with a new one.
	if !errors.Is(err, io.EOF) {
		d.process(ctx, "stream", nil, err)
	}
}
