package service_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/limit"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/remoteaddr"
	"github.com/grantorhq/grantor/service/rest"
)

// expectLimit checks that a call was refused for a limit, with the time to wait.
func expectLimit(t testing.TB, err error) {
	t.Helper()
	refused := status.Convert(err)
	reason, wait := "", time.Duration(0)
	for _, detail := range refused.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration()
		}
	}
	if refused.Code() != codes.ResourceExhausted || reason != string(oauth.TemporarilyUnavailable) || wait <= 0 {
		t.Errorf("got %v with the reason %q and the wait %s, want %s with both", err, reason, wait, codes.ResourceExhausted)
	}
}

// TestQuota reaches the quota at one replica, whose tokens the other counts too.
func TestQuota(t *testing.T) {
	const quota = 20
	c := newCluster(t)
	c.limits = limit.Limits{TokensPerClient: quota, TokensPeriod: time.Hour}
	a, b := c.start(t), c.start(t)
	a.apply(t, manifest())
	must.Succeed(t, b.CatchUp(withTimeout(t, timeout)))
	issued := 0
	for {
		if _, err := a.issue(t.Context()); err != nil {
			expectLimit(t, err)
			break
		}
		issued++
	}
	// A new hour may begin in between, with nearly a whole quota.
	if issued < quota || issued > 2*quota {
		t.Errorf("one replica issued %d tokens, want %d", issued, quota)
	}
	must.Eventually(t, "the other replica refuses too", func() bool {
		_, err := b.issue(t.Context())
		return status.Code(err) == codes.ResourceExhausted
	})
	// Introspection does not count.
	_, err := b.ask(t.Context(), "x.y.z")
	must.Succeed(t, err)
	a.SetLimits(limit.Limits{TokensPerClient: 100 * quota, TokensPeriod: time.Hour})
	_, err = a.issue(t.Context())
	must.Succeed(t, err)
}

func TestQuotaWarns(t *testing.T) {
	c := newCluster(t)
	c.limits = limit.Limits{TokensPerClient: 3, TokensPeriod: time.Hour, TokensWarn: true}
	r := c.start(t)
	r.apply(t, manifest())
	for range 10 {
		r.token(t)
	}
	if n := r.log.count("tokens-per-client"); n < 1 || n > 2 { // 2 if a new hour begins in between
		t.Errorf("it is logged %d times, want once", n)
	}
}

func TestRequestsPerSource(t *testing.T) {
	c := newCluster(t)
	c.limits = limit.Limits{RequestsPerSource: 3}
	r := c.start(t)
	must.Eventually(t, "a second has too many requests", func() bool {
		_, err := r.tokens.GetKeySet(t.Context(), &grantorv1.GetKeySetRequest{})
		if err != nil {
			expectLimit(t, err)
		}
		return err != nil
	})
	must.Eventually(t, "the next second has room", func() bool {
		_, err := r.tokens.GetKeySet(t.Context(), &grantorv1.GetKeySetRequest{})
		return err == nil
	})
}

// TestRequestsPerSourceOverREST checks that a request over REST counts once, whatever it is.
func TestRequestsPerSourceOverREST(t *testing.T) {
	c := newCluster(t)
	r := c.start(t)
	handler := must.Get(rest.New(t.Context(), must.Get(oauth.ParseIssuer("https://issuer.test")), r.Service))
	for _, target := range []string{"/connect/token", "/grantor.v1.TokenService/IssueToken", "/v1/clients", "/.well-known/jwks.json", "/nowhere"} {
		send := func(method string) int {
			body := &unread{}
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, target, body))
			if answer.Code == http.StatusTooManyRequests && (body.read || answer.Header().Get("Retry-After") == "") {
				t.Errorf("%s: the body was read, or there is no Retry-After", target)
			}
			return answer.Code
		}
		r.SetLimits(limit.Limits{RequestsPerSource: 1})
		must.Eventually(t, target+": a second has too many requests", func() bool { return send("PUT") == http.StatusTooManyRequests })
		must.Eventually(t, target+": the next second has room", func() bool { return send("GET") != http.StatusTooManyRequests })
	}
}

// unread is a body that records whether it was read.
type unread struct{ read bool }

// Read implements [io.Reader].
func (u *unread) Read([]byte) (int, error) {
	u.read = true
	return 0, io.EOF
}

func TestStreamsPerSource(t *testing.T) {
	c := newCluster(t)
	c.limits = limit.Limits{StreamsPerSource: 2}
	r := c.start(t)
	open := func() (context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := r.revocations.WatchRevocations(ctx, &grantorv1.WatchRevocationsRequest{})
		must.Succeed(t, err)
		_, err = stream.Recv()
		return cancel, err
	}
	first, err := open()
	must.Succeed(t, err)
	second, err := open()
	must.Succeed(t, err)
	defer second()
	_, err = open()
	expectLimit(t, err)
	first()
	must.Eventually(t, "another stream may be opened", func() bool {
		_, err := open()
		return err == nil
	})
}

// TestOriginOverGRPC checks that a call originates from the other end of its connection, unless a trusted proxy reports
// another address.
func TestOriginOverGRPC(t *testing.T) {
	for name, test := range map[string]struct {
		proxies   remoteaddr.Networks
		forwarded string
		want      codes.Code
	}{
		"from a trusted proxy":          {remoteaddr.Networks{netip.MustParsePrefix("127.0.0.0/8")}, "203.0.113.9", codes.OK},
		"from a trusted proxy, another": {remoteaddr.Networks{netip.MustParsePrefix("127.0.0.0/8")}, "203.0.114.9", codes.Unauthenticated},
		"from any peer":                 {nil, "203.0.113.9", codes.Unauthenticated},
		"from another network":          {remoteaddr.Networks{netip.MustParsePrefix("10.0.0.0/8")}, "203.0.113.9", codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.proxies = test.proxies
			r := c.start(t)
			r.apply(t, manifest(func(svc *registry.Client) {
				svc.AllowedNetworks = remoteaddr.Networks{netip.MustParsePrefix("203.0.113.0/24")}
			}))
			_, err := r.issue(metadata.AppendToOutgoingContext(t.Context(), "x-forwarded-for", test.forwarded))
			expectCode(t, err, test.want)
			if n := r.log.count("peer=203.0.113.9 "); (n > 0) != (test.want == codes.OK) {
				t.Errorf("the audit log has the address %d times", n)
			}
		})
	}
}

// TestAllowedNetworks checks that the networks of a client bound every call that takes its secret.
func TestAllowedNetworks(t *testing.T) {
	c := newCluster(t)
	r := c.start(t)
	r.apply(t, manifest())
	raw := r.token(t)
	r.apply(t, manifest(func(svc *registry.Client) {
		svc.AllowedNetworks = remoteaddr.Networks{netip.MustParsePrefix("203.0.113.0/24")}
	}))
	_, err := r.issue(t.Context())
	expectCode(t, err, codes.Unauthenticated)
	_, err = r.tokens.IntrospectToken(t.Context(), &grantorv1.IntrospectTokenRequest{ClientId: "svc", ClientSecret: secret, Token: raw})
	expectCode(t, err, codes.Unauthenticated)
	expectCode(t, r.revoke(t.Context(), raw), codes.Unauthenticated)
	expectCode(t, r.revokeAll(t.Context()), codes.Unauthenticated)
	if r.log.count("reason=network_not_allowed") != 4 {
		t.Error("the audit log does not have the reason of each refusal")
	}
	_, wrong := r.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
		GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: clientsecret.New(),
	})
	_, err = r.issue(t.Context())
	if status.Convert(err).String() != status.Convert(wrong).String() {
		t.Errorf("from another network: %v, with a wrong secret: %v", err, wrong)
	}
}
