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

// resource is what the API is called in tokens, as their "aud": a token for another API is no use here.
const resource = "https://orders.internal"

// api is the API: one queue of documents, to be asked for over gRPC and over HTTP.
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
	// Verification: each token is checked right here, with the issuer's public keys. Those are fetched now and when they
	// get old, and at once when a token names a key that is not known, as after a restart of a development issuer. If
	// the issuer is away, the keys at hand go on serving; if there are none yet, callers are told to try again later. A
	// token that is revoked is refused from the next call on: the verifier follows the issuer's revocations.
	verifier, err := verify.New(ctx, s.issuer, verify.Audience(resource),
		// A caller is not told what is wrong with its token; the operator is.
		verify.OnRefusal(func(_ context.Context, method string, reason error) {
			log.Warn("refused", "method", method, "reason", reason)
		}))
	if err != nil {
		return nil, err
	}
	a := &api{log: log, queue: newQueue(), verifier: verifier}

	// Over gRPC who may call what is said in sync.proto, so there is no policy here.
	a.grpcServer = verify.NewServer(verifier, nil)
	datasyncv1.RegisterSyncServiceServer(a.grpcServer, a)

	// Over HTTP the rule stands beside the route.
	mayRead := verify.HTTP(verifier, verify.Scopes("api1"))
	mux := http.NewServeMux()
	mux.Handle("GET /api/sync/pending", mayRead(http.HandlerFunc(a.servePending)))
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
	defer a.verifier.Close() // ends following the issuer's revocations
	a.log.Info("serving", "grpc", a.grpcPort.Addr().String(), "http", a.httpPort.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	a.stopping = ctx.Done()
	group.Go(func() error { return ended(a.grpcServer.Serve(a.grpcPort)) })
	group.Go(func() error { return ended(a.httpServer.Serve(a.httpPort)) })
	group.Go(func() error {
		a.queue.fill(ctx)
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		force := time.AfterFunc(callTimeout, a.grpcServer.Stop)
		defer force.Stop()
		a.grpcServer.GracefulStop()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		return a.httpServer.Shutdown(end)
	})
	return group.Wait()
}

// ended gives why a server ended, unless it was told to.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// pending is what waits, as JSON.
type pending struct {
	Documents []string `json:"documents"`
}

func (a *api) servePending(w http.ResponseWriter, r *http.Request) {
	documents, _ := a.asked(r.Context(), "http")
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(pending{documents}); err != nil {
		a.log.Warn("the caller has gone", "err", err)
	}
}

func (a *api) ListPending(
	ctx context.Context, _ *datasyncv1.ListPendingRequest,
) (*datasyncv1.ListPendingResponse, error) {
	documents, _ := a.asked(ctx, "grpc")
	return &datasyncv1.ListPendingResponse{Documents: documents}, nil
}

func (a *api) WatchPending(
	_ *datasyncv1.WatchPendingRequest, stream grpc.ServerStreamingServer[datasyncv1.WatchPendingResponse],
) error {
	caller, _ := verify.CallerFrom(stream.Context())
	documents, changed := a.asked(stream.Context(), "stream")
	// A token is looked at when a stream opens. That it does not outlive the token is for the handler to see to.
	tokenEnds := time.After(time.Until(caller.ExpiresAt))
	for {
		if err := stream.Send(&datasyncv1.WatchPendingResponse{Documents: documents}); err != nil {
			return err
		}
		select {
		case <-changed:
			documents, changed = a.queue.pending()
		case <-tokenEnds:
			return nil
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-a.stopping:
			return status.Error(codes.Unavailable, "the API is stopping")
		}
	}
}

// asked gives what waits, and notes by whom and with which token it was asked for; the token's id is not secret.
func (a *api) asked(ctx context.Context, over string) (documents []string, changed <-chan struct{}) {
	caller, _ := verify.CallerFrom(ctx)
	a.log.Info("asked", "over", over, "client", caller.ClientID, "token", caller.Claims.ID)
	return a.queue.pending()
}
