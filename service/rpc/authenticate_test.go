package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc/metadata"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/issuer"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/rpc"
	"github.com/grantorhq/grantor/service/telemetry"
)

// emptyFeed is a feed without entries, and a follower of it.
type emptyFeed struct{}

func (emptyFeed) Read(ctx context.Context, _ revocation.Cursor, wait time.Duration) ([]revocation.Entry, bool, error) {
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
	return nil, false, ctx.Err()
}

func (emptyFeed) Skim(_ context.Context, after revocation.Cursor) ([]revocation.Entry, revocation.Cursor, error) {
	return nil, after, nil
}

func (emptyFeed) End(context.Context) (revocation.Cursor, error) { return revocation.Cursor{}, nil }
func (emptyFeed) Checkpoint(context.Context) error               { return nil }
func (emptyFeed) Skimmed()                                       {}
func (emptyFeed) Apply(revocation.Entry)                         {}
func (emptyFeed) Lost(bool)                                      {}
func (emptyFeed) Failed(error)                                   {}

// newServer returns a server that knows no client, and what it logs.
func newServer(t *testing.T, feed *revocation.Tail) (*rpc.TokenServer, *strings.Builder) {
	t.Helper()
	name := must.Get(oauth.ParseIssuer("https://issuer.test"))
	i, err := issuer.New(issuer.Config{
		Name: name, Authenticator: clientauth.New(clientauth.Config{Hasher: must.Get(clientsecret.NewHasher(make([]byte, 32))), Now: time.Now}),
		Feed: feed, Ledger: revocation.NewLedger(), MaxStaleness: time.Minute, CachedTokens: 1, Now: time.Now,
	})
	must.Succeed(t, err)
	log := &strings.Builder{}
	events := must.Get(telemetry.New(slog.New(slog.NewTextHandler(log, nil)), noop.NewMeterProvider().Meter(""), nil, nil))
	return &rpc.TokenServer{Issuer: i, Events: events}, log
}

// TestOrderOfChecks sends requests with more than one fault, to a replica that has not read the feed and to one that has.
func TestOrderOfChecks(t *testing.T) {
	request := func(change func(*grantorv1.IssueTokenRequest)) *grantorv1.IssueTokenRequest {
		m := &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, ClientId: "svc"}
		change(m)
		return m
	}
	sound := request(func(*grantorv1.IssueTokenRequest) {})
	nul := request(func(m *grantorv1.IssueTokenRequest) { m.GrantType, m.Scope = "", "a\x00b" })
	malformed := request(func(m *grantorv1.IssueTokenRequest) { m.GrantType = "" })
	unsupported := request(func(m *grantorv1.IssueTokenRequest) { m.GrantType = "password" })
	const (
		isNUL       = "A parameter contains a NUL byte."
		isTwice     = "Authorization was sent twice."
		isStale     = "The server has lost touch with its store."
		isMissing   = "grant_type is missing."
		isOtherType = "grant_type must be client_credentials."
		isUnproved  = "Client authentication failed."
	)
	for name, test := range map[string]struct {
		request       *grantorv1.IssueTokenRequest
		authorization []string
		stale, fresh  oauth.Text
	}{
		"a NUL byte":          {nul, []string{"Basic a", "Basic b"}, isNUL, isNUL},
		"two authorizations":  {malformed, []string{"Basic a", "Basic b"}, isTwice, isTwice},
		"a malformed request": {malformed, []string{"Basic !"}, isStale, isMissing},
		"another grant":       {unsupported, []string{"Basic !"}, isStale, isOtherType},
		"wrong credentials":   {sound, []string{"Basic !"}, isStale, isUnproved},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"authorization": test.authorization})
				feed := revocation.NewTail(emptyFeed{}, emptyFeed{})
				server, log := newServer(t, feed)
				expect := func(state string, want oauth.Text) {
					t.Helper()
					_, err := server.IssueToken(ctx, test.request)
					var refusal *oauth.Error
					if !errors.As(err, &refusal) || refusal.Text != want {
						t.Errorf("%s: got %v, want %q", state, err, want)
					}
					if !strings.Contains(log.String(), "event=token.refused") {
						t.Errorf("%s: the refusal is not audited:\n%s", state, log)
					}
					log.Reset()
				}
				expect("stale", test.stale)
				running, stop := context.WithCancel(t.Context())
				go func() { _ = feed.Run(running) }()
				must.Succeed(t, feed.CatchUp(t.Context()))
				expect("fresh", test.fresh)
				stop()
				synctest.Wait()
			})
		})
	}
}
