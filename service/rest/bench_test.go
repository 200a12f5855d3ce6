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

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/rest"
)

// replayed is the request for a token, which can be sent again and again.
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

// again gives the request as if it had just come.
func (r *replayed) again() *http.Request {
	r.body.Reset(r.form)
	r.Form, r.PostForm = nil, nil // what a handler read of it
	return r.Request
}

// BenchmarkForm reads the form of a request for a token. The floor is net/url, which has the form in memory.
func BenchmarkForm(b *testing.B) {
	b.Run("grantor", func(b *testing.B) {
		request := newReplayed()
		b.ReportAllocs()
		for b.Loop() {
			if m, _, refusal := rest.ReadForm(request.again()); refusal != nil || m.GetClientId() != "svc" {
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

// prompt is a service that gives everybody the same token at once.
type prompt struct {
	grantorv1.UnimplementedTokenServiceServer
	answer *grantorv1.IssueTokenResponse
}

func (p *prompt) IssueToken(context.Context, *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	return p.answer, nil
}

func (p *prompt) Register(server grpc.ServiceRegistrar) {
	grantorv1.RegisterTokenServiceServer(server, p)
}

func (*prompt) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return handler(ctx, request)
	}
}

func (*prompt) Origin(peer net.Addr, _ []string) net.Addr                { return peer }
func (*prompt) Admit(ctx context.Context) (context.Context, error)       { return ctx, nil }
func (*prompt) Unread(_ context.Context, _ string, refusal *oauth.Error) { panic(refusal) }

// nowhere is a response that nobody reads.
type nowhere struct {
	header http.Header
	status int
}

func (n *nowhere) Header() http.Header            { return n.header }
func (n *nowhere) WriteHeader(status int)         { n.status = status }
func (n *nowhere) Write(data []byte) (int, error) { return len(data), nil }

// BenchmarkGateway has the whole face answer a request for a token, where the service behind it does nothing. The floor is
// a handler written by hand that reads the form and writes the same answer.
func BenchmarkGateway(b *testing.B) {
	body := tokenAnswer{AccessToken: strings.Repeat("t", 500), TokenType: "Bearer", ExpiresIn: 3600, Scope: "api1"}
	issuer, err := oauth.ParseIssuer("https://issuer.test")
	if err != nil {
		b.Fatal(err)
	}
	face, err := rest.New(b.Context(), issuer, &prompt{answer: &grantorv1.IssueTokenResponse{
		AccessToken: body.AccessToken, TokenType: body.TokenType, ExpiresIn: int32(body.ExpiresIn), Scope: body.Scope,
	}})
	if err != nil {
		b.Fatal(err)
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		handler.ServeHTTP(recorder, request.again())
		return &answer{recorder.Code, recorder.Header(), recorder.Body.String()}
	}
	// They are worth comparing only while they answer alike.
	var want, got tokenAnswer
	one, other := answer(bare), answer(face)
	if json.Unmarshal([]byte(one.body), &want) != nil || json.Unmarshal([]byte(other.body), &got) != nil || got != want || got != body {
		b.Fatalf("got %s, want %s", other.body, one.body)
	}
	one.header.Del("Content-Length") // JSON of messages has blanks by chance
	other.header.Del("Content-Length")
	if one.status != other.status || !reflect.DeepEqual(one.header, other.header) {
		b.Fatalf("got %d %v, want %d %v", other.status, other.header, one.status, one.header)
	}
	for _, s := range []struct {
		name    string
		handler http.Handler
	}{{"grantor", face}, {"floor", bare}} {
		b.Run(s.name, func(b *testing.B) {
			w := &nowhere{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				s.handler.ServeHTTP(w, request.again())
			}
		})
	}
}
