package rest_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/rest"
)

// replayed is a token request that can be sent any number of times.
type replayed struct {
	*http.Request
	form string
	body *strings.Reader
}

func newReplayed() *replayed {
	form := good().Encode()
	r := &replayed{httptest.NewRequest(http.MethodPost, "/connect/token", nil), form, strings.NewReader(form)}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Body, r.ContentLength = io.NopCloser(r.body), int64(len(form))
	return r
}

// next returns the request as if it had just arrived.
func (r *replayed) next() *http.Request {
	r.body.Reset(r.form)
	r.Form, r.PostForm = nil, nil // set by the previous handler
	return r.Request
}

// BenchmarkForm reads the form of a token request. The floor is net/url on a form in memory.
func BenchmarkForm(b *testing.B) {
	b.Run("grantor", func(b *testing.B) {
		request := newReplayed()
		b.ReportAllocs()
		for b.Loop() {
			if m, _, refusal := rest.ReadForm(request.next()); refusal != nil || m.GetClientId() != "svc" {
				b.Fatal(m, refusal)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		form := good().Encode()
		b.ReportAllocs()
		for b.Loop() {
			if values, err := url.ParseQuery(form); err != nil || values.Get("client_id") != "svc" {
				b.Fatal(values, err)
			}
		}
	})
}

// constant is a service that answers every token request with the same token.
type constant struct {
	grantorv1.UnimplementedTokenServiceServer
	answer *grantorv1.IssueTokenResponse
}

func (c *constant) IssueToken(context.Context, *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	return c.answer, nil
}

func (c *constant) Register(server grpc.ServiceRegistrar) {
	grantorv1.RegisterTokenServiceServer(server, c)
}

func (*constant) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return handler(ctx, request)
	}
}

func (*constant) Certificates(p *peer.Peer, _ net.Addr, _ func(string) []string) (*peer.Peer, error) {
	return p, nil
}
func (*constant) Origin(peer net.Addr, _ []string) net.Addr                { return peer }
func (*constant) Receive(context.Context, int) (func(), bool, error)       { return func() {}, false, nil }
func (*constant) Admit(ctx context.Context) (context.Context, error)       { return ctx, nil }
func (*constant) Unread(_ context.Context, _ string, refusal *oauth.Error) { panic(refusal) }

// discard is an [http.ResponseWriter] that discards the body.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header            { return d.header }
func (d *discard) WriteHeader(status int)         { d.status = status }
func (d *discard) Write(data []byte) (int, error) { return len(data), nil }

// BenchmarkGateway answers a token request with the whole handler of this package, in front of a service that does
// nothing. The floor is a hand-written handler that reads the form and writes the same answer.
func BenchmarkGateway(b *testing.B) {
	body := tokenAnswer{AccessToken: strings.Repeat("t", 500), TokenType: "Bearer", ExpiresIn: 3600, Scope: "api1"}
	issuer, err := oauth.ParseIssuer("https://issuer.test")
	if err != nil {
		b.Fatal(err)
	}
	gateway, err := rest.New(b.Context(), issuer, &constant{answer: &grantorv1.IssueTokenResponse{
		AccessToken: body.AccessToken, TokenType: body.TokenType, ExpiresIn: int32(body.ExpiresIn), Scope: body.Scope,
	}})
	if err != nil {
		b.Fatal(err)
	}
	floor := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.PostForm.Get("grant_type") != oauth.GrantClientCredentials {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		data, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		h := w.Header()
		h.Set("Content-Type", "application/json;charset=UTF-8")
		h.Set("Content-Length", strconv.Itoa(len(data)))
		h.Set("Cache-Control", "no-store")
		h.Set("Pragma", "no-cache")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(data)
	})
	request := newReplayed()
	answer := func(handler http.Handler) *answer {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request.next())
		return &answer{recorder.Code, recorder.Header(), recorder.Body.String()}
	}
	// The comparison is meaningful only if both answer alike.
	var want, got tokenAnswer
	one, other := answer(floor), answer(gateway)
	if json.Unmarshal([]byte(one.body), &want) != nil || json.Unmarshal([]byte(other.body), &got) != nil || got != want || got != body {
		b.Fatalf("got %s, want %s", other.body, one.body)
	}
	one.header.Del("Content-Length") // protojson inserts blanks at random
	other.header.Del("Content-Length")
	if one.status != other.status || !reflect.DeepEqual(one.header, other.header) {
		b.Fatalf("got %d %v, want %d %v", other.status, other.header, one.status, one.header)
	}
	for _, s := range []struct {
		name    string
		handler http.Handler
	}{{"grantor", gateway}, {"floor", floor}} {
		b.Run(s.name, func(b *testing.B) {
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				s.handler.ServeHTTP(w, request.next())
			}
		})
	}
}
