package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	datasyncv1 "github.com/grantorhq/grantor/examples/datasync/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
)

// resource identifies the API in the "aud" of tokens. A token for another API is refused.
const resource = "https://orders.internal"

// api is the API: a queue of documents, served over gRPC and over HTTP.
type api struct {
	datasyncv1.UnimplementedSyncServiceServer

	queue              *queue
	grpcPort, httpPort net.Listener
	grpcServer         *verify.Server
	httpServer         *http.Server
	stopping           <-chan struct{}
	verifier           *verify.Verifier
	log                *slog.Logger
}

func newAPI(ctx context.Context, s settings, log *slog.Logger) (*api, error) {
	// Verification: tokens are checked locally, with the issuer's public keys. The verifier fetches the keys now and
	// when they become stale, and also when a token names an unknown key, as after a restart of a development issuer.
	// While the issuer is down, the last keys are used; if there are none yet, calls fail with UNAVAILABLE. A revoked
	// token is refused from the next call on, because the verifier follows the issuer's revocations.
	verifier, err := verify.New(ctx, s.issuer, verify.Audience(resource),
		// The reason goes to the operator only; the caller does not get it.
		verify.OnRefusal(func(_ context.Context, method string, reason error) {
			log.Warn("refused", "method", method, "reason", reason)
		}))
	if err != nil {
		return nil, err
	}
	a := &api{log: log, queue: newQueue(), verifier: verifier}

	// The rules for gRPC are in sync.proto, so there is no policy here.
	a.grpcServer = verify.NewServer(verifier, nil)
	datasyncv1.RegisterSyncServiceServer(a.grpcServer, a)

	// The rule for HTTP is next to its route.
	guard := verify.HTTP(verifier, verify.Scopes("api1"))
	mux := http.NewServeMux()
	mux.Handle("GET /api/sync/pending", guard(http.HandlerFunc(a.servePending)))
	a.httpServer = &http.Server{Handler: mux, ReadHeaderTimeout: callTimeout}

	var listen net.ListenConfig
	if a.grpcPort, err = listen.Listen(ctx, "tcp", s.grpcAPI); err != nil {
		verifier.Close()
		return nil, err
	}
	if a.httpPort, err = listen.Listen(ctx, "tcp", s.httpAPI); err != nil {
		verifier.Close()
		return nil, errors.Join(err, a.grpcPort.Close())
	}
	return a, nil
}

func (a *api) run(ctx context.Context) error {
	defer a.verifier.Close() // stops following the issuer's revocations
	a.log.Info("serving", "grpc", a.grpcPort.Addr().String(), "http", a.httpPort.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	a.stopping = ctx.Done()
	group.Go(func() error { return ignoreClosed(a.grpcServer.Serve(a.grpcPort)) })
	group.Go(func() error { return ignoreClosed(a.httpServer.Serve(a.httpPort)) })
	group.Go(func() error {
		a.queue.fill(ctx)
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		force := time.AfterFunc(callTimeout, a.grpcServer.Stop)
		defer force.Stop()
		a.grpcServer.GracefulStop()
		timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		return a.httpServer.Shutdown(timeout)
	})
	return group.Wait()
}

// ignoreClosed returns err unless the server was stopped on purpose.
func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// pending is the JSON response.
type pending struct {
	Documents []string `json:"documents"`
}

func (a *api) servePending(w http.ResponseWriter, r *http.Request) {
	documents, _ := a.list(r.Context(), "http")
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(pending{documents}); err != nil {
		a.log.Warn("writing the response failed", "err", err)
	}
}

func (a *api) ListPending(
	ctx context.Context, _ *datasyncv1.ListPendingRequest,
) (*datasyncv1.ListPendingResponse, error) {
	documents, _ := a.list(ctx, "grpc")
	return &datasyncv1.ListPendingResponse{Documents: documents}, nil
}

func (a *api) WatchPending(
	_ *datasyncv1.WatchPendingRequest, stream grpc.ServerStreamingServer[datasyncv1.WatchPendingResponse],
) error {
	caller, _ := verify.CallerFrom(stream.Context())
	documents, changed := a.list(stream.Context(), "stream")
	// The token is checked when the stream opens. The verifier would end the stream with UNAUTHENTICATED soon after the
	// token expires; this handler ends it without an error.
	expired := time.After(time.Until(caller.ExpiresAt))
	for {
		if err := stream.Send(&datasyncv1.WatchPendingResponse{Documents: documents}); err != nil {
			return err
		}
		select {
		case <-changed:
			documents, changed = a.queue.pending()
		case <-expired:
			return nil
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-a.stopping:
			return status.Error(codes.Unavailable, "the API is stopping")
		}
	}
}

// list returns the pending documents, and logs who requested them with which token. The id of a token is not secret.
func (a *api) list(ctx context.Context, over string) (documents []string, changed <-chan struct{}) {
	caller, _ := verify.CallerFrom(ctx)
	a.log.Info("listed", "over", over, "client", caller.ClientID, "token", caller.Claims.ID)
	return a.queue.pending()
}
