package attach_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/oauth2"

	"github.com/grantorhq/grantor/interceptors/attach"
)

// site is an HTTP server that accepts one token only.
type site struct {
	mu        sync.Mutex
	accepts   string // the accepted token, or "" for any
	challenge string
	to        map[string]string // maps a path to the target of its redirect
	headers   []string
	bodies    []string
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	got := strings.Join(r.Header.Values("Authorization"), ",")
	s.headers, s.bodies = append(s.headers, got), append(s.bodies, string(body))
	if to, ok := s.to[r.URL.Path]; ok {
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		return
	}
	if s.accepts != "" && got != "Bearer "+s.accepts {
		w.Header().Set("WWW-Authenticate", s.challenge)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (s *site) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

func (s *site) wantTokens(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.headers, want) {
		t.Errorf("the server got authorization %q, want %q", s.headers, want)
	}
}

// closeCounter is a body that counts how often it is closed.
type closeCounter struct {
	io.Reader
	closed int
}

func (b *closeCounter) Close() error { b.closed++; return nil }

// send makes a request and returns the status.
func send(t *testing.T, transport http.RoundTripper, request *http.Request) (int, error) {
	t.Helper()
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}

func newRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func newTransport(t *testing.T) *http.Transport {
	t.Helper()
	base := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	return base
}

func TestRoundTrip(t *testing.T) {
	const invalid, missing = `Bearer error="invalid_token"`, `Bearer realm="orders"`
	text := func() io.Reader { return strings.NewReader("order") }
	once := func() io.Reader { return io.NopCloser(strings.NewReader("order")) }
	none := func() io.Reader { return nil }
	for _, test := range []struct {
		name   string
		method string
		site   *site
		body   func() io.Reader
		status int
		seen   []string
		next   string
	}{
		{"taken", http.MethodPut, &site{accepts: "1"}, text, 200, []string{"Bearer 1"}, "1"},
		{"refused, then taken", http.MethodPut, &site{accepts: "2", challenge: invalid}, none, 200, []string{"Bearer 1", "Bearer 2"}, "2"},
		{"with a body", http.MethodPut, &site{accepts: "2", challenge: invalid}, text, 200, []string{"Bearer 1", "Bearer 2"}, "2"},
		{"with a body that is read once", http.MethodPut, &site{accepts: "2", challenge: invalid}, once, 401, []string{"Bearer 1"}, "2"},
		{"always refused", http.MethodPut, &site{accepts: "none", challenge: invalid}, text, 401, []string{"Bearer 1", "Bearer 2"}, "2"},
		{"refused without that reason", http.MethodPut, &site{accepts: "2", challenge: missing}, text, 401, []string{"Bearer 1"}, "2"},
		{"may be repeated", http.MethodGet, &site{accepts: "2", challenge: invalid}, none, 200, []string{"Bearer 1", "Bearer 2"}, "2"},
		{"may not be repeated", http.MethodPost, &site{accepts: "2", challenge: invalid}, text, 401, []string{"Bearer 1"}, "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			source, server := numberedSource(), test.site
			request := newRequest(t, test.method, server.serve(t), test.body())
			before := request.Header.Clone()
			got, err := send(t, source.Transport(newTransport(t)), request)
			if err != nil || got != test.status {
				t.Errorf("got status %d, %v, want %d", got, err, test.status)
			}
			server.wantTokens(t, test.seen...)
			if last := server.bodies[len(server.bodies)-1]; test.body() != nil && last != "order" {
				t.Errorf("got body %q, want order", last)
			}
			if len(request.Header) != len(before) {
				t.Errorf("the caller's request was changed: %v", request.Header)
			}
			if got := accessToken(t, source); got != test.next {
				t.Errorf("the next request has token %q, want %q", got, test.next)
			}
		})
	}
}

func TestDefaultTransport(t *testing.T) {
	server := &site{accepts: "1"}
	url := server.serve(t)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	if got, err := send(t, numberedSource(), newRequest(t, http.MethodGet, url, nil)); err != nil || got != 200 {
		t.Errorf("got %d, %v, want 200", got, err)
	}
}

func TestRequestThatIsNotSent(t *testing.T) {
	down := attach.NewSource((&issuer{down: errDown}).fetch, 0)
	for _, test := range []struct {
		name   string
		source *attach.Source
		url    string
		header string
		text   string
	}{
		{"plaintext to another machine", numberedSource(), "http://orders.internal/?q=1", "", "neither https nor loopback"},
		{"another identity", numberedSource(), "https://orders.internal", "Basic x", "already has an Authorization"},
		{"no token", down, "https://orders.internal", "", "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := &closeCounter{Reader: strings.NewReader("order")}
			request := newRequest(t, http.MethodPost, test.url, body)
			if test.header != "" {
				request.Header.Set("Authorization", test.header)
			}
			base := roundTripper(func(*http.Request) (*http.Response, error) {
				t.Error("the request was sent")
				return nil, io.EOF
			})
			answer, err := test.source.Transport(base).RoundTrip(request)
			if err == nil {
				_ = answer.Body.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %q in it", err, test.text)
			}
			if body.closed != 1 {
				t.Errorf("the body was closed %d times, want once", body.closed)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

func TestPlaintextHTTPByOption(t *testing.T) {
	server := &site{accepts: "token-1"}
	address := strings.TrimPrefix(server.serve(t), "http://")
	base := newTransport(t)
	base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	source := attach.ClientCredentials(newTokenServer(t, nil).URL, "background-service", "s3cret",
		attach.AllowInsecurePlaintextToRemoteHosts())
	got, err := send(t, source.Transport(base), newRequest(t, http.MethodGet, "http://orders.internal/", nil))
	if err != nil || got != 200 {
		t.Errorf("got %d, %v, want 200", got, err)
	}
}

func TestHTTPS(t *testing.T) {
	server := &site{accepts: "1"}
	secure := httptest.NewTLSServer(server)
	t.Cleanup(secure.Close)
	base := newTransport(t)
	base.TLSClientConfig.RootCAs = x509.NewCertPool()
	base.TLSClientConfig.RootCAs.AddCert(secure.Certificate())
	if got, err := send(t, numberedSource().Transport(base), newRequest(t, http.MethodGet, secure.URL, nil)); err != nil || got != 200 {
		t.Errorf("got %d, %v, want 200", got, err)
	}
}

func TestRedirects(t *testing.T) {
	home, away := &site{to: map[string]string{}}, &site{to: map[string]string{}}
	homeURL, awayURL := home.serve(t), away.serve(t)
	for _, test := range []struct {
		name       string
		to, onward string // home's /start redirects to; away's /hop redirects to
		home, away []string
	}{
		{"same host", homeURL + "/end", "", []string{"Bearer 1", "Bearer 1"}, nil},
		{"another host", awayURL + "/end", "", []string{"Bearer 1"}, []string{""}},
		{"another host and back", awayURL + "/hop", homeURL + "/end", []string{"Bearer 1", ""}, []string{""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			home.headers, away.headers = nil, nil
			home.to["/start"], away.to["/hop"] = test.to, test.onward
			got, err := send(t, numberedSource().Transport(newTransport(t)),
				newRequest(t, http.MethodPost, homeURL+"/start", strings.NewReader("order")))
			if err != nil || got != 200 {
				t.Errorf("got %d, %v, want 200", got, err)
			}
			home.wantTokens(t, test.home...)
			away.wantTokens(t, test.away...)
		})
	}
}

func TestRedirectsThatLoseTheToken(t *testing.T) {
	for _, test := range []struct {
		name, to string
		unknown  bool   // the base transport does not set Response.Request
		second   string // the Authorization value of the last request
	}{
		{"same origin", "https://orders.internal/end", false, "Bearer 1"},
		{"to plaintext", "http://orders.internal/end", false, ""},
		{"another port", "https://orders.internal:8443/end", false, ""},
		{"a host below", "https://eu.orders.internal/end", false, ""},
		{"unknown origin", "https://orders.internal/end", true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var seen []string
			base := roundTripper(func(r *http.Request) (*http.Response, error) {
				seen = append(seen, r.Header.Get("Authorization"))
				answer := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{}}
				if !test.unknown {
					answer.Request = r
				}
				if len(seen) == 1 {
					answer.StatusCode = http.StatusFound
					answer.Header.Set("Location", test.to)
				}
				return answer, nil
			})
			request := newRequest(t, http.MethodGet, "https://orders.internal", nil)
			if _, err := send(t, numberedSource().Transport(base), request); err != nil {
				t.Fatal(err)
			}
			if want := []string{"Bearer 1", test.second}; !slices.Equal(seen, want) {
				t.Errorf("got authorization %q, want %q", seen, want)
			}
		})
	}
}

func TestOAuth2Interop(t *testing.T) {
	server := &site{accepts: "token-1"}
	issuer := newTokenServer(t, nil)
	var source oauth2.TokenSource = attach.ClientCredentials(issuer.URL, "background-service", "s3cret")
	token, err := source.Token()
	if err != nil || !token.Valid() || token.Type() != "Bearer" {
		t.Fatalf("got %v, %v, want a valid Bearer token", token, err)
	}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: newTransport(t)})
	client := oauth2.NewClient(ctx, source)
	for range 2 {
		answer, err := client.Do(newRequest(t, http.MethodGet, server.serve(t), nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusOK {
			t.Errorf("got %d, %v, want 200", answer.StatusCode, err)
		}
	}
	if got := len(issuer.requestForms()); got != 1 {
		t.Errorf("got %d token requests, want 1", got)
	}
}

func TestRequestsOwnContext(t *testing.T) {
	hung := attach.NewSource((&issuer{slow: 1 << 62}).fetch, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := send(t, hung, newRequest(t, http.MethodGet, "https://orders.internal", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the request's context", err)
	}
}
