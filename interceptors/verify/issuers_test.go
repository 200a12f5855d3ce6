package verify_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/revocation"
	"github.com/grantorhq/grantor/service/token"
	"github.com/grantorhq/grantor/service/tokentest"
)

// A service moves from a foreign issuer to Grantor while it is called: it is deployed with both issuers, the clients
// change over one by one, and it is deployed with the new issuer alone. No call fails.
func TestMoveUnderTraffic(t *testing.T) {
	const oldIssuer = "https://hydra.internal"
	s, issuer := newForeignSigner(), tokentest.New(t)
	issuer.AddClient(t, "billing", orders, "orders.read")
	old := must.Get(verify.New(t.Context(), oldIssuer, verify.Audience("orders"), verify.Accept(verify.Hydra),
		verify.Keys(jwks.NewSet(s.key)), verify.Now(issuer.Now)))
	young := startVerifier(t.Context(), t, issuer.URL, verify.Now(issuer.Now))
	both := must.Get(verify.Issuers(old, young))

	var seen sync.Map
	deploy := func(v *verify.Verifier) *http.Handler {
		handler := verify.HTTP(v, verify.Scopes("orders.read"))(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			caller, _ := verify.CallerFrom(r.Context())
			seen.Store(caller.Issuer+" "+caller.ClientID, true)
		}))
		return &handler
	}
	var service atomic.Pointer[http.Handler]
	service.Store(deploy(old))
	now := issuer.Now().Unix()
	payload := object{"iss": oldIssuer, "aud": "orders", "iat": now, "exp": now + 3600, "client_id": "billing", "sub": "billing", "jti": "1", "scp": []string{"orders.read"}}
	tokens := [2]string{s.sign("JWT", payload), issuer.Token(t, "billing", orders, "orders.read")}
	const clients = 8
	var moved [clients]atomic.Bool
	var calls [clients]atomic.Int64
	var failed atomic.Int64
	stop := make(chan struct{})
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				raw := tokens[0]
				if moved[i].Load() {
					raw = tokens[1]
				}
				request := httptest.NewRequest(http.MethodGet, "/", nil)
				request.Header.Set("Authorization", "Bearer "+raw)
				answer := httptest.NewRecorder()
				(*service.Load()).ServeHTTP(answer, request)
				if answer.Code != http.StatusOK {
					failed.Add(1)
				}
				calls[i].Add(1)
			}
		})
	}
	// traffic waits until each client has begun and ended a further call.
	traffic := func() {
		for i := range calls {
			before := calls[i].Load()
			must.Eventually(t, "there is traffic", func() bool { return calls[i].Load() > before+1 })
		}
	}
	traffic()
	service.Store(deploy(both))
	for i := range moved {
		traffic()
		moved[i].Store(true)
	}
	traffic()
	service.Store(deploy(young))
	traffic()
	close(stop)
	group.Wait()
	if got := failed.Load(); got != 0 {
		t.Errorf("%d calls failed", got)
	}
	for _, name := range []string{oldIssuer, issuer.URL} {
		if _, ok := seen.Load(name + " billing"); !ok {
			t.Errorf("no caller of %s", name)
		}
	}
	if got := both.Feed(); !got.Followed || !got.Complete {
		t.Errorf("the feed of both: got %+v", got)
	}
}

// Each issuer's tokens are checked by its own verifier: keys, audience, profile and revocations are not shared.
func TestIssuersApart(t *testing.T) {
	first, second := newForeignSigner(), newForeignSigner()
	newMember := func(issuer string, s foreignSigner, options ...verify.Option) *verify.Verifier {
		return must.Get(verify.New(t.Context(), issuer, append(options, verify.Keys(jwks.NewSet(s.key)))...))
	}
	a := newMember("https://a.internal", first, verify.Audience(orders))
	b := newMember("https://b.internal", second, verify.Audience("b"), verify.Accept(verify.Keycloak))
	both := must.Get(verify.Issuers(a, b))
	now := time.Now().Unix()
	good := object{"iss": "https://a.internal", "aud": orders, "iat": now, "exp": now + 60, "sub": "s", "client_id": "c", "jti": "j"}
	ofB := good.with(object{"iss": "https://b.internal", "aud": "b", "client_id": nil, "azp": "c"})
	for name, test := range map[string]struct {
		raw  string
		want int
	}{
		"of the first":                {first.sign("at+jwt", good), 200},
		"of the second":               {second.sign("JWT", ofB), 200},
		"the other's key":             {second.sign("at+jwt", good), 401},
		"the other's key, second":     {first.sign("JWT", ofB), 401},
		"the other's audience":        {first.sign("at+jwt", good.with(object{"aud": "b"})), 401},
		"the other's profile":         {first.sign("JWT", good), 401},
		"of a third":                  {first.sign("at+jwt", good.with(object{"iss": "https://c.internal"})), 401},
		"iss a list":                  {first.sign("at+jwt", good.with(object{"iss": []string{"https://a.internal"}})), 401},
		"no iss":                      {first.sign("at+jwt", good.with(object{"iss": nil})), 401},
		"garbage":                     {"garbage", 401},
		"a payload that is not JSON":  {"e30.e30x.AA", 401},
		"a payload that is not there": {"..", 401},
		"too large":                   {strings.Repeat("x", token.MaxSize+1), 401},
	} {
		for range 2 { // the second time, a valid one is in the cache
			if got := statusFor(both, test.raw); got != test.want {
				t.Errorf("%s: got %d, want %d", name, got, test.want)
			}
		}
	}
	verify.Deny(a, revocation.Change{Kind: revocation.ClientRevoked, ID: "c", At: time.Now().Add(time.Minute)})
	for raw, want := range map[string]int{first.sign("at+jwt", good): 401, second.sign("JWT", ofB): 200} {
		if got := statusFor(both, raw); got != want {
			t.Errorf("after the first issuer revoked its client: got %d, want %d", got, want)
		}
	}
	for name, members := range map[string][]*verify.Verifier{"none": {}, "nil": {a, nil}, "twice": {a, a}, "nested": {a, both}} {
		if _, err := verify.Issuers(members...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Two guards of one server have callers of different issuers: the inner one does not end the outer one's stream, and
// renews none that it does not know.
func TestTwoGuards(t *testing.T) {
	signer := newSigner()
	outer := newVerifier(signer)
	other := must.Get(verify.New(t.Context(), "https://other.internal", verify.Audience(orders), verify.Keys(jwks.NewSet(signer.Public()))))
	inner := must.Get(verify.Issuers(other))
	raw := must.Get(signer.Sign(claims(testIssuer, "orders.read")))
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+raw))
	info := &grpc.StreamServerInfo{FullMethod: "/test.v1.Proto/Chat"}
	err := verify.StreamInterceptor(outer, nil)(nil, fakeServerStream{ctx: ctx}, info, func(_ any, stream grpc.ServerStream) error {
		return verify.StreamInterceptor(inner, verify.Policy{info.FullMethod: verify.Public()})(nil, stream, info, func(_ any, stream grpc.ServerStream) error {
			if caller, ok := verify.CallerFrom(stream.Context()); !ok || caller.Issuer != testIssuer {
				t.Errorf("got %v, %v, want the caller of the outer guard", caller, ok)
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	server := verify.NewServer(outer, nil)
	verify.RegisterStreamRenewal(server, inner)
	_, err = grantorv1.NewStreamServiceClient(listen(t, server)).RenewStream(outgoing(t.Context(), "Bearer "+raw),
		&grantorv1.RenewStreamRequest{Stream: strings.Repeat("a", 16)})
	if status.Code(err) != codes.NotFound {
		t.Errorf("got %v, want NOT_FOUND", err)
	}
}
