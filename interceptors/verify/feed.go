package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/revocation"
)

const (
	// silence is how long the feed may say nothing before it is taken for dead; it says something every second.
	silence = 5 * time.Second
	// The pause before the feed is taken up again, doubled with each failure.
	firstPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
)

var (
	// errNoFeed says that the issuer has no feed: it is not Grantor.
	errNoFeed = errors.New("the issuer has no feed of revocations")
	errSilent = errors.New("the feed of revocations said nothing for 5 s")
)

// FeedStatus says how a verifier stands with the issuer's feed of revocations.
type FeedStatus struct {
	// Followed is whether there is a feed: a foreign issuer has none.
	Followed bool
	// Complete is whether every live revocation was received once; from then on Age counts.
	Complete bool
	// Age is how old the knowledge is: every revocation made longer ago is in force here.
	Age time.Duration
	// Live is how many revocations are in force.
	Live int
	// StaleCalls counts the calls that were decided, or refused, while Age was beyond [MaxStaleness].
	StaleCalls uint64
}

// feed follows the issuer's revocations. It may be used by several goroutines.
type feed struct {
	connect  func(ctx context.Context) (grpc.ClientConnInterface, func(), error)
	list     *revocation.List
	maxStale time.Duration
	// changed is told when the list has grown.
	changed func()
	start   time.Time
	// asOf is the moment that the knowledge is of, counted from start and often before it. It says something once complete
	// is set.
	asOf       atomic.Int64
	complete   atomic.Bool
	absent     atomic.Bool
	warned     atomic.Bool
	staleCalls atomic.Uint64
	// failure is why the feed last broke off, for the log.
	failure atomic.Pointer[error]
	// ready is closed when the knowledge is complete for the first time, or there is no feed.
	ready chan struct{}
}

// age gives how old the knowledge is; complete is false before there is any.
func (f *feed) age() (age time.Duration, complete bool) {
	if !f.complete.Load() {
		return time.Since(f.start), false
	}
	return time.Since(f.start) - time.Duration(f.asOf.Load()), true
}

// stale reports whether the knowledge is older than it may be, and counts the call that asks.
func (f *feed) stale() bool {
	if age, complete := f.age(); (complete && age <= f.maxStale) || f.absent.Load() {
		return false
	}
	f.staleCalls.Add(1)
	if !f.warned.Swap(true) {
		attributes := []any{"max_staleness", f.maxStale}
		if failure := f.failure.Load(); failure != nil {
			attributes = append(attributes, "error", *failure)
		}
		slog.Warn("verify: the feed of revocations is out of reach: a token that was revoked meanwhile is not known as such",
			attributes...)
	}
	return true
}

// run follows the feed until ctx ends or the issuer turns out to have none.
func (f *feed) run(ctx context.Context) {
	cursor, pause, heard := "", firstPause, false
	for ctx.Err() == nil {
		began := time.Now()
		err := f.follow(ctx, &cursor, func() { heard = true })
		// An issuer that had a feed and has none now is in trouble: what it may have revoked is not known.
		if errors.Is(err, errNoFeed) && !heard {
			f.absent.Store(true)
			close(f.ready)
			return
		}
		f.failure.Store(&err)
		if time.Since(began) > mostPause {
			pause = firstPause // by how long it lasted: an answer alone must not make room for ten attempts a second
		}
		// By chance between half and all of it, so that not all verifiers come back to a restarted issuer at once.
		timer := time.NewTimer(pause/2 + rand.N(pause/2)) //nolint:gosec // it only spreads load
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		pause = min(2*pause, mostPause)
	}
}

// follow takes the feed up at the cursor and goes on until it breaks off. alive is called for each answer.
func (f *feed) follow(ctx context.Context, cursor *string, alive func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	conn, closeConn, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	watchdog.Reset(silence)
	stream, err := grantorv1.NewRevocationServiceClient(conn).WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{Cursor: *cursor})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if status.Code(err) == codes.Unimplemented {
			return errNoFeed // a Grantor of before there was one, or a part of it
		}
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		received := time.Since(f.start)
		watchdog.Reset(silence)
		alive()
		f.take(answer)
		*cursor = answer.GetCursor()
		if answer.GetComplete() {
			age := min(max(answer.GetAgeMs(), 0), longestToken.Milliseconds()) // no answer speaks of the future
			f.known(received - time.Duration(age)*time.Millisecond)
		}
	}
}

// take puts an answer in force.
func (f *feed) take(answer *grantorv1.WatchRevocationsResponse) {
	news := false
	apply := func(kind revocation.Kind, id string, at int64) {
		news = f.list.Apply(revocation.Change{Kind: kind, ID: id, At: time.Unix(at, 0)}) || news
	}
	for _, t := range answer.GetTokens() {
		apply(revocation.TokenRevoked, t.GetJti(), t.GetExp())
	}
	for _, c := range answer.GetClients() {
		apply(revocation.ClientRevoked, c.GetClientId(), c.GetUntil())
	}
	for _, k := range answer.GetKeys() {
		apply(revocation.KeyRevoked, k.GetKid(), k.GetAt())
	}
	if news {
		f.changed()
	}
}

// known notes that everything is known up to a moment, counted from start. A replica that is behind the one before it
// takes nothing away.
func (f *feed) known(asOf time.Duration) {
	if !f.complete.Load() || int64(asOf) > f.asOf.Load() {
		f.asOf.Store(int64(asOf))
	}
	if !f.complete.Swap(true) {
		close(f.ready)
	}
	if age, _ := f.age(); age <= f.maxStale {
		f.warned.Store(false)
	}
}

// anyReplica has verifiers follow different replicas where the name of the gRPC port resolves to several.
const anyReplica = `{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}`

// discovered makes connections to the gRPC port that the issuer's description names.
func discovered(client *http.Client, issuer string) func(context.Context) (grpc.ClientConnInterface, func(), error) {
	return func(ctx context.Context) (grpc.ClientConnInterface, func(), error) {
		found, err := oauth.Discover(ctx, client, issuer)
		if err != nil {
			return nil, nil, err
		}
		if found.GRPCEndpoint == "" {
			return nil, nil, errNoFeed
		}
		secure, err := transportSecurity(client, issuer, found.GRPCEndpoint)
		if err != nil {
			return nil, nil, err
		}
		conn, err := grpc.NewClient(found.GRPCEndpoint, grpc.WithTransportCredentials(secure),
			grpc.WithDefaultServiceConfig(anyReplica), grpc.WithDisableServiceConfig())
		if err != nil {
			return nil, nil, err
		}
		return conn, func() { _ = conn.Close() }, nil
	}
}

// transportSecurity is that of the issuer's URL: TLS as the HTTP client has it, or plaintext where both are loopback.
func transportSecurity(client *http.Client, issuer, endpoint string) (credentials.TransportCredentials, error) {
	if len(issuer) > len("https:") && issuer[:len("https:")] == "https:" {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if transport, ok := client.Transport.(*http.Transport); ok && transport.TLSClientConfig != nil {
			config = transport.TLSClientConfig.Clone()
			config.NextProtos = nil
		}
		return credentials.NewTLS(config), nil
	}
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil || !oauth.Loopback(host) {
		return nil, fmt.Errorf("the issuer's gRPC endpoint %.200q is neither TLS nor loopback", endpoint)
	}
	return insecure.NewCredentials(), nil
}
