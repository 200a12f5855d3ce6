// Package spiffe authenticates a client of package attach by its SPIFFE identity, which it gets from the SPIFFE Workload API,
// such as that of a SPIRE agent (draft-ietf-oauth-spiffe-client-auth):
//
//	source := attach.ClientCredentials("https://auth.example.com", "", "", spiffe.JWT(ctx))
//
// It is a package of its own so that only programs that need it compile the client of the Workload API.
package spiffe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/clientassertion"
)

// firstWait bounds how long a token request waits for the first X509-SVID.
const firstWait = 5 * time.Second

// Option configures how SVIDs are obtained.
type Option func(*config)

type config struct {
	address, id string
}

// Socket sets the address of the Workload API, such as unix:///run/spire/agent.sock. The default is the value of the environment
// variable SPIFFE_ENDPOINT_SOCKET.
func Socket(address string) Option { return func(c *config) { c.address = address } }

// ID selects the SVID with the SPIFFE ID, for a workload that has several. The default is the first one.
func ID(id string) Option { return func(c *config) { c.id = id } }

// JWT authenticates the client with a JWT-SVID. Each token request has one whose audience is the issuer that
// [attach.ClientCredentials] is called with; the Workload API is asked for it each time. The client ID may be empty. The issuer
// then derives the client from the SPIFFE ID.
//
// The connection to the Workload API is made when a token is needed first, and ends with ctx. An error of the Workload API
// makes the token request fail as one that a retry may cure.
func JWT(ctx context.Context, options ...Option) attach.Option {
	c := newConfig(options)
	connect := sync.OnceValues(func() (*workloadapi.Client, error) { return c.connect(ctx) })
	svid := attach.AssertionFunc(func(ctx context.Context, audience string) (string, error) {
		if audience == "" {
			return "", errors.New("the issuer is empty; it is the audience of the JWT-SVID")
		}
		client, err := connect()
		if err != nil {
			return "", err
		}
		subject, err := c.subject()
		if err != nil {
			return "", err
		}
		svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience, Subject: subject})
		if err != nil {
			return "", fmt.Errorf("the Workload API: %w", err)
		}
		return svid.Marshal(), nil
	})
	return attach.Join(svid, attach.AssertionType(clientassertion.TypeSPIFFE))
}

// X509 authenticates the client with its X509-SVID, as [attach.CertificateFunc] does with a certificate: token requests over HTTP
// are made on connections that present it, and when the Workload API replaces it, no call fails. If the client ID is empty, the
// request has the SPIFFE ID in its place.
//
// The Workload API is followed from now on until ctx ends. A token request waits up to 5 s for the first X509-SVID. While the
// Workload API cannot be reached, the last one is used.
func X509(ctx context.Context, options ...Option) attach.Option {
	c := newConfig(options)
	client, err := c.connect(ctx)
	if err != nil {
		return attach.CertificateFunc(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, err })
	}
	w := &watcher{config: c, first: make(chan struct{})}
	go func() { _ = client.WatchX509Context(ctx, w) }()
	return attach.CertificateFunc(w.certificate)
}

func newConfig(options []Option) config {
	var c config
	for _, option := range options {
		if option != nil {
			option(&c)
		}
	}
	return c
}

// connect returns a client of the Workload API, which is closed when ctx ends.
func (c *config) connect(ctx context.Context) (*workloadapi.Client, error) {
	var options []workloadapi.ClientOption
	if c.address != "" {
		options = append(options, workloadapi.WithAddr(c.address))
	}
	client, err := workloadapi.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("the Workload API: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = client.Close() })
	return client, nil
}

// subject returns the selected SPIFFE ID, or the zero ID for the first one.
func (c *config) subject() (spiffeid.ID, error) {
	if c.id == "" {
		return spiffeid.ID{}, nil
	}
	return spiffeid.FromString(c.id)
}

// watcher keeps the latest X509-SVID. It implements [workloadapi.X509ContextWatcher].
type watcher struct {
	config config
	first  chan struct{} // closed when there is an SVID

	mu      sync.Mutex
	current *tls.Certificate // nil before the first SVID
	err     error            // the last error, or nil after an SVID
}

// OnX509ContextUpdate implements [workloadapi.X509ContextWatcher].
func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	svid := w.pick(update.SVIDs)
	if svid == nil {
		w.OnX509ContextWatchError(fmt.Errorf("there is no X509-SVID with the ID %s", w.config.id))
		return
	}
	next := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, certificate := range svid.Certificates {
		next.Certificate = append(next.Certificate, certificate.Raw)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current == nil {
		close(w.first)
	}
	w.current, w.err = next, nil
}

// pick returns the selected SVID, or nil.
func (w *watcher) pick(svids []*x509svid.SVID) *x509svid.SVID {
	for _, svid := range svids {
		if w.config.id == "" || svid.ID.String() == w.config.id {
			return svid
		}
	}
	return nil
}

// OnX509ContextWatchError implements [workloadapi.X509ContextWatcher].
func (w *watcher) OnX509ContextWatchError(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// certificate returns the latest X509-SVID.
func (w *watcher) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	timeout := time.NewTimer(firstWait)
	defer timeout.Stop()
	select {
	case <-w.first:
	case <-timeout.C:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.current != nil:
		return w.current, nil
	case w.err != nil:
		return nil, fmt.Errorf("the Workload API has no X509-SVID: %w", w.err)
	}
	return nil, fmt.Errorf("the Workload API has returned no X509-SVID within %s", firstWait)
}
