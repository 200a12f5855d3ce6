package spiffetest

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/service/must"
)

// WorkloadAPI is a server of the SPIFFE Workload API for one workload. It is safe for concurrent use by multiple goroutines.
type WorkloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	// Address is that of the API: unix:///….
	Address string

	domain *Domain
	id     string

	mu      sync.Mutex
	svid    *x509svid.SVID
	refused bool
	changed chan struct{} // closed at the next change
}

// NewWorkloadAPI starts a server, which stops when the test ends. Its callers are the workload with the SPIFFE ID, which is of
// the domain.
func NewWorkloadAPI(tb testing.TB, domain *Domain, id string) *WorkloadAPI {
	tb.Helper()
	dir, err := os.MkdirTemp("", "spiffe") //nolint:usetesting // the path of a socket is short
	must.Succeed(tb, err)
	path := filepath.Join(dir, "agent.sock")
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "unix", path)
	must.Succeed(tb, err)
	w := &WorkloadAPI{Address: "unix://" + path, domain: domain, id: id, changed: make(chan struct{})}
	w.Rotate()
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, w)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	tb.Cleanup(func() { server.Stop(); <-done; _ = os.RemoveAll(dir) })
	return w
}

// Rotate replaces the workload's X509-SVID.
func (w *WorkloadAPI) Rotate() *x509svid.SVID {
	next := w.domain.X509SVID(w.id, nil)
	w.change(func() { w.svid = next })
	return next
}

// Refuse makes the server refuse or admit its callers.
func (w *WorkloadAPI) Refuse(refuse bool) { w.change(func() { w.refused = refuse }) }

// Changed makes the server send the bundle of its domain once more.
func (w *WorkloadAPI) Changed() { w.change(func() {}) }

func (w *WorkloadAPI) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// state returns the SVID, and a channel that is closed at the next change.
func (w *WorkloadAPI) state(ctx context.Context) (*x509svid.SVID, <-chan struct{}, error) {
	// The standard requires this header, so that requests that others make a workload send are refused.
	if got := metadata.ValueFromIncomingContext(ctx, "workload.spiffe.io"); len(got) != 1 || got[0] != "true" {
		return nil, nil, status.Error(codes.InvalidArgument, "security header missing from request")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refused {
		return nil, nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	return w.svid, w.changed, nil
}

// follow sends a message now and after each change.
func (w *WorkloadAPI) follow(ctx context.Context, send func(*x509svid.SVID) error) error {
	for {
		svid, changed, err := w.state(ctx)
		if err == nil {
			err = send(svid)
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func raw(certificates []*x509.Certificate) (all []byte) {
	for _, c := range certificates {
		all = append(all, c.Raw...)
	}
	return all
}

// FetchX509SVID implements the method of the Workload API.
func (w *WorkloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	return w.follow(stream.Context(), func(svid *x509svid.SVID) error {
		return stream.Send(&workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
			SpiffeId: w.id, X509Svid: raw(svid.Certificates), X509SvidKey: must.Get(x509.MarshalPKCS8PrivateKey(svid.PrivateKey)),
			Bundle: raw(w.domain.Bundle().X509Authorities()),
		}}})
	})
}

// FetchX509Bundles implements the method of the Workload API.
func (w *WorkloadAPI) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	return w.follow(stream.Context(), func(*x509svid.SVID) error {
		return stream.Send(&workload.X509BundlesResponse{Bundles: map[string][]byte{
			w.domain.Name.IDString(): raw(w.domain.Bundle().X509Authorities()),
		}})
	})
}

// FetchJWTSVID implements the method of the Workload API.
func (w *WorkloadAPI) FetchJWTSVID(ctx context.Context, request *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if _, _, err := w.state(ctx); err != nil {
		return nil, err
	}
	if len(request.GetAudience()) != 1 || request.GetSpiffeId() != "" && request.GetSpiffeId() != w.id {
		return nil, status.Error(codes.InvalidArgument, "there must be one audience, and the SPIFFE ID must be the workload's")
	}
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{
		SpiffeId: w.id, Svid: w.domain.JWTSVID(w.id, request.GetAudience()[0], nil),
	}}}, nil
}

// FetchJWTBundles implements the method of the Workload API.
func (w *WorkloadAPI) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	return w.follow(stream.Context(), func(*x509svid.SVID) error {
		return stream.Send(&workload.JWTBundlesResponse{Bundles: map[string][]byte{
			w.domain.Name.IDString(): must.Get(w.domain.Bundle().JWTBundle().Marshal()),
		}})
	})
}
